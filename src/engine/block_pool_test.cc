#include "engine/block_pool.h"

#include <random>
#include <set>

#include <gtest/gtest.h>

#include "engine/prefix_cache.h"

namespace pensieve::engine {
namespace {

TEST(BlockPool, HandsOutEachBlockOnce) {
  BlockPool pool(5);
  std::set<int32_t> blocks;
  for (int i = 0; i < 5; ++i) blocks.insert(pool.Allocate());
  EXPECT_EQ(blocks, (std::set<int32_t>{0, 1, 2, 3, 4}));
  EXPECT_EQ(pool.Allocate(), BlockPool::kNoBlock);
  EXPECT_EQ(pool.num_free(), 0);
  EXPECT_TRUE(pool.CheckIntegrity().ok());
}

TEST(BlockPool, IsFreeAfterTheLastReference) {
  BlockPool pool(1);
  const int32_t block = pool.Allocate();
  pool.AddReference(block);
  EXPECT_EQ(pool.Release(block), 1);
  EXPECT_EQ(pool.num_free(), 0);
  EXPECT_EQ(pool.Release(block), 0);
  EXPECT_EQ(pool.num_free(), 1);
  EXPECT_DEATH(pool.Release(block), "check failed");
}

// Sequences that start one after the other and grow in turns.
TEST(BlockPool, GrowingSequencesStayConsecutive) {
  BlockPool pool(64);
  std::vector<std::vector<int32_t>> sequences(4);
  for (auto& blocks : sequences) {
    blocks.push_back(pool.Allocate());
    blocks.push_back(pool.Allocate(blocks.back()));
  }
  for (int i = 0; i < 6; ++i) {
    for (auto& blocks : sequences) blocks.push_back(pool.Allocate(blocks.back()));
  }
  for (const auto& blocks : sequences) {
    for (size_t b = 1; b < blocks.size(); ++b) EXPECT_EQ(blocks[b], blocks[b - 1] + 1);
  }
  EXPECT_EQ(pool.num_free(), 64 - 4 * 8);
}

TEST(BlockPool, TakesWhatIsLeftWhenTheNextIsHeld) {
  BlockPool pool(4);
  const int32_t a = pool.Allocate();
  const int32_t b = pool.Allocate(a);
  EXPECT_EQ(b, a + 1);
  const int32_t c = pool.Allocate(a);
  EXPECT_TRUE(c == 2 || c == 3);
  const int32_t d = pool.Allocate(3);  // there is no block 4
  EXPECT_NE(d, BlockPool::kNoBlock);
  EXPECT_EQ(pool.Allocate(d), BlockPool::kNoBlock);
  pool.Release(b);
  EXPECT_EQ(pool.Allocate(a), b);
}

TEST(BlockPool, EmptyPool) {
  BlockPool pool(0);
  EXPECT_EQ(pool.Allocate(), BlockPool::kNoBlock);
  EXPECT_TRUE(pool.CheckIntegrity().ok());
}

// A pool with a cache over blocks of two tokens.
class PrefixCacheTest : public testing::Test {
 protected:
  using Tokens = std::vector<int32_t>;

  // A sequence that holds the path of `tokens`, as the engine makes it.
  struct Holder {
    Tokens tokens;
    std::vector<int32_t> table;
    PrefixCache::Node* tip = nullptr;
    size_t found = 0;  // blocks that were there already
  };

  Holder Hold(const Tokens& tokens) {
    Holder holder{.tokens = tokens, .table = {}};
    holder.tip = cache.Acquire(0, tokens, holder.table);
    holder.found = holder.table.size();
    for (size_t b = holder.found; b < tokens.size() / 2; ++b) {
      int32_t block = pool.Allocate();
      while (block == BlockPool::kNoBlock && cache.EvictOne()) block = pool.Allocate();
      EXPECT_NE(block, BlockPool::kNoBlock);
      holder.tip = cache.Extend(holder.tip, 0, std::span(tokens).subspan(b * 2, 2), block);
      holder.table.push_back(block);
    }
    Check();
    return holder;
  }
  void Drop(Holder& holder) {
    cache.Release(holder.tip);
    Check();
  }
  void Check() {
    std::vector<int32_t> references(static_cast<size_t>(pool.num_blocks()), 0);
    EXPECT_EQ(cache.CheckIntegrity(references), OkStatus());
    EXPECT_EQ(pool.CheckIntegrity(), OkStatus());
  }

