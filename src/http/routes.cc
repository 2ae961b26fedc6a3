#include "http/routes.h"

namespace pensieve::http {
namespace {

constexpr const char* kGet = "GET, HEAD, OPTIONS";
constexpr const char* kPost = "POST, OPTIONS";

struct Entry {
  const char* path;
  RouteId id;
  const char* allow;
  api::Dialect dialect;
  bool open;
};

constexpr Entry kEntries[] = {
    {"/", RouteId::kRoot, kGet, api::Dialect::kAnthropic, true},
    {"/api/hello", RouteId::kRoot, kGet, api::Dialect::kAnthropic, true},
    {"/health", RouteId::kHealth, kGet, api::Dialect::kAnthropic, true},
    {"/ready", RouteId::kReady, kGet, api::Dialect::kAnthropic, true},
    {"/metrics", RouteId::kMetrics, kGet, api::Dialect::kAnthropic, false},
    {"/v1/messages", RouteId::kMessages, kPost, api::Dialect::kAnthropic, false},
    {"/v1/messages/count_tokens", RouteId::kCountTokens, kPost, api::Dialect::kAnthropic, false},
    {"/v1/chat/completions", RouteId::kChatCompletions, kPost, api::Dialect::kOpenAi, false},
    {"/v1/completions", RouteId::kCompletions, kPost, api::Dialect::kOpenAi, false},
    {"/v1/embeddings", RouteId::kEmbeddings, kPost, api::Dialect::kOpenAi, false},
    {"/api/v1/embed", RouteId::kEmbed, kPost, api::Dialect::kAkiDb, false},
};

constexpr std::string_view kModels = "/v1/models";

bool StartsWith(std::string_view text, std::string_view prefix) { return text.substr(0, prefix.size()) == prefix; }

api::Dialect DialectOfPrefix(const Request& request) {
  if (StartsWith(request.path, "/api/")) return api::Dialect::kAkiDb;
  if (!StartsWith(request.path, "/v1/") || StartsWith(request.path, "/v1/messages/")) return api::Dialect::kAnthropic;
  const bool anthropic = !request.Header("anthropic-version").empty() || !request.Header("x-api-key").empty();
  return anthropic ? api::Dialect::kAnthropic : api::Dialect::kOpenAi;
}

}  // namespace

bool Route::Allows(std::string_view method) const {
  std::string_view rest = allow;
  while (!rest.empty()) {
    const size_t comma = rest.find(", ");
    if (rest.substr(0, comma) == method) return true;
    rest = comma == std::string_view::npos ? std::string_view() : rest.substr(comma + 2);
  }
  return false;
}

Route MatchRoute(const Request& request) {
  for (const Entry& entry : kEntries) {
    if (request.path != entry.path) continue;
    return {.id = entry.id,
            .pattern = entry.path,
            .allow = entry.allow,
            .dialect = entry.dialect,
            .open = entry.open,
            .model_id = ""};
  }
  Route route;
  route.dialect = DialectOfPrefix(request);
  if (request.path == kModels) {
    route.id = RouteId::kModels;
    route.pattern = "/v1/models";
    route.allow = kGet;
  } else if (StartsWith(request.path, "/v1/models/")) {
    // Ids may hold slashes, so all of the rest is the id.
    route.id = RouteId::kModel;
    route.pattern = "/v1/models/{id}";
    route.allow = kGet;
    route.model_id = request.path.substr(kModels.size() + 1);
  }
  return route;
}

std::string UnknownRouteMessage(const Request& request) {
  constexpr size_t kShownMax = 200;
  std::string message = "there is no " + request.path.substr(0, kShownMax) + " here";
  if (request.path == "/messages" || StartsWith(request.path, "/messages/"))
    message += "; Anthropic clients take the base URL without /v1 and call /v1/messages";
  if (request.path == "/chat/completions" || request.path == "/completions" || request.path == "/embeddings" ||
      request.path == "/models")
    message += "; OpenAI clients need the base URL with /v1 at its end";
  return message;
}

}  // namespace pensieve::http
