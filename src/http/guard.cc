#include "http/guard.h"

#include <arpa/inet.h>
#include <fmt/format.h>

#include <algorithm>

#include "base/constant_time.h"

namespace pensieve::http {
namespace {

bool Holds(const std::vector<std::string>& list, std::string_view item) {
  return std::any_of(list.begin(), list.end(), [&](const std::string& entry) { return entry == "*" || entry == item; });
}

bool IsLocalName(const std::string& name) {
  constexpr std::string_view kSuffix = ".localhost";
  const bool under_localhost =
      name.size() > kSuffix.size() && name.compare(name.size() - kSuffix.size(), kSuffix.size(), kSuffix) == 0;
  if (name == "localhost" || name == "::1" || under_localhost) return true;
  // 127.x.y.z in numbers only: "127.attacker.example" is a name like any other.
  return name.rfind("127.", 0) == 0 && name.find_first_not_of("0123456789.") == std::string::npos;
}

bool IsAddress(const std::string& name) {
  in_addr v4;
  in6_addr v6;
  return inet_pton(AF_INET, name.c_str(), &v4) == 1 || inet_pton(AF_INET6, name.c_str(), &v6) == 1;
}

Status CheckHost(const Request& request, const HttpOptions& options) {
  if (request.host.empty()) {
    if (!request.http_1_1) return OkStatus();
    return InvalidArgument("the Host header is missing");
  }
  const auto name = HostName(request.host);
  if (!name) return InvalidArgument("the Host header is malformed");
  if (IsLocalName(*name) || Holds(options.allowed_hosts, *name)) return OkStatus();
  // A web page can make any name point at this machine, and then reads what is answered to it. It can neither do that
  // with an address nor send a key. A loopback server does not even answer to foreign addresses.
  const bool is_loopback = config::IsLoopbackHost(options.host);
  if (!is_loopback && (!options.api_keys.empty() || IsAddress(*name))) return OkStatus();
  return {StatusCode::kPermissionDenied,
          fmt::format("this server {} and does not answer to that Host; add the name to the setting "
                      "server.allowed_hosts (--allowed-host)",
                      is_loopback ? "listens on a loopback address" : "has no API keys")};
}

bool IsSameOrigin(std::string_view origin, const Request& request) {
  const size_t scheme = origin.find("://");
  return scheme != std::string_view::npos && !request.host.empty() &&
         ToLower(origin.substr(scheme + 3)) == ToLower(request.host);
}

Status CheckOrigin(const Request& request, const HttpOptions& options) {
  const std::string_view origin = request.Header("origin");
  if (origin.empty() || Holds(options.cors_origins, origin) || IsSameOrigin(origin, request)) return OkStatus();
  return {StatusCode::kPermissionDenied,
          "web pages of this Origin may not use the server; add it to the setting server.cors_origins"};
}

}  // namespace

Status CheckHostAndOrigin(const Request& request, const HttpOptions& options) {
  if (request.CountHeader("host") > 1) return InvalidArgument("there is more than one Host header");
  PENSIEVE_RETURN_IF_ERROR(CheckHost(request, options));
  return CheckOrigin(request, options);
}

Result<uint64_t> CheckApiKey(const Request& request, const std::vector<std::string>& api_keys) {
  if (api_keys.empty()) return uint64_t{0};
  std::string_view bearer = request.Header("authorization");
  if (ToLower(bearer.substr(0, 7)) == "bearer ") bearer.remove_prefix(7);
  else bearer = {};
  const std::string_view key = request.Header("x-api-key");
  uint64_t number = 0;
  for (size_t i = 0; i < api_keys.size(); ++i) {
    const bool by_key = EqualInConstantTime(key, api_keys[i]);
    const bool by_bearer = EqualInConstantTime(bearer, api_keys[i]);
    number = (by_key | by_bearer) ? i + 1 : number;
  }
  if (number > 0) return number;
  const bool given = !key.empty() || !bearer.empty();
  return Unauthenticated(given ? "invalid API key"
                               : "an API key is required, as x-api-key or as Authorization: Bearer");
}

std::vector<std::pair<std::string, std::string>> CorsHeaders(const Request& request, const HttpOptions& options,
                                                             bool preflight) {
  const std::string origin(request.Header("origin"));
  if (origin.empty() || !Holds(options.cors_origins, origin)) return {};
  std::vector<std::pair<std::string, std::string>> headers = {{"access-control-allow-origin", origin},
                                                              {"vary", "Origin"}};
  if (!preflight) {
    headers.emplace_back("access-control-expose-headers", "request-id, x-request-id, retry-after, retry-after-ms");
    return headers;
  }
  headers.emplace_back("access-control-allow-methods", "GET, HEAD, POST, DELETE, OPTIONS");
  // SDKs send a dozen headers of their own: whatever the browser asks for is allowed, for this origin.
  if (const auto asked = request.Header("access-control-request-headers"); !asked.empty())
    headers.emplace_back("access-control-allow-headers", asked);
  headers.emplace_back("access-control-max-age", "600");
  return headers;
}

}  // namespace pensieve::http
