#include "engine/block_pool.h"

#include <algorithm>

#include <fmt/format.h>

namespace pensieve::engine {

BlockPool::BlockPool(int64_t num_blocks) : references_(static_cast<size_t>(num_blocks), 0), num_free_(num_blocks) {}

int32_t BlockPool::Allocate(int32_t after) {
  if (num_free_ == 0) return kNoBlock;
  const int32_t block = after != kNoBlock && IsFree(after + 1) ? after + 1 : BestStart();
  references_[static_cast<size_t>(block)] = 1;
  --num_free_;
  return block;
}

int32_t BlockPool::BestStart() const {
  int64_t best = 0;
  int64_t best_len = 0;
  for (int64_t block = 0; block < num_blocks();) {
    const int64_t begin = block;
    while (IsFree(block)) ++block;
    if (block - begin > best_len) {
      best = begin;
      best_len = block - begin;
    }
    ++block;
  }
  return static_cast<int32_t>(best == 0 ? 0 : best + best_len / 2);
}

void BlockPool::AddReference(int32_t block) {
  int32_t& references = references_[static_cast<size_t>(block)];
  PENSIEVE_CHECK(references > 0);
  ++references;
}

int32_t BlockPool::Release(int32_t block) {
  int32_t& references = references_[static_cast<size_t>(block)];
  PENSIEVE_CHECK(references > 0);
  if (--references == 0) ++num_free_;
  return references;
}

Status BlockPool::CheckIntegrity() const {
  const auto free = std::count(references_.begin(), references_.end(), 0);
  if (free == num_free_) return OkStatus();
  return Internal(fmt::format("{} blocks have no references, but {} are counted as free", free, num_free_));
}

}  // namespace pensieve::engine
