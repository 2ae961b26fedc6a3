// The one door to JSON. `Json` keeps object keys in the order they were read: prompts are rendered from it, and
// a reordered tool schema would be another prompt.
#pragma once

#include <nlohmann/json.hpp>
#include <string>
#include <string_view>

#include "base/status.h"

namespace pensieve {

using Json = nlohmann::ordered_json;

// All are checked before anything is built. The defaults suit what a stranger may send: a value that takes three bytes of
// text, such as "[],", takes up to kJsonValueBytes in memory.
struct JsonLimits {
  int depth_max = 128;
  bool refuse_duplicate_keys = false;     // else the last one wins, as with most parsers
  int64_t values_max = int64_t{1} << 20;  // keys count too
  // An object that keeps its order finds a key by looking at each of them, so n keys cost n * n / 2 comparisons to read.
  // This many take about a tenth of a second: one object of 8,000 keys, or any number of small ones.
  int64_t key_comparisons_max = int64_t{1} << 25;
};
// For files of models and of ours, whose size is bounded and which hold one entry for each of many thousand tensors.
inline constexpr JsonLimits kFileJson{.values_max = int64_t{1} << 26, .key_comparisons_max = int64_t{1} << 28};

// What one value, or one key, takes beside its text: itself, and the header and memory block of a container or string.
inline constexpr int64_t kJsonValueBytes = 64;

// At least as many values and keys as a valid document has. With `inside_strings` those of documents that are spelled
// inside of its strings count, too. One quick look at each byte.
int64_t CountJsonValues(std::string_view text, bool inside_strings = false);

// Parses one whole document. InvalidArgument with byte position on any error; never throws.
Result<Json> ParseJson(std::string_view text, const JsonLimits& limits = {});

// Compact, UTF-8; invalid UTF-8 in strings becomes U+FFFD instead of an exception.
std::string DumpJson(const Json& json);

}  // namespace pensieve
