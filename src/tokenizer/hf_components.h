// Builds each component of a tokenizer from its part of tokenizer.json.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "tokenizer/decoder.h"
#include "tokenizer/hf_document.h"
#include "tokenizer/json_fields.h"
#include "tokenizer/pair_template.h"
#include "tokenizer/model.h"
#include "tokenizer/normalizer.h"
#include "tokenizer/pre_tokenizer.h"

namespace pensieve::tokenizer {

// What a post-processor puts around the ids of a text, and how it makes one list of two texts.
struct IdTemplate {
  std::vector<int32_t> prefix;
  std::vector<int32_t> suffix;
  PairTemplate pair;  // no parts: it has nothing to say about pairs
};

Result<NormalizerPtr> BuildNormalizer(const JsonFields& fields);
Result<PreTokenizerPtr> BuildPreTokenizer(const JsonFields& fields);
// Null for types that change nothing.
Result<IdTemplate> BuildPostProcessor(const JsonFields& fields);
// Appends the stages, those of nested sequences flattened.
Status BuildDecoder(const JsonFields& fields, std::vector<DecoderStagePtr>& stages);
// Takes vocabulary and merges out of the document.
Result<std::unique_ptr<Model>> BuildModel(const JsonFields& fields, HfDocument& document);

}  // namespace pensieve::tokenizer
