// Normalizers: text to text, run on every piece between added tokens. Immutable; thread-safe.
#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "base/status.h"
#include "tokenizer/regex.h"
#include "tokenizer/unicode.h"

namespace pensieve::tokenizer {

// A piece on its way through the normalizers.
struct NormalizedText {
  std::string text;
  // Whether the first character still stands for what stood first: Metaspace's "first" asks for it.
  bool keeps_start = true;
};

class Normalizer {
 public:
  virtual ~Normalizer() = default;
  virtual void Apply(NormalizedText& piece) const = 0;
};

struct BertNormalizerOptions {
  bool clean_text = true;
  bool handle_chinese_chars = true;
  bool strip_accents = true;
  bool lowercase = true;
};

using NormalizerPtr = std::unique_ptr<Normalizer>;
NormalizerPtr MakeNormalizerSequence(std::vector<NormalizerPtr> parts);
NormalizerPtr MakeUnicodeNormalizer(NormalForm form);
NormalizerPtr MakeLowercaseNormalizer();
NormalizerPtr MakeStripNormalizer(bool left, bool right);
NormalizerPtr MakeStripAccentsNormalizer();
NormalizerPtr MakePrependNormalizer(std::string prefix);  // nothing on an empty piece
NormalizerPtr MakeReplaceNormalizer(Regex pattern, std::string content);
NormalizerPtr MakeBertNormalizer(const BertNormalizerOptions& options);
NormalizerPtr MakeByteLevelNormalizer();  // every byte becomes its character of the byte-level alphabet
// SentencePiece's compiled rules: u32 size of a double-array trie, the trie, NUL-separated replacements (not base64).
Result<NormalizerPtr> MakePrecompiledNormalizer(std::string_view charsmap);

// `text` with every match of `pattern` replaced by `content`.
std::string ReplaceAll(const Regex& pattern, std::string_view text, std::string_view content);

}  // namespace pensieve::tokenizer
