#include "http/routes.h"

namespace pensieve::http {
namespace {

struct ServerRow {
  const char* path;
  ServerRoute route;
  bool open;
};

constexpr ServerRow kServerRows[] = {
    {"/", ServerRoute::kRoot, true},
    {"/api/hello", ServerRoute::kRoot, true},
    {"/health", ServerRoute::kHealth, true},
    {"/ready", ServerRoute::kReady, true},
    {"/metrics", ServerRoute::kMetrics, false},
};
constexpr std::string_view kServerMethods = "GET, HEAD";

void AddMethods(std::string_view methods, Route& route) {
  if (!route.allow.empty()) route.allow += ", ";
  route.allow += methods;
}

void MatchDialect(const api::Dialect& dialect, const Request& request, Route& route) {
  api::RouteMatch match = api::MatchIn(dialect, request);
  if (match.dialect == nullptr) return;
  AddMethods(match.allow, route);
  if (match.route == nullptr) return;
  route.dialect = &dialect;
  route.row = match.route;
  route.pattern = match.path;
  route.open = match.route->open;
  route.parameter = std::move(match.parameter);
}

void MatchServer(const Request& request, Route& route) {
  for (const ServerRow& row : kServerRows) {
    if (request.path != row.path) continue;
    AddMethods(kServerMethods, route);
    route.dialect = api::Dialects().back();
    route.pattern = row.path;
    route.open = row.open;
    if (api::HasMethod(kServerMethods, request.method)) route.server = row.route;
  }
}

}  // namespace

Route MatchRoute(const Request& request) {
  const api::Dialect& claimed = api::ClaimedBy(request);
  Route route;
  route.dialect = &claimed;
  MatchDialect(claimed, request, route);
  if (!route.found()) MatchServer(request, route);
  for (const api::Dialect* dialect : api::Dialects())
    if (!route.found() && dialect != &claimed) MatchDialect(*dialect, request, route);
  if (route.known()) AddMethods("OPTIONS", route);
  return route;
}

std::string UnknownRouteMessage(const Request& request) {
  constexpr size_t kShownMax = 200;
  std::string message = "there is no " + request.path.substr(0, kShownMax) + " here";
  if (request.path == "/messages" || request.path.starts_with("/messages/"))
    message += "; Anthropic clients take the base URL without /v1 and call /v1/messages";
  if (request.path == "/chat/completions" || request.path == "/completions" || request.path == "/embeddings" ||
      request.path == "/models" || request.path == "/responses")
    message += "; OpenAI clients need the base URL with /v1 at its end";
  return message;
}

}  // namespace pensieve::http
