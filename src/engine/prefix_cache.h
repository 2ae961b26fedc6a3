// KV blocks that several requests share: a tree in which each node is one full block of tokens, of a prompt or of an
// answer, and the path from the root is the prefix it belongs to.
//
// Sharing may not change a single bit of any result. A backend gives the same K and V for a row however its sequence was
// cut or batched, so a block that was computed once is what any other request with the same prefix would compute
// itself, as long as the rows of both have the same precision. So a token's key here is its id and its precision
// (Sequence::row_keys): the same text under another precision is another prefix.
//
// The tree holds one reference to each block. A node that nobody else holds is idle and may be evicted, least recently
// used first. Holders hold whole paths, and a path is given back from its tip to the root; so a parent is always more
// recently used than its children and the oldest idle node is a leaf. Engine-thread-only.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <unordered_map>
#include <vector>

#include "base/status.h"
#include "engine/block_pool.h"

namespace pensieve::engine {

// What two sequences must have in common, beside their tokens' keys, to share blocks.
struct CachePartition {
  CachePartition(uint64_t number_, bool long_rope_ = false) : number(number_), long_rope(long_rope_) {}
  bool operator==(const CachePartition&) const = default;

  uint64_t number;  // GenerateRequest::cache_partition
  bool long_rope;   // keys of the two rotations (model::Model::UsesLongRope) are strangers to each other
};

class PrefixCache {
 public:
  struct Node;

  // `pool` must outlive the cache.
  PrefixCache(BlockPool& pool, int64_t block_len);
  ~PrefixCache();

  // Finds the longest cached prefix of `keys` in whole blocks and takes a reference to each of them, appended to
  // `block_table` in order. Returns the tip of the path (null: nothing found), to be given back by Release. Requests
  // see only blocks of their own `partition`.
  Node* Acquire(CachePartition partition, std::span<const int32_t> keys, std::vector<int32_t>& block_table);

  // Lengthens the path `tip` (null: the root) by one block of computed tokens that the caller holds. When the
  // tree has that block already, the caller's is exchanged for it. Returns the new tip; null when the block cannot be
  // shared (two prefixes with the same hash), and the caller then keeps block and old tip.
  Node* Extend(Node* tip, CachePartition partition, std::span<const int32_t> block_keys, int32_t& block);

  // As Extend, but only when the tree has the block already (another request has computed it in the meantime). Null:
  // nothing changed.
  Node* Follow(Node* tip, CachePartition partition, std::span<const int32_t> block_keys, int32_t& block);

  // Gives back the references of a whole path.
  void Release(Node* tip);

  // Frees the least recently used idle block. False when there is none.
  bool EvictOne();

  int64_t num_idle() const { return num_idle_; }
  int64_t num_nodes() const { return static_cast<int64_t>(nodes_.size()); }

  // Adds the tree's own references to `references` (by block). Internal when the tree's order or counts are broken.
  Status CheckIntegrity(std::vector<int32_t>& references) const;

 private:
  static uint64_t HashAfter(const Node* tip, CachePartition partition, std::span<const int32_t> block_keys);
  Node* Find(const Node* parent, CachePartition partition, uint64_t hash, std::span<const int32_t> block_keys) const;
  void Take(Node* node);
  void PushIdle(Node* node);
  void RemoveIdle(Node* node);

  BlockPool& pool_;
  const size_t block_len_;
  std::unordered_map<uint64_t, std::unique_ptr<Node>> nodes_;  // by hash of the whole prefix
  Node* idle_oldest_ = nullptr;                                // list of idle nodes, linked through them
  Node* idle_newest_ = nullptr;
  int64_t num_idle_ = 0;
};

}  // namespace pensieve::engine
