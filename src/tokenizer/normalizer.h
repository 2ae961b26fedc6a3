// Normalizers: text to text, run on every piece between added tokens. Immutable; thread-safe.
#pragma once

#include <algorithm>
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
  // Positions in the text, ascending, that move with it: what a character becomes stands on the same side of them.
  // Usually none. Where a normal form joins characters across one, it moves behind what was joined.
  std::vector<size_t> borders;
};

// Moves the borders of a piece while its text is rewritten from front to back.
class BorderMover {
 public:
  explicit BorderMover(NormalizedText& piece) : borders_(piece.borders) {}
  // What stood at `source` of the old text now stands at `target` of the new one. To be called in ascending order, and
  // with the end of the text at last.
  void Reached(size_t source, size_t target) {
    while (next_ < borders_.size() && borders_[next_] <= source) borders_[next_++] = target;
  }

  // The bytes [begin, end) of the old text were copied to `target`; what was replaced before them stands in front.
  void ReachedAll(size_t begin, size_t end, size_t target) {
    for (; next_ < borders_.size() && borders_[next_] <= end; ++next_) {
      borders_[next_] = target + (std::max(borders_[next_], begin) - begin);
    }
  }

 private:
  std::vector<size_t>& borders_;
  size_t next_ = 0;
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

// `text` with every match of `pattern` replaced by `content`. `borders` may be null.
std::string ReplaceAll(const Regex& pattern, std::string_view text, std::string_view content,
                       BorderMover* borders = nullptr);

}  // namespace pensieve::tokenizer
