// Who holds which KV block. Blocks are fixed at start; a block is free or has one or more holders (sequences, the
// prefix cache). Knows nothing of what a block contains. Engine-thread-only.
//
// A sequence's blocks are consecutive where that can be: a device then reads its keys and values as one piece.
#pragma once

#include <cstdint>
#include <vector>

#include "base/status.h"

namespace pensieve::engine {

class BlockPool {
 public:
  static constexpr int32_t kNoBlock = -1;

  explicit BlockPool(int64_t num_blocks);

  // A free block with one reference, or kNoBlock: the one behind `after` if it is free. Otherwise one from which the
  // holder can go on longest, O(num_blocks): in the middle of the longest free run, for the block before the run may
  // belong to a sequence that grows into it.
  int32_t Allocate(int32_t after = kNoBlock);
  void AddReference(int32_t block);
  // The references that are left; at 0 the block is free.
  int32_t Release(int32_t block);

  int32_t references(int32_t block) const { return references_[static_cast<size_t>(block)]; }
  int64_t num_blocks() const { return static_cast<int64_t>(references_.size()); }
  int64_t num_free() const { return num_free_; }

  // Internal when free blocks are miscounted. O(num_blocks).
  Status CheckIntegrity() const;

 private:
  bool IsFree(int64_t block) const { return block < num_blocks() && references_[static_cast<size_t>(block)] == 0; }
  int32_t BestStart() const;

  std::vector<int32_t> references_;  // by block; 0: free
  int64_t num_free_ = 0;
};

}  // namespace pensieve::engine
