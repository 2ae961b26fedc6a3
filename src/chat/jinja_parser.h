// Template source -> tree. Pure function, bounded: sources over 1 MiB and nesting over 100 levels are refused.
#pragma once

#include <string_view>

#include "base/status.h"
#include "chat/jinja_ast.h"

namespace pensieve::chat::jinja {

inline constexpr size_t kSourceBytesMax = 1 << 20;

// InvalidArgument "line N: ..." naming the construct.
Result<Block> ParseTemplate(std::string_view source);

}  // namespace pensieve::chat::jinja
