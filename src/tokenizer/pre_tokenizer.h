// Pre-tokenizers: split normalized text into the words that the model sees one by one. Immutable; thread-safe.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "base/status.h"
#include "tokenizer/regex.h"

namespace pensieve::tokenizer {

struct Word {
  std::string text;
  bool starts_text = false;  // its first character stands at offset 0 of the whole input
};

class PreTokenizer {
 public:
  virtual ~PreTokenizer() = default;
  // Replaces `words` by what they are split into. No word of the result is empty.
  virtual void Apply(std::vector<Word>& words) const = 0;
};

// What becomes of a match that splits a text.
enum class SplitBehavior : uint8_t { kRemoved, kIsolated, kMergedWithPrevious, kMergedWithNext, kContiguous };

enum class PrependScheme : uint8_t { kAlways, kFirst, kNever };

struct MetaspaceOptions {
  std::string replacement = "\xE2\x96\x81";  // one character: U+2581
  PrependScheme prepend_scheme = PrependScheme::kAlways;
  bool split = true;
};

using PreTokenizerPtr = std::unique_ptr<PreTokenizer>;
PreTokenizerPtr MakePreTokenizerSequence(std::vector<PreTokenizerPtr> parts);
// `invert`: the text between matches is what splits.
PreTokenizerPtr MakeSplitPreTokenizer(Regex pattern, SplitBehavior behavior, bool invert);
// Every character for which `is_delimiter` holds is a match of its own.
PreTokenizerPtr MakeCharacterPreTokenizer(bool (*is_delimiter)(char32_t), SplitBehavior behavior);
PreTokenizerPtr MakeDelimiterPreTokenizer(char32_t delimiter);
PreTokenizerPtr MakeWhitespacePreTokenizer();  // runs of word characters, runs of others, no whitespace
PreTokenizerPtr MakeMetaspacePreTokenizer(MetaspaceOptions options);
// Into the byte-level alphabet, split by GPT-2's pattern if `use_regex`.
Result<PreTokenizerPtr> MakeByteLevelPreTokenizer(bool add_prefix_space, bool use_regex);

}  // namespace pensieve::tokenizer
