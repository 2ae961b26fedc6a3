// Which loaded model a client means. Names differ between hubs, files and programs by letter case, by the owner in
// front, and by how a copy is quantized; none of that makes another model.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "base/status.h"

namespace pensieve::service {

// A further name of a loaded model, from the settings. A `name` that ends in '*' stands for all that begin so.
struct ModelAlias {
  std::string name;
  std::string model;
};

// "name=model". InvalidArgument for a text without either side.
Result<ModelAlias> ParseModelAlias(std::string_view text);

// A name without letter case, ".gguf", ":latest" and what only tells of the weights' number format, at its end:
// "Org/Tiny-Instruct-GGUF:Q4_K_M" -> "org/tiny-instruct". ':' before a size is '-': "smollm2:135m" -> "smollm2-135m".
std::string PlainModelName(std::string_view name);

// Whether two names mean the same model: equal plain names, where an owner ("org/") counts only if both have one.
bool IsSameModelName(std::string_view one, std::string_view other);

// The model that the aliases give to `name`: exact entries first, then without letter case, then those with '*'. ""
// for none.
std::string_view FindAlias(const std::vector<ModelAlias>& aliases, std::string_view name);

}  // namespace pensieve::service
