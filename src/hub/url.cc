#include "hub/url.h"

#include <charconv>

#include "formats/printable.h"

namespace pensieve::hub {
namespace {

std::string Unescape(std::string_view text) {
  std::string out;
  for (size_t at = 0; at < text.size(); ++at) {
    unsigned char byte = 0;
    const char* const digits = text.data() + at + 1;
    if (text[at] == '%' && at + 2 < text.size() && std::from_chars(digits, digits + 2, byte, 16).ptr == digits + 2) {
      out += static_cast<char>(byte);
      at += 2;
    } else {
      out += text[at];
    }
  }
  return out;
}

}  // namespace

UrlWithCredentials SplitCredentials(const std::string& url) {
  const size_t scheme = url.find("://");
  const size_t begin = scheme == std::string::npos ? 0 : scheme + 3;
  const size_t end = std::min(url.find_first_of("/?#", begin), url.size());
  const std::string_view authority = std::string_view(url).substr(begin, end - begin);
  const size_t at = authority.rfind('@');
  if (at == std::string_view::npos) return {url, {}};
  const std::string_view both = authority.substr(0, at);
  const size_t colon = both.find(':');
  UrlWithCredentials parts;
  parts.url = url.substr(0, begin) + url.substr(begin + at + 1);
  parts.credentials.user = Unescape(both.substr(0, colon));
  if (colon != std::string_view::npos) parts.credentials.password = Unescape(both.substr(colon + 1));
  return parts;
}

std::string PublicUrl(const std::string& url) {
  std::string shown = SplitCredentials(url).url;
  const size_t query = shown.find_first_of("?#");
  if (query != std::string::npos) shown.replace(query, std::string::npos, "?...");
  constexpr size_t kShownMax = 2000;
  return formats::Printable(shown, kShownMax);
}

}  // namespace pensieve::hub