  BlockPool pool{6};
  PrefixCache cache{pool, 2};
};

TEST_F(PrefixCacheTest, FindsTheLongestPrefixInWholeBlocks) {
  Holder first = Hold({1, 2, 3, 4, 5, 6});
  Drop(first);
  EXPECT_EQ(cache.num_idle(), 3);
  std::vector<int32_t> table;
  PrefixCache::Node* tip = cache.Acquire(0, Tokens{1, 2, 3, 4, 5}, table);
  EXPECT_EQ(table, (Tokens{first.table[0], first.table[1]}));
  EXPECT_EQ(cache.num_idle(), 1);
  cache.Release(tip);

  table.clear();
  EXPECT_EQ(cache.Acquire(0, Tokens{2, 2, 3, 4}, table), nullptr);
  EXPECT_EQ(cache.Acquire(0, Tokens{3, 4, 5, 6}, table), nullptr);  // a block is found after its own prefix only
  EXPECT_EQ(cache.Acquire(0, Tokens{1}, table), nullptr);
  EXPECT_EQ(cache.Acquire(1, Tokens{1, 2, 3, 4}, table), nullptr);  // another partition
  EXPECT_TRUE(table.empty());
}

TEST_F(PrefixCacheTest, ExtendExchangesAKnownBlock) {
  Holder first = Hold({1, 2});
  int32_t block = pool.Allocate();
  PrefixCache::Node* tip = cache.Extend(nullptr, 0, Tokens{1, 2}, block);
  EXPECT_EQ(tip, first.tip);
  EXPECT_EQ(block, first.table[0]);
  EXPECT_EQ(pool.num_free(), 5);
  cache.Release(tip);
  Drop(first);
}

// A number and the rotation may not stand for another number: both keep their blocks.
TEST_F(PrefixCacheTest, PartitionsHaveHashesOfTheirOwn) {
  const std::vector<CachePartition> partitions = {{0, false}, {0, true}, {1, false}, {1, true}, {2, false}};
  std::vector<PrefixCache::Node*> tips;
  for (const CachePartition& partition : partitions) {
    int32_t block = pool.Allocate();
    const int32_t own = block;
    tips.push_back(cache.Extend(nullptr, partition, Tokens{1, 2}, block));
    ASSERT_NE(tips.back(), nullptr);
    EXPECT_EQ(block, own);
  }
  for (size_t i = 0; i < partitions.size(); ++i) {
    std::vector<int32_t> table;
    PrefixCache::Node* found = cache.Acquire(partitions[i], Tokens{1, 2}, table);
    EXPECT_EQ(found, tips[i]);
    cache.Release(found);
  }
  for (PrefixCache::Node* tip : tips) cache.Release(tip);
}

TEST_F(PrefixCacheTest, EvictsTheLeastRecentlyUsedLeafFirst) {
  Holder a = Hold({1, 2, 3, 4});
  Holder b = Hold({1, 2, 5, 6});
  EXPECT_EQ(b.found, 1u);
  Drop(a);
  Drop(b);
  EXPECT_EQ(cache.num_idle(), 3);
  EXPECT_TRUE(cache.EvictOne());  // a's tip
  Check();
  Holder again = Hold({1, 2, 5, 6});
  EXPECT_EQ(again.found, 2u);
  EXPECT_FALSE(cache.EvictOne());  // all are held
  Drop(again);
  EXPECT_TRUE(cache.EvictOne());
  EXPECT_TRUE(cache.EvictOne());
  EXPECT_FALSE(cache.EvictOne());
  EXPECT_EQ(pool.num_free(), 6);
}

TEST_F(PrefixCacheTest, RandomHolders) {
  std::mt19937 random(11);
  std::vector<Holder> holders;
  for (int i = 0; i < 3000; ++i) {
    if (holders.size() == 2 || (!holders.empty() && random() % 2 == 0)) {
      const size_t k = random() % holders.size();
      Drop(holders[k]);
      holders.erase(holders.begin() + static_cast<std::ptrdiff_t>(k));
    } else {
      Tokens tokens(2 * (1 + random() % 3));
      for (int32_t& token : tokens) token = static_cast<int32_t>(random() % 2);
      holders.push_back(Hold(tokens));
    }
  }
  for (Holder& holder : holders) Drop(holder);
  while (cache.EvictOne()) Check();
  EXPECT_EQ(pool.num_free(), 6);
}

}  // namespace
}  // namespace pensieve::engine
