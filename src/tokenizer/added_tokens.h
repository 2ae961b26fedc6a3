// Tokens that are found in the text before the model sees it: special tokens and those added by hand.
// Immutable after Create; thread-safe.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

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
  // Covers `text` with pieces, leftmost-longest. Special tokens stay text unless `parse_special`.
  std::vector<Piece> Split(std::string_view text, Pass pass, bool parse_special) const;

  // The token with this id, or null.
  const AddedToken* Find(int32_t id) const {
    const auto found = by_id_.find(id);
    return found == by_id_.end() ? nullptr : &tokens_[found->second];
  }
  // The id of this content, or -1.
  int32_t FindId(std::string_view content) const;
  const std::vector<AddedToken>& tokens() const { return tokens_; }

 private:
  std::vector<AddedToken> tokens_;
  std::unordered_map<int32_t, size_t> by_id_;
  std::unordered_map<std::string, int32_t> by_content_;
  ByteTrie raw_;         // values are indexes into tokens_
  ByteTrie normalized_;
};

}  // namespace pensieve::tokenizer
