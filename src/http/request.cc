#include "http/request.h"

namespace pensieve::http {
namespace {

// Base URLs that already end in /v1 are the most common mistake of users; they work all the same.
std::string NormalPath(std::string_view path) {
  while (path.rfind("/v1/v1/", 0) == 0) path.remove_prefix(3);
  if (path.size() > 1 && path.back() == '/') path.remove_suffix(1);
  return std::string(path);
}

}  // namespace

bool ParseTarget(std::string_view target, Request& request) {
  for (const std::string_view scheme : {"http://", "https://"}) {
    if (ToLower(target.substr(0, scheme.size())) != scheme) continue;
    target.remove_prefix(scheme.size());
    const size_t slash = target.find_first_of("/?");
    request.host = target.substr(0, slash);
    target = slash == std::string_view::npos ? std::string_view("/") : target.substr(slash);
    break;
  }
  if (target == "*") {
    request.path = "*";
    return true;
  }
  const size_t question = target.find('?');
  std::string_view path = target.substr(0, question);
  if (path.empty()) path = "/";
  if (path.front() != '/') return false;
  request.path = NormalPath(path);
  if (question != std::string_view::npos) request.query = target.substr(question + 1);
  return true;
}

std::optional<std::string> HostName(std::string_view host) {
  std::string_view name = host;
  std::string_view port;
  if (!host.empty() && host.front() == '[') {
    const size_t close = host.find(']');
    if (close == std::string_view::npos) return std::nullopt;
    name = host.substr(1, close - 1);
    port = host.substr(close + 1);
    if (name.find_first_not_of("0123456789abcdefABCDEF:.") != std::string_view::npos) return std::nullopt;
  } else if (const size_t colon = host.find(':'); colon != std::string_view::npos) {
    name = host.substr(0, colon);
    port = host.substr(colon);
  }
  const bool port_ok =
      port.empty() || (port.front() == ':' && port.find_first_not_of("0123456789", 1) == std::string_view::npos);
  if (name.empty() || !port_ok) return std::nullopt;
  if (name.find_first_of("/\\@?#%\" ") != std::string_view::npos) return std::nullopt;
  if (name.back() == '.') name.remove_suffix(1);  // the root of the DNS, spelled out
  return ToLower(name);
}

}  // namespace pensieve::http
