#include "engine/prefix_cache.h"

#include <algorithm>
#include <utility>

#include <fmt/format.h>

namespace pensieve::engine {
namespace {

uint64_t Mix(uint64_t hash, uint64_t value) {
  hash = (hash ^ value) * 0xff51afd7ed558ccdu;
  return hash ^ (hash >> 32);
}

// Hash of a prefix: that of its parent, continued over one block. Only finds nodes; keys are always compared too.
uint64_t PrefixHash(uint64_t seed, std::span<const int32_t> keys) {
  uint64_t hash = seed ^ 0x9e3779b97f4a7c15u;
  for (const int32_t key : keys) hash = Mix(hash, static_cast<uint32_t>(key));
  return hash;
}

uint64_t Seed(const CachePartition& partition) { return Mix(Mix(1, partition.number), partition.long_rope ? 1 : 0); }

}  // namespace

struct PrefixCache::Node {
  Node* parent = nullptr;
  CachePartition partition = 0;
  uint64_t hash = 0;
  std::vector<int32_t> keys;  // of this block
  int32_t block = BlockPool::kNoBlock;
  int64_t num_children = 0;
  bool idle = false;
  Node* older = nullptr;  // while idle
  Node* newer = nullptr;
};

PrefixCache::PrefixCache(BlockPool& pool, int64_t block_len)
    : pool_(pool), block_len_(static_cast<size_t>(block_len)) {}

PrefixCache::~PrefixCache() = default;

PrefixCache::Node* PrefixCache::Find(const Node* parent, CachePartition partition, uint64_t hash,
                                     std::span<const int32_t> block_keys) const {
  const auto found = nodes_.find(hash);
  if (found == nodes_.end()) return nullptr;
  Node* node = found->second.get();
  const bool same = node->parent == parent && node->partition == partition &&
                    std::equal(block_keys.begin(), block_keys.end(), node->keys.begin(), node->keys.end());
  return same ? node : nullptr;
}

PrefixCache::Node* PrefixCache::Acquire(CachePartition partition, std::span<const int32_t> keys,
                                        std::vector<int32_t>& block_table) {
  Node* tip = nullptr;
  uint64_t hash = Seed(partition);
  for (size_t first = 0; first + block_len_ <= keys.size(); first += block_len_) {
    const auto block_keys = keys.subspan(first, block_len_);
    hash = PrefixHash(hash, block_keys);
    Node* node = Find(tip, partition, hash, block_keys);
    if (node == nullptr) break;
    Take(node);
    block_table.push_back(node->block);
    tip = node;
  }
  return tip;
}

uint64_t PrefixCache::HashAfter(const Node* tip, CachePartition partition, std::span<const int32_t> block_keys) {
  return PrefixHash(tip != nullptr ? tip->hash : Seed(partition), block_keys);
}

PrefixCache::Node* PrefixCache::Follow(Node* tip, CachePartition partition, std::span<const int32_t> block_keys,
                                       int32_t& block) {
  PENSIEVE_CHECK(block_keys.size() == block_len_);
  Node* node = Find(tip, partition, HashAfter(tip, partition, block_keys), block_keys);
  if (node == nullptr) return nullptr;
  Take(node);
  pool_.Release(std::exchange(block, node->block));
  return node;
}

PrefixCache::Node* PrefixCache::Extend(Node* tip, CachePartition partition, std::span<const int32_t> block_keys,
                                       int32_t& block) {
  if (Node* known = Follow(tip, partition, block_keys, block); known != nullptr) return known;
  const uint64_t hash = HashAfter(tip, partition, block_keys);
  if (nodes_.contains(hash)) return nullptr;
  // Whole before it joins the tree: memory may run out on the way.
  auto fresh = std::make_unique<Node>();
  Node* node = fresh.get();
  node->parent = tip;
  node->partition = partition;
  node->hash = hash;
  node->keys.assign(block_keys.begin(), block_keys.end());
  node->block = block;
  nodes_.emplace(hash, std::move(fresh));
  pool_.AddReference(block);
  if (tip != nullptr) ++tip->num_children;
  return node;
}

void PrefixCache::Release(Node* tip) {
  for (Node* node = tip; node != nullptr; node = node->parent) {
    if (pool_.Release(node->block) == 1) PushIdle(node);
  }
}

bool PrefixCache::EvictOne() {
  Node* node = idle_oldest_;
  if (node == nullptr) return false;
  PENSIEVE_CHECK(node->num_children == 0);
  RemoveIdle(node);
  if (node->parent != nullptr) --node->parent->num_children;
  PENSIEVE_CHECK(pool_.Release(node->block) == 0);
  nodes_.erase(node->hash);
  return true;
}

void PrefixCache::Take(Node* node) {
  if (node->idle) RemoveIdle(node);
  pool_.AddReference(node->block);
}

void PrefixCache::PushIdle(Node* node) {
  node->idle = true;
  node->newer = nullptr;
  node->older = idle_newest_;
  (idle_newest_ != nullptr ? idle_newest_->newer : idle_oldest_) = node;
  idle_newest_ = node;
  ++num_idle_;
}

void PrefixCache::RemoveIdle(Node* node) {
  (node->older != nullptr ? node->older->newer : idle_oldest_) = node->newer;
  (node->newer != nullptr ? node->newer->older : idle_newest_) = node->older;
  node->older = node->newer = nullptr;
  node->idle = false;
  --num_idle_;
}

Status PrefixCache::CheckIntegrity(std::vector<int32_t>& references) const {
  std::unordered_map<const Node*, int64_t> age;  // idle nodes: place in the list, oldest first
  for (const Node* node = idle_oldest_; node != nullptr; node = node->newer) {
    age[node] = static_cast<int64_t>(age.size());
    if (node->newer == nullptr && node != idle_newest_) return Internal("the list of idle nodes has a loose end");
  }
  if (static_cast<int64_t>(age.size()) != num_idle_) return Internal("the count of idle nodes is wrong");

  std::unordered_map<const Node*, int64_t> children;
  for (const auto& [hash, node] : nodes_) {
    ++references[static_cast<size_t>(node->block)];
    if (node->idle != age.contains(node.get())) return Internal(fmt::format("node of block {} is lost", node->block));
    if (node->idle != (pool_.references(node->block) == 1))
      return Internal(
          fmt::format("node of block {} is idle with {} references", node->block, pool_.references(node->block)));
    const Node* parent = node->parent;
    if (parent == nullptr) continue;
    ++children[parent];
    if (!node->idle && parent->idle) return Internal(fmt::format("block {} is held without its prefix", node->block));
    if (node->idle && parent->idle && age[parent] < age[node.get()])
      return Internal(fmt::format("block {} would be evicted before its continuation", parent->block));
  }
  for (const auto& [hash, node] : nodes_) {
    const auto found = children.find(node.get());
    if (node->num_children != (found == children.end() ? 0 : found->second))
      return Internal(fmt::format("node of block {} has a wrong count of children", node->block));
  }
  return OkStatus();
}

}  // namespace pensieve::engine
