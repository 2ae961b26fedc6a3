// AkiDB's REST embedding route. Errors: {"error": message}.
#pragma once

#include <string>

#include "api/dialect.h"

namespace pensieve::api::akidb {

extern const Dialect kDialect;

// What AkiDB's clients are told: for a full queue the sentence that they look for. For gRPC too.
std::string ErrorMessage(const Status& status);

}  // namespace pensieve::api::akidb
