// Any bytes as the target and the headers of a request: the first line is "METHOD target", the others are
// "name: value". Host, origin, key, route and query are judged as the server does it, and the answer is written.
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

#include "base/check.h"
#include "http/guard.h"
#include "http/request.h"
#include "http/response.h"
#include "http/routes.h"

namespace {

using namespace pensieve;

std::string_view TakeLine(std::string_view& rest) {
  const size_t end = rest.find('\n');
  const std::string_view line = rest.substr(0, end);
  rest = end == std::string_view::npos ? std::string_view() : rest.substr(end + 1);
  return line;
}

// False for a target that is refused.
bool ReadHead(std::string_view text, http::Request& request) {
  std::string_view first = TakeLine(text);
  const size_t space = std::min(first.find(' '), first.size());
  request.method = first.substr(0, space);
  while (!text.empty()) {
    const std::string_view line = TakeLine(text);
    const size_t colon = line.find(": ");
    if (colon == std::string_view::npos) continue;
    request.headers.emplace_back(http::ToLower(line.substr(0, colon)), std::string(line.substr(colon + 2)));
  }
  request.host = std::string(request.Header("host"));
  return http::ParseTarget(first.substr(std::min(space + 1, first.size())), request);
}

void CheckReply(const http::Request& request, const http::HttpOptions& options, const Status& status,
                const api::Dialect& dialect) {
  api::HttpReply reply = api::ErrorReply(status, dialect.errors, {.request_id = "req_1"});
  const auto body = ParseJson(reply.body);
  PENSIEVE_CHECK(body.has_value());
  http::HeadOptions head{.request_id = "req_1", .headers = http::CorsHeaders(request, options, true)};
  const std::string bytes = http::FormatReply(reply, head);
  // Nothing that a client sent may end the head before our own end of it.
  const size_t end = bytes.find("\r\n\r\n");
  PENSIEVE_CHECK(end != std::string::npos && bytes.substr(end + 4) == reply.body);
  for (size_t at = 0; at < end; ++at) {
    if (bytes[at] == '\r') PENSIEVE_CHECK(bytes[at + 1] == '\n');
    if (bytes[at] == '\n') PENSIEVE_CHECK(bytes[at - 1] == '\r');
  }
}

void UseRoute(const http::Request& request, const http::Route& route) {
  PENSIEVE_CHECK(route.dialect != nullptr);
  PENSIEVE_CHECK(!route.found() || api::HasMethod(route.allow, request.method));
  (void)api::PercentDecode(route.parameter, false);
  for (const char* name : {"limit", "before_id", "after_id", "beta"}) (void)api::QueryParameter(request.query, name);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* bytes, size_t size) {
  http::Request request;
  if (!ReadHead({reinterpret_cast<const char*>(bytes), size}, request)) return 0;
  PENSIEVE_CHECK(request.path == "*" || (!request.path.empty() && request.path.front() == '/'));
  http::Request again;
  PENSIEVE_CHECK(http::ParseTarget(request.path, again));
  const http::Route route = http::MatchRoute(request);
  UseRoute(request, route);
  http::HttpOptions options;
  options.cors_origins = {"*"};
  options.allowed_hosts = {"box.example"};
  for (const char* host : {"127.0.0.1", "0.0.0.0"}) {
    options.host = host;
    if (const Status status = http::CheckHostAndOrigin(request, options); !status.ok())
      CheckReply(request, options, status, *route.dialect);
  }
  if (const Status status = http::CheckApiKey(request, {"k1", "k2"}).status(); !status.ok())
    CheckReply(request, options, status, *route.dialect);
  if (!route.known()) CheckReply(request, options, NotFound(http::UnknownRouteMessage(request)), *route.dialect);
  return 0;
}
