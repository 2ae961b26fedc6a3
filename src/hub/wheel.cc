#include "hub/wheel.h"

#include <fmt/format.h>
#include <zip.h>

#include <algorithm>
#include <cstdio>
#include <memory>
#include <string_view>
#include <vector>

#include "hub/url.h"

namespace pensieve::hub {
namespace {

// "https://host/simple" + "/packages/x" or "../../packages/x" -> an absolute URL.
std::string Absolute(const std::string& index_url, const std::string& package, std::string_view href) {
  if (href.find("://") != std::string_view::npos) return std::string(href);
  const size_t scheme = index_url.find("://");
  const size_t host_end = index_url.find('/', scheme == std::string::npos ? 0 : scheme + 3);
  const std::string host = index_url.substr(0, host_end);
  if (href.starts_with("/")) return host + std::string(href);
  std::string base = fmt::format("{}/{}", index_url, package);
  while (href.starts_with("../")) {
    href.remove_prefix(3);
    const size_t slash = base.rfind('/');
    if (slash != std::string::npos && slash >= host.size()) base.resize(slash);
  }
  return fmt::format("{}/{}", base, href);
}

std::string Unescape(std::string_view text) {
  std::string out(text);
  for (size_t at = 0; (at = out.find("&amp;", at)) != std::string::npos; ++at) out.replace(at, 5, "&");
  return out;
}

struct ZipCloser {
  void operator()(zip_t* zip) const { zip_discard(zip); }
};
struct ZipFileCloser {
  void operator()(zip_file_t* file) const { zip_fclose(file); }
};

}  // namespace

Result<WheelLink> FindWheel(const std::string& page, const std::string& index_url, const std::string& package,
                            const std::string& version) {
  std::string stem = package;
  std::replace(stem.begin(), stem.end(), '-', '_');
  const std::string file_name = fmt::format("{}-{}-py3-none-any.whl", stem, version);
  constexpr std::string_view kHref = "href=\"";
  for (size_t at = 0; (at = page.find(kHref, at)) != std::string::npos;) {
    at += kHref.size();
    const size_t end = page.find('"', at);
    if (end == std::string::npos) break;
    const std::string href = Unescape(std::string_view(page).substr(at, end - at));
    at = end;
    const size_t hash = href.find('#');
    const std::string url = href.substr(0, hash);
    if (!url.ends_with("/" + file_name) && url != file_name) continue;
    WheelLink link{Absolute(index_url, package, url), file_name, ""};
    constexpr std::string_view kDigest = "#sha256=";
    if (hash != std::string::npos && href.compare(hash, kDigest.size(), kDigest) == 0) {
      link.sha256 = href.substr(hash + kDigest.size(), 64);
    }
    return link;
  }
  return NotFound(fmt::format("{}: the index at {} has no {}", package, PublicUrl(index_url), file_name));
}

Status ExtractMember(const std::string& archive, const std::string& member, const std::string& destination,
                     int64_t bytes_max) {
  int error = 0;
  const std::unique_ptr<zip_t, ZipCloser> zip(zip_open(archive.c_str(), ZIP_RDONLY | ZIP_CHECKCONS, &error));
  if (!zip) return DataLoss(fmt::format("{}: not a readable zip archive (libzip error {})", archive, error));
  zip_stat_t info{};
  if (zip_stat(zip.get(), member.c_str(), 0, &info) != 0)
    return DataLoss(fmt::format("{}: has no member {}", archive, member));
  if (info.size > static_cast<zip_uint64_t>(bytes_max)) {
    return DataLoss(fmt::format("{}: member {} says it has {} bytes", archive, member, info.size));
  }
  const std::unique_ptr<zip_file_t, ZipFileCloser> in(zip_fopen(zip.get(), member.c_str(), 0));
  if (!in) return DataLoss(fmt::format("{}: cannot open member {}", archive, member));
  const std::unique_ptr<std::FILE, decltype(&std::fclose)> out(std::fopen(destination.c_str(), "wb"), &std::fclose);
  if (!out) return {StatusCode::kPermissionDenied, fmt::format("{}: cannot write", destination)};
  std::vector<char> chunk(1 << 20);
  int64_t total = 0;
  while (true) {
    const zip_int64_t n = zip_fread(in.get(), chunk.data(), chunk.size());
    if (n < 0) return DataLoss(fmt::format("{}: member {} is damaged", archive, member));
    if (n == 0) break;
    total += n;
    if (total > bytes_max) return DataLoss(fmt::format("{}: member {} is larger than it says", archive, member));
    if (std::fwrite(chunk.data(), 1, static_cast<size_t>(n), out.get()) != static_cast<size_t>(n)) {
      return ResourceExhausted(fmt::format("{}: cannot write to disk", destination));
    }
  }
  if (std::fflush(out.get()) != 0) return ResourceExhausted(fmt::format("{}: cannot write to disk", destination));
  return OkStatus();
}

}  // namespace pensieve::hub
