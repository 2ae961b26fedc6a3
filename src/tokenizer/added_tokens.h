// Tokens that are found in the text before the model sees it: special tokens and those added by hand.
// Immutable after Create; thread-safe.
#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "base/text_span.h"
#include "tokenizer/byte_trie.h"

namespace pensieve::tokenizer {

struct AddedToken {
  int32_t id = 0;
  std::string content;
  bool single_word = false;  // only between non-word characters
  bool lstrip = false;       // swallows the whitespace to its left
  bool rstrip = false;       // swallows the whitespace to its right
  bool normalized = true;    // looked for in the normalized text, else in the raw text
  bool special = false;      // left out when decoding for people
  std::string spelling;      // what it decodes to: its content, normalized if `normalized`; set by AddedTokens
};

// Which tokens may be written by whom: in a text of several authors, a token is found only where all of its bytes come
// from a source that may write it (the more trusted ones stand first in TextSource). By index of the token.
struct TokenLimits {
  std::vector<TextSource> last_source;
  // The model would make this token of plain text too: where it may not stand, the text is cut behind its first
  // character. Only of limited tokens.
  std::vector<bool> made_by_model;
  std::vector<int32_t> template_ids;  // ids of those that only the template may write, ascending
  bool of_normalized = false;         // some limited token is looked for in the normalized text
};

// A text's authors for one call of Split.
struct Authors {
  const TokenLimits& limits;
  std::span<const TextSpan> spans;  // of this text
};

class AddedTokens {
 public:
  AddedTokens() = default;
  // `normalize` is what the tokenizer's normalizer does to a whole piece. Of two tokens with one id or one content the
  // later counts.
  AddedTokens(std::vector<AddedToken> tokens, const std::function<std::string(std::string_view)>& normalize);

  // A piece of the text: a token (id >= 0) or text between tokens.
  struct Piece {
    int32_t id = -1;
    size_t begin = 0;
    size_t end = 0;
  };
  enum class Pass { kRaw, kNormalized };
  // Covers `text` with pieces, leftmost-longest. Special tokens stay text unless `parse_special`, and with `authors` also
  // the tokens that whoever wrote them may not write.
  std::vector<Piece> Split(std::string_view text, Pass pass, bool parse_special,
                           const Authors* authors = nullptr) const;

  // The token with this id, or null.
  const AddedToken* Find(int32_t id) const {
    const auto found = by_id_.find(id);
    return found == by_id_.end() ? nullptr : &tokens_[found->second];
  }
  // The id of this content, or -1.
  int32_t FindId(std::string_view content) const;
  const std::vector<AddedToken>& tokens() const { return tokens_; }

 private:
  struct Match {
    int32_t index = -1;  // of the longest token at a position, -1: none
    size_t end = 0;
    bool cut = false;  // no token, but the model must not make one of this text
  };
  // `span` is the number of the span that `at` lies in.
  Match MatchAt(std::string_view text, size_t at, const ByteTrie& trie, const Authors* authors, size_t span) const;

  std::vector<AddedToken> tokens_;
  std::unordered_map<int32_t, size_t> by_id_;
  std::unordered_map<std::string, int32_t> by_content_;
  ByteTrie raw_;  // values are indexes into tokens_
  ByteTrie normalized_;
};

}  // namespace pensieve::tokenizer
