// Guessing what a mistyped word was meant to be.
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace pensieve::cli {

// The candidate with the fewest letters changed, added, left out or swapped with their neighbour; "" when even that one
// differs in more than a third of its letters (at least one may).
std::string NearestWord(std::string_view word, const std::vector<std::string>& candidates);

}  // namespace pensieve::cli
