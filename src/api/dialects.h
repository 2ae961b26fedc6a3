// The table of all dialects, and which of them a request speaks.
#pragma once

#include <span>
#include <string>

#include "api/dialect.h"

namespace pensieve::api {

// Never empty; lives as long as the process.
std::span<const Dialect* const> Dialects();

// The dialect whose errors a path gets that nobody has: the first that claims it, else the table's last.
const Dialect& ClaimedBy(const HttpRequest& request);

struct RouteMatch {
  const Dialect* dialect = nullptr;  // null: no dialect has the path
  const Route* route = nullptr;      // null beside a dialect: the path is there, but not with this method
  const char* path = "";             // the row's pattern
  std::string allow = {};            // all methods of the path, comma-separated
  std::string parameter = {};        // still percent-encoded
};

// The row of `request` in `dialect`; nothing matched when the dialect lacks the path.
RouteMatch MatchIn(const Dialect& dialect, const HttpRequest& request);

}  // namespace pensieve::api
