// Anthropic's Messages API. Errors: {"type":"error","error":{"type","message"},"request_id"}.
#pragma once

#include "api/dialect.h"

namespace pensieve::api::anthropic {

extern const Dialect kDialect;

}  // namespace pensieve::api::anthropic
