// The one door to JSON. `Json` keeps object keys in the order they were read: prompts are rendered from it, and
// a reordered tool schema would be another prompt.
#pragma once

#include <nlohmann/json.hpp>
#include <string>
#include <string_view>

#include "base/status.h"

namespace pensieve {

using Json = nlohmann::ordered_json;

struct JsonLimits {
  int depth_max = 128;             // deeper documents are refused before they are built
  bool refuse_duplicate_keys = false;  // else the last one wins, as with most parsers
};

// Parses one whole document. InvalidArgument with byte position on any error; never throws.
Result<Json> ParseJson(std::string_view text, const JsonLimits& limits = {});

// Compact, UTF-8; invalid UTF-8 in strings becomes U+FFFD instead of an exception.
std::string DumpJson(const Json& json);

}  // namespace pensieve
