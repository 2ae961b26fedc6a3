// Who holds which KV block. Blocks are fixed at start; a block is free or has one or more holders (sequences, the
// prefix cache). Knows nothing of what a block contains. Engine-thread-only.
#pragma once

#include <cstdint>
#include <vector>

#include "base/status.h"

namespace pensieve::engine {

class BlockPool {
 public:
  static constexpr int32_t kNoBlock = -1;

  explicit BlockPool(int64_t num_blocks);

  // A free block with one reference, or kNoBlock.
  int32_t Allocate();
  void AddReference(int32_t block);
  // The references that are left; at 0 the block is free.
  int32_t Release(int32_t block);

  int32_t references(int32_t block) const { return references_[static_cast<size_t>(block)]; }
  int64_t num_blocks() const { return static_cast<int64_t>(references_.size()); }
  int64_t num_free() const { return static_cast<int64_t>(free_.size()); }

  // Internal when a block is both free and held, neither, or free twice. O(num_blocks).
  Status CheckIntegrity() const;

 private:
  std::vector<int32_t> references_;  // by block
  std::vector<int32_t> free_;        // a stack: the block freed last is warm in the caches
};

}  // namespace pensieve::engine
