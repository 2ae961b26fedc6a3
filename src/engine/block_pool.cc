#include "engine/block_pool.h"

#include <fmt/format.h>

namespace pensieve::engine {

BlockPool::BlockPool(int64_t num_blocks) : references_(static_cast<size_t>(num_blocks), 0) {
  free_.reserve(references_.size());
  for (int64_t block = num_blocks - 1; block >= 0; --block) free_.push_back(static_cast<int32_t>(block));
}

int32_t BlockPool::Allocate() {
  if (free_.empty()) return kNoBlock;
  const int32_t block = free_.back();
  free_.pop_back();
  references_[static_cast<size_t>(block)] = 1;
  return block;
}

void BlockPool::AddReference(int32_t block) {
  int32_t& references = references_[static_cast<size_t>(block)];
  PENSIEVE_CHECK(references > 0);
  ++references;
}

int32_t BlockPool::Release(int32_t block) {
  int32_t& references = references_[static_cast<size_t>(block)];
  PENSIEVE_CHECK(references > 0);
  if (--references == 0) free_.push_back(block);
  return references;
}

Status BlockPool::CheckIntegrity() const {
  std::vector<bool> is_free(references_.size(), false);
  for (const int32_t block : free_) {
    if (is_free[static_cast<size_t>(block)]) return Internal(fmt::format("block {} is free twice", block));
    is_free[static_cast<size_t>(block)] = true;
  }
  for (size_t block = 0; block < references_.size(); ++block) {
    if (is_free[block] != (references_[block] == 0))
      return Internal(fmt::format("block {} has {} references and is{} free", block, references_[block],
                                  is_free[block] ? "" : " not"));
  }
  return OkStatus();
}

}  // namespace pensieve::engine
