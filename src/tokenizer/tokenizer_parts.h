// What the loaders hand to a Tokenizer.
#pragma once

#include <memory>
#include <string>
#include <unordered_set>
#include <vector>

#include "tokenizer/added_tokens.h"
#include "tokenizer/decoder.h"
#include "tokenizer/model.h"
#include "tokenizer/normalizer.h"
#include "tokenizer/pair_template.h"
#include "tokenizer/pre_tokenizer.h"
#include "tokenizer/tokenizer.h"

namespace pensieve::tokenizer {

struct TokenizerParts {
  NormalizerPtr normalizer;       // null: none
  PreTokenizerPtr pre_tokenizer;  // null: a piece is one word
  std::unique_ptr<Model> model;   // never null
  AddedTokens added;
  std::vector<DecoderStagePtr> decoder;
  std::vector<int32_t> prefix_ids;  // what the post-processor puts in front
  std::vector<int32_t> suffix_ids;  // and behind
  PairTemplate pair;                // no parts: one text behind the other
  SpecialTokens special;
  std::unordered_set<int32_t> special_aliases;  // ids without an added token, but spelled like a special one
  std::vector<std::string> warnings;
};

// The text of a whole piece behind the normalizer.
std::string NormalizePiece(const Normalizer* normalizer, std::string_view text);

// The id of a token, added or of the model's vocabulary; -1: none.
int32_t FindToken(const TokenizerParts& parts, std::string_view token);

// Fills special.eog_ids with `ids` and with the tokens that end turns in known chat formats.
void CollectEndOfGeneration(std::vector<int32_t> ids, TokenizerParts& parts);

Result<TokenizerParts> LoadHuggingFace(std::string_view tokenizer_json, const Json& tokenizer_config,
                                       const TokenizerOptions& options);
Result<TokenizerParts> LoadGguf(GgufVocabulary vocabulary, const TokenizerOptions& options);

}  // namespace pensieve::tokenizer
