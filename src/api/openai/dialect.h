// OpenAI's API. Errors: {"error":{"message","type","param","code"}}.
#pragma once

#include "api/dialect.h"

namespace pensieve::api::openai {

extern const Dialect kDialect;

}  // namespace pensieve::api::openai
