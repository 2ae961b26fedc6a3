// Ollama's API: its clients and the tools built on them. Errors: {"error": message}. Streams are lines of JSON.
#pragma once

#include "api/dialect.h"

namespace pensieve::api::ollama {

extern const Dialect kDialect;

}  // namespace pensieve::api::ollama
