// The tokens of a vocabulary by the bytes that each adds to a text.
//
// The alphabet of grammars is that of bytes. A special token (one that no text may spell) stands in it as the byte
// 0xFF, its name, and the byte 0xFE: no UTF-8 text holds these two, so nothing but a grammar that names a special token
// ever allows one. Tokens that hold them in their own bytes are left out.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace pensieve::sampling {

inline constexpr char kSpecialBegin = '\xFF';
inline constexpr char kSpecialEnd = '\xFE';

struct TokenBytes {
  std::string bytes;     // empty: the token is never allowed
  bool special = false;  // `bytes` is then its name
};

// Immutable; thread-safe.
class TokenTrie {
 public:
  // In preorder: the children of a node begin behind it, its subtree ends before `end`.
  struct Node {
    uint8_t byte = 0;
    uint8_t depth = 0;   // bytes from the root, at most kBytesMax
    int32_t token = -1;  // the first token that ends here, or -1
    int32_t end = 0;
  };
  static constexpr size_t kBytesMax = 255;  // longer tokens are left out

  // Token i has the id i.
  explicit TokenTrie(const std::vector<TokenBytes>& tokens);

  int32_t size() const { return static_cast<int32_t>(spans_.size()); }
  // Node 0 is the root.
  std::span<const Node> nodes() const { return nodes_; }
  // The next token with the same bytes, or -1.
  int32_t NextSame(int32_t token) const { return next_same_[static_cast<size_t>(token)]; }
  // As the trie holds it; empty for a token that it leaves out, and for ids outside of the vocabulary.
  std::string_view Bytes(int32_t token) const;
  size_t longest_bytes() const { return longest_bytes_; }

 private:
  struct Span {
    int64_t begin = 0;
    int64_t size = 0;
  };
  std::string bytes_;
  std::vector<Span> spans_;
  std::vector<int32_t> next_same_;
  std::vector<Node> nodes_;
  size_t longest_bytes_ = 0;
};

}  // namespace pensieve::sampling
