// How two texts become one list of ids: for models that read pairs (a query and a document).
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace pensieve::tokenizer {

struct PairPart {
  enum class Kind : uint8_t { kIds, kFirst, kSecond };
  Kind kind = Kind::kIds;
  std::vector<int32_t> ids;  // of kIds
  int32_t type = 0;          // token type of all its tokens
};

struct PairTemplate {
  std::vector<PairPart> parts;
  std::string problem;  // not empty: why pairs cannot be encoded, a sentence

  // Tokens beside those of the two texts.
  int64_t added_tokens() const {
    int64_t added = 0;
    for (const PairPart& part : parts) added += static_cast<int64_t>(part.ids.size());
    return added;
  }
};

}  // namespace pensieve::tokenizer
