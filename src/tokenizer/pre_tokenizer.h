// Pre-tokenizers: split normalized text into the words that the model sees one by one. Immutable; thread-safe.
#pragma once

#include <cstdint>
#include <functional>
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

using WordSink = std::function<void(Word)>;

class PreTokenizer {
 public:
  virtual ~PreTokenizer() = default;
  // Gives `sink` what `word` is split into, in order, each as soon as it is known: a text of megabytes may be millions of
  // words, which are never held at once. None of them is empty.
  virtual void Split(Word word, const WordSink& sink) const = 0;
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
