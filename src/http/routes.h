// Which row of which table answers a request: the server's own routes here, all others in api/. Private to http/.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "api/dialects.h"
#include "http/request.h"

namespace pensieve::http {

// Routes that only tell how the server is. Their errors have the shape of the dialect table's last row.
enum class ServerRoute : uint8_t { kNone, kRoot, kHealth, kReady, kMetrics };

struct Route {
  const api::Dialect* dialect = nullptr;  // never null after MatchRoute
  const api::Route* row = nullptr;        // of a dialect; null for the server's own and for what is not there
  ServerRoute server = ServerRoute::kNone;
  const char* pattern = "unmatched";  // for logs and metrics
  std::string allow = {};             // methods, as the Allow header lists them; "" when the path is unknown
  bool open = false;                  // answered without an API key
  std::string parameter = {};         // of the path, still percent-encoded

  bool known() const { return !allow.empty(); }
  // Whether the path is there with this method.
  bool found() const { return row != nullptr || server != ServerRoute::kNone; }
  bool embeds() const { return row != nullptr && std::holds_alternative<api::Embed>(row->action); }
};

// The claiming dialect's row; else the server's own; else that of the first dialect that has the path. A path that
// nobody has gets the dialect that claims it, for its error.
Route MatchRoute(const Request& request);

// The 404's message: names the path (cut to a sane length) and, for the usual mistakes, the right base URL.
std::string UnknownRouteMessage(const Request& request);

}  // namespace pensieve::http
