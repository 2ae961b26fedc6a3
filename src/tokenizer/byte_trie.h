// A trie over bytes: all keys that start at a position of a text. Insert all, Finish once, then walk; thread-safe then.
#pragma once

#include <algorithm>
#include <cstdint>
#include <string_view>
#include <vector>

namespace pensieve::tokenizer {

class ByteTrie {
 public:
  // `value` >= 0. The first value of equal keys stays.
  void Insert(std::string_view key, int32_t value) { keys_.push_back({key, value}); }

  // Builds the nodes. The keys' bytes must live until here only.
  void Finish() {
    std::stable_sort(keys_.begin(), keys_.end(), [](const Key& a, const Key& b) { return a.text < b.text; });
    nodes_.assign(1, Node{});
    // Breadth first, so that the children of a node stand side by side, sorted by byte.
    std::vector<Span> spans{{0, keys_.size(), 0}};
    for (size_t node = 0; node < spans.size(); ++node) {
      Span span = spans[node];
      while (span.begin < span.end && keys_[span.begin].text.size() == span.depth) {
        if (nodes_[node].value < 0) nodes_[node].value = keys_[span.begin].value;
        ++span.begin;
      }
      nodes_[node].first_child = static_cast<int32_t>(nodes_.size());
      for (size_t at = span.begin; at < span.end;) {
        const char byte = keys_[at].text[span.depth];
        size_t end = at;
        while (end < span.end && keys_[end].text[span.depth] == byte) ++end;
        spans.push_back({at, end, span.depth + 1});
        nodes_.push_back({static_cast<unsigned char>(byte), -1, 0, 0});
        ++nodes_[node].child_count;
        at = end;
      }
    }
    keys_ = {};
  }

  bool empty() const { return nodes_.size() < 2; }

  // A position in the trie, starting at the root.
  class Walk {
   public:
    explicit Walk(const ByteTrie& trie) : trie_(trie) {}
    // Goes down by one byte; false (and stays) when no key continues so.
    bool Step(char byte) {
      const Node& node = trie_.nodes_[static_cast<size_t>(at_)];
      const auto first = trie_.nodes_.begin() + node.first_child;
      const auto last = first + node.child_count;
      const auto wanted = static_cast<unsigned char>(byte);
      const auto found =
          std::lower_bound(first, last, wanted, [](const Node& child, unsigned char b) { return child.byte < b; });
      if (found == last || found->byte != wanted) return false;
      at_ = static_cast<int32_t>(found - trie_.nodes_.begin());
      return true;
    }
    // The value of the key that ends here, or -1.
    int32_t value() const { return trie_.nodes_[static_cast<size_t>(at_)].value; }

   private:
    const ByteTrie& trie_;
    int32_t at_ = 0;
  };

 private:
  struct Key {
    std::string_view text;
    int32_t value;
  };
  struct Span {  // keys_[begin, end) share their first `depth` bytes
    size_t begin;
    size_t end;
    size_t depth;
  };
  struct Node {
    unsigned char byte = 0;
    int32_t value = -1;
    int32_t first_child = 0;
    int32_t child_count = 0;
  };
  std::vector<Key> keys_;
  std::vector<Node> nodes_{Node{}};
};

}  // namespace pensieve::tokenizer
