// Reads tokenizer.json: the vocabulary and the merges, which are most of the file, stream into flat lists; the rest
// becomes a small JSON tree.
#pragma once

#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/json.h"
#include "base/status.h"
#include "tokenizer/vocabulary.h"

namespace pensieve::tokenizer {

struct HfDocument {
  enum class VocabularyForm { kNone, kObject, kArray };

  Json root;  // without model.vocab and model.merges
  VocabularyForm vocabulary_form = VocabularyForm::kNone;
  std::vector<VocabularyEntry> vocabulary;  // object form; in the array form ids are indexes
  std::vector<double> scores;               // array form
  bool has_merges = false;
  std::vector<std::pair<std::string, std::string>> merges;
};

// DataLoss with the field or byte position for anything that is no such file.
Result<HfDocument> ParseHfDocument(std::string_view text);

}  // namespace pensieve::tokenizer
