// Which paths there are and whose dialect they speak. Private to http/.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "api/errors.h"
#include "http/request.h"

namespace pensieve::http {

enum class RouteId : uint8_t {
  kUnknown,
  kRoot,
  kHealth,
  kReady,
  kMetrics,
  kMessages,
  kCountTokens,
  kModels,
  kModel,
  kChatCompletions,
  kCompletions,
  kEmbeddings,
  kEmbed,
};

struct Route {
  RouteId id = RouteId::kUnknown;
  const char* pattern = "unmatched";  // for logs and metrics
  const char* allow = "";             // methods, as the Allow header lists them
  api::Dialect dialect = api::Dialect::kAnthropic;
  bool open = false;     // answered without an API key
  std::string model_id;  // kModel, still percent-encoded

  bool Allows(std::string_view method) const;
};

// The route of a path. Unknown paths still get the dialect of their prefix: /api/ is AkiDB's; /v1/ is OpenAI's unless
// the request carries Anthropic's headers; all else is Anthropic's.
Route MatchRoute(const Request& request);

// The 404's message: names the path (cut to a sane length) and, for the usual mistakes, the right base URL.
std::string UnknownRouteMessage(const Request& request);

}  // namespace pensieve::http
