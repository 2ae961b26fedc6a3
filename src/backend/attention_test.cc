// Paged and encoder attention on every backend, against the reference and against themselves in other batches.
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <tuple>
#include <utility>

#include "backend/test_support.h"

namespace pensieve::backend {
namespace {

using testing::ExpectNear;
using testing::ExpectSameBits;
using testing::ExpectSameInCompany;
using testing::HostMatrix;
using testing::In;
using testing::OpTest;

class AttentionTest : public OpTest {};
INSTANTIATE_TEST_SUITE_P(Backends, AttentionTest, ::testing::ValuesIn(testing::AllVariants()), testing::VariantName);

// One sequence with all its queries, keys and values, and shuffled blocks to keep them in.
struct Conversation {
  HostMatrix q;
  HostMatrix k;
  HostMatrix v;
  std::vector<int32_t> blocks;
  int64_t length;

  SequenceRows Step(int64_t cached, int64_t rows) const { return {0, rows, cached, blocks}; }
};

Conversation MakeConversation(const KvShape& shape, int64_t heads, int64_t length, std::mt19937& rng,
                              std::vector<int32_t>* free_blocks) {
  Conversation c = {HostMatrix(length, heads * shape.head_dim).FillNormal(rng),
                    HostMatrix(length, shape.kv_heads * shape.head_dim).FillNormal(rng),
                    HostMatrix(length, shape.kv_heads * shape.head_dim).FillNormal(rng),
                    {},
                    length};
  std::shuffle(free_blocks->begin(), free_blocks->end(), rng);
  const auto needed = static_cast<size_t>((length + shape.block_len - 1) / shape.block_len);
  c.blocks.assign(free_blocks->end() - static_cast<int64_t>(needed), free_blocks->end());
  free_blocks->resize(free_blocks->size() - needed);
  return c;
}

std::vector<int32_t> AllBlocks(const KvShape& shape) {
  std::vector<int32_t> blocks(static_cast<size_t>(shape.num_blocks));
  for (size_t i = 0; i < blocks.size(); ++i) blocks[i] = static_cast<int32_t>(i);
  return blocks;
}

// One step of the present rows: `precise` rows of them.
void Begin(Backend& backend, std::span<const SequenceRows> sequences, int64_t rows, bool precise = true) {
  backend.BeginStep({.rows = rows, .sequences = sequences, .precise_rows = precise ? rows : 0});
}

// Stores and attends in steps of `chunk` rows, into `out`.
void RunInSteps(Backend& backend, KvCache& cache, int64_t layer, Conversation& c, int64_t chunk,
                const AttentionParams& params, Matrix out, bool precise = true) {
  for (int64_t done = 0; done < c.length; done += chunk) {
    const int64_t rows = std::min(chunk, c.length - done);
    const SequenceRows step = c.Step(done, rows);
    Begin(backend, {&step, 1}, rows, precise);
    backend.StoreKv(cache, layer, c.k.view().Rows(done, rows), c.v.view().Rows(done, rows));
    backend.PagedAttention(cache, layer, params, c.q.view().Rows(done, rows), out.Rows(done, rows));
  }
}

std::unique_ptr<KvCache> MakeCache(Backend& backend, const KvShape& shape) {
  auto cache = backend.NewKvCache(shape);
  EXPECT_TRUE(cache.has_value());
  return *std::move(cache);
}

TEST_P(AttentionTest, PagedMatchesReference) {
  std::mt19937 rng(1);
  const std::vector<float> sinks = testing::NormalVector(12, rng);
  struct Case {
    int64_t kv_heads, share, head_dim, block_len, length;
  };
  for (const Case& c : {Case{1, 1, 64, 32, 70},
                        {2, 3, 64, 32, 1},
                        {3, 4, 32, 16, 33},
                        {2, 1, 80, 32, 64},
                        {1, 7, 17, 5, 40},
                        {2, 2, 256, 1, 9},
                        {1, 2, 96, 64, 65}}) {
    for (const KvDType dtype : {KvDType::kF16, KvDType::kF32, KvDType::kInt8}) {
      for (const int option : {0, 1, 2, 3}) {
        const KvShape shape = {2, c.kv_heads, c.head_dim, c.block_len, 70, dtype};
        std::vector<int32_t> blocks = AllBlocks(shape);
        Conversation conversation = MakeConversation(shape, c.kv_heads * c.share, c.length, rng, &blocks);
        AttentionParams params;
        params.scale = 1.0f / std::sqrt(static_cast<float>(c.head_dim));
        if (option == 1) params.window = 13;
        if (option == 3) params.softcap = 2.0f;
        HostMatrix actual(c.length, c.kv_heads * c.share * c.head_dim);
        HostMatrix expected = actual;
        const auto cache = MakeCache(*backend_, shape);
        const auto reference_cache = MakeCache(*reference_, shape);
        if (option == 2) params.sinks = In(*backend_, sinks);
        RunInSteps(*backend_, *cache, 1, conversation, 1000, params, actual.view());
        if (option == 2) params.sinks = In(*reference_, sinks);
        RunInSteps(*reference_, *reference_cache, 1, conversation, 1000, params, expected.view());
        ExpectNear(actual.view(), expected.view(), 1e-5f, 5e-6f,
                   fmt::format("head_dim {}, blocks of {}, dtype {}, option {}", c.head_dim, c.block_len,
                               static_cast<int>(dtype), option));
      }
    }
  }
}

// Rows of prompts may be rounded to some 12 bits before they are multiplied, where that is faster.
TEST_P(AttentionTest, CoarseRowsAreNearTheReference) {
  if (GetParam().isa == "reference") return;
  std::mt19937 rng(5);
  const std::vector<float> sinks = testing::NormalVector(12, rng);
  struct Case {
    int64_t kv_heads, share, head_dim, block_len, length;
  };
  for (const Case& c : {Case{1, 1, 64, 32, 300},
                        {2, 3, 64, 32, 1},
                        {3, 4, 32, 16, 33},
                        {2, 1, 80, 32, 131},
                        {1, 7, 17, 5, 40},
                        {2, 2, 256, 1, 19},
                        {1, 2, 96, 64, 65},
                        {1, 1, 1, 32, 2},
                        {1, 2, 16, 300, 310}}) {
    for (const KvDType dtype : {KvDType::kF16, KvDType::kF32, KvDType::kInt8}) {
      for (const int option : {0, 1, 2, 3}) {
        const KvShape shape = {2, c.kv_heads, c.head_dim, c.block_len, 320, dtype};
        std::vector<int32_t> blocks = AllBlocks(shape);
        Conversation conversation = MakeConversation(shape, c.kv_heads * c.share, c.length, rng, &blocks);
        // Magnitudes differ from token to token: a scale that belongs to another token would show.
        for (int64_t r = 0; r < c.length; ++r) {
          for (int64_t i = 0; i < c.kv_heads * c.head_dim; ++i) {
            conversation.k.row(r)[i] *= static_cast<float>(1 + r % 3);
            conversation.v.row(r)[i] *= static_cast<float>(1 + r % 5 * 10);
          }
        }
        AttentionParams params;
        params.scale = 1.0f / std::sqrt(static_cast<float>(c.head_dim));
        if (option == 1) params.window = 13;
        if (option == 3) params.softcap = 2.0f;
        HostMatrix actual(c.length, c.kv_heads * c.share * c.head_dim);
        HostMatrix expected = actual;
        const auto cache = MakeCache(*backend_, shape);
        const auto reference_cache = MakeCache(*reference_, shape);
        if (option == 2) params.sinks = In(*backend_, sinks);
        RunInSteps(*backend_, *cache, 1, conversation, 1000, params, actual.view(), /*precise=*/false);
        if (option == 2) params.sinks = In(*reference_, sinks);
        RunInSteps(*reference_, *reference_cache, 1, conversation, 1000, params, expected.view(), /*precise=*/false);
        // Values reach 41 in standard deviation.
        ExpectNear(actual.view(), expected.view(), 2e-3f, 0.1f,
                   fmt::format("head_dim {}, blocks of {}, dtype {}, option {}", c.head_dim, c.block_len,
                               static_cast<int>(dtype), option));
      }
    }
  }
}

TEST_P(AttentionTest, NumbersThatAreNoneShow) {
  const KvShape shape = {1, 1, 16, 8, 2, KvDType::kF32};
  const std::vector<int32_t> blocks = {1, 0};
  const SequenceRows rows = {0, 10, 0, blocks};
  for (const bool precise : {false, true}) {
    for (const float bad : {std::nanf(""), INFINITY}) {
      for (const int where : {0, 1, 2}) {
        std::mt19937 rng(6);
        HostMatrix matrices[] = {HostMatrix(10, 16).FillNormal(rng), HostMatrix(10, 16).FillNormal(rng),
                                 HostMatrix(10, 16).FillNormal(rng)};
        matrices[where].row(4)[3] = bad;
        const auto cache = MakeCache(*backend_, shape);
        AttentionParams params;
        params.scale = 0.25f;
        HostMatrix out(10, 16);
        Begin(*backend_, {&rows, 1}, 10, precise);
        backend_->StoreKv(*cache, 0, matrices[1].view(), matrices[2].view());
        backend_->PagedAttention(*cache, 0, params, matrices[0].view(), out.view());
        EXPECT_FALSE(std::isfinite(out.row(4)[3])) << "in matrix " << where << ", precise " << precise;
      }
    }
  }
}

TEST_P(AttentionTest, LongContextOverManyBlocks) {
  if (GetParam().isa == "reference") return;  // compared with itself
  std::mt19937 rng(2);
  const KvShape shape = {1, 2, 32, 32, 100, KvDType::kF16};
  std::vector<int32_t> blocks = AllBlocks(shape);
  Conversation c = MakeConversation(shape, 4, 2500, rng, &blocks);
  // Scores up to 30 in magnitude, rising along the text: the running maximum moves all the time.
  for (int64_t r = 0; r < c.length; ++r) {
    for (int64_t d = 0; d < 64; ++d) c.k.row(r)[d] *= 1.0f + static_cast<float>(r) / 500.0f;
  }
  for (const int64_t window : {0, 1500}) {
    AttentionParams params;
    params.scale = 0.17f;
    params.window = window;
    const auto cache = MakeCache(*backend_, shape);
    const auto reference_cache = MakeCache(*reference_, shape);
    const SequenceRows prompt = c.Step(0, 2490);
    const SequenceRows last = c.Step(2490, 10);
    HostMatrix actual(10, 128);
    HostMatrix expected(10, 128);
    for (Backend* backend : {backend_.get(), reference_.get()}) {
      KvCache& own = backend == backend_.get() ? *cache : *reference_cache;
      Begin(*backend, {&prompt, 1}, 2490);
      backend->StoreKv(own, 0, c.k.view().Rows(0, 2490), c.v.view().Rows(0, 2490));
      Begin(*backend, {&last, 1}, 10);
      backend->StoreKv(own, 0, c.k.view().Rows(2490, 10), c.v.view().Rows(2490, 10));
      backend->PagedAttention(own, 0, params, c.q.view().Rows(2490, 10),
                              backend == backend_.get() ? actual.view() : expected.view());
    }
    ExpectNear(actual.view(), expected.view(), 1e-5f, 1e-5f, fmt::format("long context, window {}", window));
  }
}

// The contract: chunks, company and workers do not change a bit.
TEST_P(AttentionTest, RowsAreIndependentOfChunksAndCompany) {
  if (GetParam().isa == "reference") return;
  std::mt19937 rng(3);
  const std::vector<float> sinks = testing::NormalVector(4, rng);
  struct Case {
    KvDType dtype;
    int64_t window;
    bool precise;
  };
  for (const auto& [dtype, window, precise] : {Case{KvDType::kF16, 0, true},
                                               {KvDType::kF16, 40, true},
                                               {KvDType::kInt8, 0, true},
                                               {KvDType::kInt8, 40, true},
                                               {KvDType::kF16, 0, false},
                                               {KvDType::kF16, 40, false},
                                               {KvDType::kInt8, 40, false}}) {
    const KvShape shape = {1, 2, 32, 16, 200, dtype};
    std::vector<int32_t> blocks = AllBlocks(shape);
    AttentionParams params;
    params.scale = 0.2f;
    params.window = window;
    const auto with_sinks = [&](Backend& backend) {
      AttentionParams own = params;
      if (window > 0) own.sinks = In(backend, sinks);
      return own;
    };
    Conversation a = MakeConversation(shape, 4, 1200, rng, &blocks);
    Conversation b = MakeConversation(shape, 4, 77, rng, &blocks);
    const auto cache = MakeCache(*backend_, shape);
    HostMatrix whole(1200, 128);
    RunInSteps(*backend_, *cache, 0, a, 1200, with_sinks(*backend_), whole.view(), precise);
    for (const int64_t chunk : {1, 7, 100, 512}) {
      const auto single = testing::MakeBackend({GetParam().isa, 1});
      const auto own = MakeCache(*single, shape);
      HostMatrix pieces(1200, 128);
      RunInSteps(*single, *own, 0, a, chunk, with_sinks(*single), pieces.view(), precise);
      ExpectSameInCompany(*backend_, pieces.view(), whole.view(), fmt::format("chunks of {}", chunk));
    }
    // Both in one batch: all of b beside the last 23 rows of a.
    HostMatrix alone(77, 128);
    RunInSteps(*backend_, *cache, 0, b, 77, with_sinks(*backend_), alone.view(), precise);
    HostMatrix q(100, 128);
    for (int64_t r = 0; r < 100; ++r) std::copy_n(r < 77 ? b.q.row(r) : a.q.row(1177 + r - 77), 128, q.row(r));
    const SequenceRows both[] = {{0, 77, 0, b.blocks}, {77, 23, 1177, a.blocks}};
    HostMatrix out(100, 128);
    Begin(*backend_, both, 100, precise);
    backend_->PagedAttention(*cache, 0, with_sinks(*backend_), q.view(), out.view());
    ExpectSameInCompany(*backend_, out.view().Rows(0, 77), alone.view(), "short sequence in company");
    ExpectSameInCompany(*backend_, out.view().Rows(77, 23), whole.view().Rows(1177, 23), "long sequence in company");
  }
}

// Rows of conversations, one after the other, as a model has them: in the device's own matrices, heads normed, then rotated,
// stored and attended at once. The output of the first row.
HostMatrix AttendAtOnce(Backend& backend, KvCache& cache, std::span<const std::pair<Conversation*, int64_t>> pieces,
                        int64_t heads, bool norms) {
  const KvShape& shape = cache.shape();
  std::vector<SequenceRows> sequences;
  std::vector<int32_t> positions;
  std::vector<float> q, k, v;
  for (const auto& [c, cached] : pieces) {
    const int64_t first = static_cast<int64_t>(positions.size());
    sequences.push_back({first, c->length - cached, cached, c->blocks});
    for (int64_t r = cached; r < c->length; ++r) {
      positions.push_back(static_cast<int32_t>(r));
      q.insert(q.end(), c->q.row(r), c->q.row(r) + heads * shape.head_dim);
      k.insert(k.end(), c->k.row(r), c->k.row(r) + shape.kv_heads * shape.head_dim);
      v.insert(v.end(), c->v.row(r), c->v.row(r) + shape.kv_heads * shape.head_dim);
    }
  }
  const auto rows = static_cast<int64_t>(positions.size());
  const auto on_device = [&](const std::vector<float>& values) {
    const Matrix m = *backend.NewMatrix(rows, static_cast<int64_t>(values.size()) / rows);
    EXPECT_TRUE(backend.CopyToDevice(values, m).ok());
    return m;
  };
  AttentionStep step;
  step.params.scale = 0.1f;
  const std::vector<float> frequencies = {1.0f, 0.3f, 0.1f, 0.02f, 0.001f};
  step.rope = In(backend, RopeTable{frequencies, 10, false, 1.5f});
  step.q = on_device(q);
  step.k = on_device(k);
  step.v = on_device(v);
  step.out = *backend.NewMatrix(rows, heads * shape.head_dim);
  std::vector<float> weights(static_cast<size_t>(shape.head_dim));
  for (size_t i = 0; i < weights.size(); ++i) weights[i] = 0.5f + 0.03f * static_cast<float>(i % 40);
  backend.BeginStep({.rows = rows, .positions = positions, .sequences = sequences, .precise_rows = rows});
  if (norms) {
    backend.RmsNormHeads(step.q, shape.head_dim, In(backend, weights), 1e-5f);
    backend.RmsNormHeads(step.k, shape.head_dim, In(backend, weights), 1e-6f);
  }
  backend.RotateStoreAttend(cache, step);
  std::vector<float> out(q.size());
  EXPECT_TRUE(backend.CopyToHost(step.out, out).ok());
  HostMatrix row(1, heads * shape.head_dim);
  std::copy_n(out.begin(), heads * shape.head_dim, row.row(0));
  return row;
}

TEST_P(AttentionTest, RowsAttendAtOnceAsInAnyOtherStep) {
  std::mt19937 rng(21);
  for (const KvDType dtype : {KvDType::kF16, KvDType::kInt8, KvDType::kF32}) {
    for (const auto& [heads, kv_heads, dim, norms] : {std::tuple<int64_t, int64_t, int64_t, bool>{4, 2, 64, true},
                                                      {3, 3, 96, false},
                                                      {14, 2, 128, true},
                                                      {8, 2, 40, true}}) {
      const KvShape shape = {1, kv_heads, dim, 16, 250, dtype};
      const std::string name =
          fmt::format("{} heads, {} of kv, {} dims, kv type {}", heads, kv_heads, dim, static_cast<int>(dtype));
      std::vector<int32_t> blocks = AllBlocks(shape);
      Conversation a = MakeConversation(shape, heads, 2500, rng, &blocks);
      Conversation b = MakeConversation(shape, heads, 77, rng, &blocks);
      for (const int64_t length : {1, 16, 65, 700, 2500}) {
        if (length > 700 && heads != 4) continue;  // long ones take their time
        a.length = length;
        const auto run = [&](Backend& backend, std::initializer_list<std::pair<Conversation*, int64_t>> pieces) {
          const auto cache = MakeCache(backend, shape);
          for (const auto& [c, cached] : pieces) {
            if (cached == 0) continue;
            const SequenceRows before = c->Step(0, cached);
            Begin(backend, {&before, 1}, cached);
            backend.StoreKv(*cache, 0, c->k.view().Rows(0, cached), c->v.view().Rows(0, cached));
          }
          return AttendAtOnce(backend, *cache, {pieces.begin(), pieces.size()}, heads, norms);
        };
        HostMatrix alone = run(*backend_, {{&a, length - 1}});
        HostMatrix expected = run(*reference_, {{&a, length - 1}});
        ExpectNear(alone.view(), expected.view(), 2e-3f, 2e-3f, fmt::format("{}, {} tokens", name, length));
        HostMatrix beside_one = run(*backend_, {{&a, length - 1}, {&b, 76}});
        ExpectSameInCompany(*backend_, beside_one.view(), alone.view(), fmt::format("{}, beside a row", name));
        HostMatrix beside_many = run(*backend_, {{&a, length - 1}, {&b, 70}});
        ExpectSameInCompany(*backend_, beside_many.view(), alone.view(), fmt::format("{}, beside rows", name));
      }
    }
  }
}

TEST_P(AttentionTest, EncoderMatchesReferenceAndIgnoresCompany) {
  std::mt19937 rng(4);
  struct Case {
    int64_t kv_heads, share, head_dim;
  };
  for (const Case& c : {Case{2, 1, 32}, {1, 3, 64}, {3, 1, 17}, {2, 2, 1}}) {
    const int64_t width = c.kv_heads * c.head_dim;
    HostMatrix q = HostMatrix(160, width * c.share).FillNormal(rng);
    HostMatrix k = HostMatrix(160, width).FillNormal(rng);
    HostMatrix v = HostMatrix(160, width).FillNormal(rng);
    std::vector<SequenceRows> sequences;
    for (const auto& [first, rows] : {std::pair<int64_t, int64_t>{0, 1}, {1, 33}, {34, 0}, {34, 126}}) {
      sequences.push_back({first, rows, 0, {}});
    }
    for (const int64_t window : {0, 9}) {
      AttentionParams params;
      params.scale = 0.3f;
      params.window = window;
      HostMatrix actual(160, width * c.share);
      HostMatrix expected = actual;
      for (Backend* backend : {backend_.get(), reference_.get()}) {
        Begin(*backend, sequences, 160);
        backend->EncoderAttention(c.head_dim, params, q.view(), k.view(), v.view(),
                                  backend == backend_.get() ? actual.view() : expected.view());
      }
      ExpectNear(actual.view(), expected.view(), 1e-5f, 5e-6f,
                 fmt::format("head_dim {}, window {}", c.head_dim, window));
      HostMatrix alone(126, width * c.share);
      const SequenceRows last = {0, 126, 0, {}};
      Begin(*backend_, {&last, 1}, 126);
      backend_->EncoderAttention(c.head_dim, params, q.view().Rows(34, 126), k.view().Rows(34, 126),
                                 v.view().Rows(34, 126), alone.view());
      ExpectSameInCompany(*backend_, actual.view().Rows(34, 126), alone.view(), "alone");
    }
  }
}

// A block moved to another place, and to another cache, gives the same answer.
TEST_P(AttentionTest, BlocksTravelAsBytes) {
  std::mt19937 rng(9);
  for (const KvDType dtype : {KvDType::kF16, KvDType::kF32, KvDType::kInt8}) {
    const KvShape shape = {2, 2, 24, 16, 5, dtype};
    const auto cache = MakeCache(*backend_, shape);
    const auto other = MakeCache(*backend_, {2, 2, 24, 16, 9, dtype});
    std::vector<int32_t> blocks = AllBlocks(shape);
    Conversation c = MakeConversation(shape, 4, 40, rng, &blocks);
    AttentionParams params;
    params.scale = 0.2f;
    HostMatrix expected(40, 96);
    for (const int64_t layer : {0, 1}) RunInSteps(*backend_, *cache, layer, c, 40, params, expected.view());
    const std::vector<int32_t> moved = {8, 0, 4};
    std::vector<std::byte> bytes(static_cast<size_t>(cache->block_bytes()));
    ASSERT_EQ(cache->block_bytes(), other->block_bytes());
    for (size_t b = 0; b < moved.size(); ++b) {
      ASSERT_TRUE(cache->ReadBlock(c.blocks[b], bytes).ok());
      ASSERT_TRUE(other->WriteBlock(moved[b], bytes).ok());
    }
    const SequenceRows rows = {0, 40, 0, moved};
    HostMatrix actual(40, 96);
    Begin(*backend_, {&rows, 1}, 40);
    backend_->PagedAttention(*other, 1, params, c.q.view(), actual.view());
    ExpectSameBits(actual.view(), expected.view(), "moved blocks");
  }
}

TEST_P(AttentionTest, SinksExample) {
  // Scores 1 and 2 with a sink of 0.5 weigh .2312239 and .6285317.
  const KvShape shape = {1, 1, 2, 32, 1, KvDType::kF32};
  const auto cache = MakeCache(*backend_, shape);
  const float sink = 0.5f;
  const float keys[] = {1, 0, 2, 0};
  const float values[] = {1, 0, 0, 1};
  const float query[] = {0, 0, 1, 0};
  const int32_t block = 0;
  const SequenceRows rows = {0, 2, 0, {&block, 1}};
  HostMatrix k(2, 2);
  HostMatrix v(2, 2);
  HostMatrix q(2, 2);
  HostMatrix out(2, 2);
  for (int64_t r = 0; r < 2; ++r) {
    std::copy_n(keys + 2 * r, 2, k.row(r));
    std::copy_n(values + 2 * r, 2, v.row(r));
    std::copy_n(query + 2 * r, 2, q.row(r));
  }
  AttentionParams params;
  params.scale = 1.0f;
  params.sinks = In(*backend_, std::span(&sink, 1));
  Begin(*backend_, {&rows, 1}, 2);
  backend_->StoreKv(*cache, 0, k.view(), v.view());
  backend_->PagedAttention(*cache, 0, params, q.view(), out.view());
  EXPECT_NEAR(out.row(1)[0], .2312239f, 1e-6f);
  EXPECT_NEAR(out.row(1)[1], .6285317f, 1e-6f);
}

}  // namespace
}  // namespace pensieve::backend
