// A bounded, thread-safe cache from words to their ids. Words repeat so much that most never reach the model.
#pragma once

#include <array>
#include <cstdint>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "base/mutex.h"

namespace pensieve::tokenizer {

class WordCache {
 public:
  WordCache() : slots_(kSlots) {}

  // Appends the ids of `word` and says true when it is here.
  bool Find(std::string_view word, std::vector<int32_t>& ids) const {
    const size_t hash = std::hash<std::string_view>()(word);
    const MutexLock lock(mutexes_[hash % kShards]);
    const Slot& slot = slots_[hash % kSlots];
    if (slot.word != word) return false;
    ids.insert(ids.end(), slot.ids.begin(), slot.ids.end());
    return true;
  }

  // Takes the place of whatever had the same slot. Long words are not kept.
  void Insert(std::string_view word, const int32_t* ids, size_t count) const {
    if (word.size() > kWordBytesMax) return;
    const size_t hash = std::hash<std::string_view>()(word);
    const MutexLock lock(mutexes_[hash % kShards]);
    Slot& slot = slots_[hash % kSlots];
    slot.word.assign(word);
    slot.ids.assign(ids, ids + count);
  }

 private:
  static constexpr size_t kSlots = 1 << 14;  // about 2 MiB when full
  static constexpr size_t kShards = 64;      // divides kSlots: a slot belongs to one shard
  static constexpr size_t kWordBytesMax = 64;
  struct Slot {
    std::string word;  // empty: free (words are never empty)
    std::vector<int32_t> ids;
  };
  mutable std::array<Mutex, kShards> mutexes_;
  mutable std::vector<Slot> slots_;  // each guarded by its shard's mutex
};

}  // namespace pensieve::tokenizer
