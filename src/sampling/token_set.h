// A set of token ids as bits: what a constraint allows next.
#pragma once

#include <algorithm>
#include <bit>
#include <cstdint>
#include <span>
#include <vector>

namespace pensieve::sampling {

// Thread-compatible.
class TokenSet {
 public:
  TokenSet() = default;
  explicit TokenSet(int32_t size) : size_(size), words_((static_cast<size_t>(size) + 63) / 64) {}

  int32_t size() const { return size_; }
  void Clear() { std::fill(words_.begin(), words_.end(), 0); }
  void Add(int32_t id) { words_[static_cast<size_t>(id) / 64] |= uint64_t{1} << (id % 64); }
  void Remove(int32_t id) { words_[static_cast<size_t>(id) / 64] &= ~(uint64_t{1} << (id % 64)); }
  // False outside of the set's size.
  bool Has(int32_t id) const {
    return id >= 0 && id < size_ && (words_[static_cast<size_t>(id) / 64] >> (id % 64) & 1) != 0;
  }
  // `other` has the same size.
  void AddAll(const TokenSet& other) {
    for (size_t i = 0; i < words_.size(); ++i) words_[i] |= other.words_[i];
  }
  int64_t Count() const {
    int64_t count = 0;
    for (const uint64_t word : words_) count += std::popcount(word);
    return count;
  }
  // Bit id % 64 of word id / 64; bits from size() on are 0.
  std::span<const uint64_t> words() const { return words_; }
  bool operator==(const TokenSet&) const = default;

 private:
  int32_t size_ = 0;
  std::vector<uint64_t> words_;
};

}  // namespace pensieve::sampling
