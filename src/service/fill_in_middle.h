// Prompts for text between a beginning and an end, with the tokens that a model was trained to see there.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "base/status.h"
#include "tokenizer/tokenizer.h"

namespace pensieve::service {

struct FillInMiddle {
  std::vector<int32_t> prompt_ids;
  std::vector<int32_t> stop_ids;  // tokens that end the middle, beyond those that end every answer
};

// InvalidArgument, naming `suffix`, for a model whose vocabulary has no such tokens. Texts cannot spell the tokens.
Result<FillInMiddle> MakeFillInMiddle(const tokenizer::Tokenizer& tokenizer, const std::string& prefix,
                                      const std::string& suffix);

}  // namespace pensieve::service
