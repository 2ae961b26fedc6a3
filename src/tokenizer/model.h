// Models: from one pre-tokenized word to ids. All are immutable after Create and thread-safe.
#pragma once

#include <cstdint>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/status.h"
#include "tokenizer/vocabulary.h"

namespace pensieve::tokenizer {

class Model {
 public:
  explicit Model(Vocabulary vocabulary) : vocabulary_(std::move(vocabulary)) {}
  virtual ~Model() = default;
  Model(const Model&) = delete;
  Model& operator=(const Model&) = delete;

  // Appends the ids of `word` (valid UTF-8, not empty). Models that keep notes about each byte of a word, some forty
  // bytes of them, take one of more than kWordBytesMax bytes in parts: cut in front of a space where no token stands
  // across such a place, which changes no id, else between any two characters.
  void Tokenize(std::string_view word, std::vector<int32_t>& ids) const;
  const Vocabulary& vocabulary() const { return vocabulary_; }

  // Whether no token holds a space (as itself, as U+2581 or as U+0120) behind another character: what stands in front of
  // a space then never joins what stands behind it.
  bool BreaksAtSpaces() const;

  static constexpr size_t kWordBytesMax = size_t{1} << 20;

 protected:
  virtual void TokenizeWord(std::string_view word, std::vector<int32_t>& ids) const = 0;
  // False for models whose answer to a long word is one token, whatever is in it.
  virtual bool takes_parts() const { return true; }

 private:
  size_t PartEnd(std::string_view word) const;

  const Vocabulary vocabulary_;
  mutable std::once_flag looked_for_spaces_;
  mutable bool breaks_at_spaces_ = false;
};

// Byte pair encoding: merges the adjacent pair of lowest rank, leftmost among equals, until none is left.
// O(n log n) in the length of the word.
struct BpeOptions {
  std::vector<std::pair<std::string, std::string>> merges;  // rank = index
  std::optional<std::string> unk_token;
  std::string continuing_subword_prefix;
  std::string end_of_word_suffix;
  bool byte_fallback = false;  // unknown characters become <0xHH> tokens when the vocabulary has all of them
  bool fuse_unk = false;       // neighbouring unknown characters become one unk
  bool ignore_merges = false;  // a word that is in the vocabulary is that token, whatever the merges say
};
Result<std::unique_ptr<Model>> CreateBpe(Vocabulary vocabulary, BpeOptions options);

// SentencePiece's BPE as GGUF "llama" stores it: merges the adjacent pair whose concatenation is the token of highest
// score, leftmost among equals; what is left and no token becomes <0xHH> tokens, or unk. O(n log n).
enum class ScoredTokenKind : uint8_t {
  kMergeable,
  kUnused,   // may appear on the way; split again into what it was merged from when it is left at the end
  kReserved  // never made by merging: control, unknown, byte and user-defined tokens
};
struct ScoredBpeOptions {
  std::vector<float> scores;           // by id
  std::vector<ScoredTokenKind> kinds;  // by id
  int32_t unk_id = -1;
};
Result<std::unique_ptr<Model>> CreateScoredBpe(Vocabulary vocabulary, ScoredBpeOptions options);

// Greedy longest match from the left; a word with any failure is one unk.
struct WordPieceOptions {
  std::string unk_token = "[UNK]";
  std::string continuing_subword_prefix = "##";
  int64_t max_input_chars_per_word = 100;
};
Result<std::unique_ptr<Model>> CreateWordPiece(Vocabulary vocabulary, WordPieceOptions options);

// The segmentation of highest total score (Viterbi); characters without a piece score (lowest score - 10).
struct UnigramOptions {
  std::vector<double> scores;  // by id
  int32_t unk_id = -1;         // -1: none
  bool byte_fallback = false;
};
Result<std::unique_ptr<Model>> CreateUnigram(Vocabulary vocabulary, UnigramOptions options);

// A word is a token, or unk.
Result<std::unique_ptr<Model>> CreateWordLevel(Vocabulary vocabulary, const std::string& unk_token);

// The ids of the 256 tokens <0x00> .. <0xFF>, -1 where there is none.
class ByteTokens {
 public:
  explicit ByteTokens(const Vocabulary& vocabulary);
  // Appends one id per byte when all are there; else appends nothing and says false.
  bool Append(std::string_view bytes, std::vector<int32_t>& ids) const;

 private:
  std::vector<int32_t> ids_;
};

}  // namespace pensieve::tokenizer
