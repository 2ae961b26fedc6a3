#include "api/dialects.h"

#include "api/akidb/dialect.h"
#include "api/anthropic/dialect.h"
#include "api/ollama/dialect.h"
#include "api/openai/dialect.h"
#include "api/pensieve1/dialect.h"

namespace pensieve::api {
namespace {

// Order matters only where several claim one request: the more particular ones come first. The last is for all paths
// that nobody claims.
const Dialect* const kDialects[] = {
    &akidb::kDialect, &ollama::kDialect, &openai::kDialect, &pensieve1::kDialect, &anthropic::kDialect,
};

}  // namespace

std::span<const Dialect* const> Dialects() { return kDialects; }

const Dialect& ClaimedBy(const HttpRequest& request) {
  for (const Dialect* dialect : kDialects)
    if (dialect->claims(request)) return *dialect;
  return **std::rbegin(kDialects);
}

bool HasMethod(std::string_view methods, std::string_view method) {
  while (!methods.empty()) {
    const size_t comma = methods.find(", ");
    if (methods.substr(0, comma) == method) return true;
    methods = comma == std::string_view::npos ? std::string_view() : methods.substr(comma + 2);
  }
  return false;
}

bool MatchesPath(std::string_view pattern, std::string_view path, std::string& parameter) {
  const size_t open = pattern.find('{');
  if (open == std::string_view::npos) return path == pattern;
  const std::string_view before = pattern.substr(0, open);
  const std::string_view after = pattern.substr(pattern.find('}', open) + 1);
  if (path.size() <= before.size() + after.size() || !path.starts_with(before) || !path.ends_with(after)) return false;
  parameter = path.substr(before.size(), path.size() - before.size() - after.size());
  return true;
}

RouteMatch MatchIn(const Dialect& dialect, const HttpRequest& request) {
  RouteMatch match;
  for (const Route& route : dialect.routes) {
    // All methods of a path stand under the pattern of its first row.
    const bool same_path = match.dialect == nullptr ? MatchesPath(route.path, request.path, match.parameter)
                                                    : std::string_view(match.path) == route.path;
    if (!same_path) continue;
    match.dialect = &dialect;
    match.path = route.path;
    if (!match.allow.empty()) match.allow += ", ";
    match.allow += route.methods;
    if (match.route == nullptr && HasMethod(route.methods, request.method)) match.route = &route;
  }
  return match;
}

}  // namespace pensieve::api
