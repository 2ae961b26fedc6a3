// Attention: (sequence, kv head, block of rows) tasks, keys in fixed tiles from the sequence's first key.
//
// The query heads that share a kv head are rows of one block, so each tile of keys and values is converted to f32 once
// for all of them. The running softmax restarts every kSegmentTokens keys and segments are joined in order, so that a
// long sequence can be split among workers without changing a bit: where tiles and segments begin depends on nothing
// but the key's position.
#include <algorithm>
#include <cmath>
#include <cstring>

#include "backend/checks.h"
#include "backend/cpu/cpu_backend.h"
#include "base/check.h"
#include "base/half.h"

namespace pensieve::backend::cpu {
namespace {

// Query rows (times heads that share keys) a block: enough to make the conversion of a tile cheap beside its products,
// few enough that queries, scores and sums stay in the L2 cache.
constexpr int64_t kBlockRows = 96;
constexpr int64_t kSegmentTokens = 1024;
// Softmax state of a row that has seen no key. Finite, so that differences are never NaN.
constexpr float kLowest = -3e38f;

int64_t CeilDiv(int64_t a, int64_t b) { return (a + b - 1) / b; }
int64_t Padded(int64_t n) { return (n + 15) / 16 * 16; }

struct Range {
  int64_t first;
  int64_t end;
};

}  // namespace

// What all tasks of one call share. The keys of tile t start at position t * tile_tokens.
struct CpuBackend::AttentionWork {
  std::span<const SequenceRows> sequences;
  AttentionParams params;
  Matrix q;
  Matrix out;
  int64_t head_dim = 0;
  int64_t kv_heads = 0;
  int64_t tile_tokens = 0;
  int64_t key_stride = 0;
  // Paged, or null: then k and v are the encoder's matrices.
  const CpuKvCache* cache = nullptr;
  int64_t layer = 0;
  Matrix k;
  Matrix v;

  int64_t share() const { return q.cols / head_dim / kv_heads; }
  // Keys that row `row` of a sequence sees.
  Range Seen(const SequenceRows& sequence, int64_t row) const {
    if (cache != nullptr) {
      const int64_t position = sequence.cached_len + row;
      return {params.window > 0 ? std::max<int64_t>(0, position - params.window + 1) : 0, position + 1};
    }
    if (params.window <= 0) return {0, sequence.num_rows};
    return {std::max<int64_t>(0, row - params.window), std::min(sequence.num_rows, row + params.window + 1)};
  }
};

namespace {

// A tile's keys and values as f32, in place or converted into `keys` and `values`.
struct TileMemory {
  float* keys;
  float* values;
};

void LoadPagedTile(const KernelTable& kernels, const CpuKvCache& cache, int64_t layer, int64_t block, int64_t head,
                   const TileMemory& memory, AttentionTile* tile) {
  const std::byte* keys = cache.Keys(layer, block, head);
  const std::byte* values = cache.Values(layer, block, head);
  tile->keys = memory.keys;
  tile->values = memory.values;
  switch (cache.shape().dtype) {
    case KvDType::kF32:
      tile->keys = reinterpret_cast<const float*>(keys);
      tile->values = reinterpret_cast<const float*>(values);
      return;
    case KvDType::kF16:
      kernels.from_f16(reinterpret_cast<const uint16_t*>(keys), cache.key_count(), memory.keys);
      kernels.from_f16(reinterpret_cast<const uint16_t*>(values), tile->num_keys * cache.value_stride(), memory.values);
      return;
    case KvDType::kInt8: {
      kernels.from_i8(reinterpret_cast<const int8_t*>(keys), cache.key_count(), memory.keys);
      kernels.from_i8(reinterpret_cast<const int8_t*>(values), tile->num_keys * cache.value_stride(), memory.values);
      const float* scales = cache.Scales(layer, block, head);
      for (int64_t d = 0; d < cache.shape().head_dim; ++d) {
        for (int64_t t = 0; t < cache.key_stride(); ++t) memory.keys[d * cache.key_stride() + t] *= scales[t];
      }
      for (int64_t t = 0; t < tile->num_keys; ++t) {
        kernels.scale(memory.values + t * cache.value_stride(), cache.value_stride(), scales[cache.key_stride() + t]);
      }
      return;
    }
  }
}

// Keys [first, first + tile->num_keys) of head column `column` of an encoder's matrices.
void LoadDenseTile(const KernelTable& kernels, Matrix k, Matrix v, int64_t first, int64_t column, int64_t head_dim,
                   const TileMemory& memory, AttentionTile* tile) {
  const tensor::DenseWeight matrix = {k.rows, k.stride, tensor::DType::kF32, k.data};
  kernels.unpack_dense(matrix, first, tile->num_keys, column, head_dim, memory.keys);
  for (int64_t t = 0; t < tile->num_keys; ++t) {
    float* row = memory.values + t * tile->value_stride;
    std::copy_n(v.row(first + t) + column, head_dim, row);
    std::fill(row + head_dim, row + tile->value_stride, 0.0f);
  }
  tile->keys = memory.keys;
  tile->values = memory.values;
}

// Running softmax of a block's rows: of the present segment, and of all segments before it.
struct BlockState {
  float* mixed;
  float* sum;
  float* largest;

  void Reset(int64_t rows, int64_t stride) const {
    std::memset(mixed, 0, static_cast<size_t>(rows * stride) * sizeof(float));
    std::fill_n(sum, rows, 0.0f);
    std::fill_n(largest, rows, kLowest);
  }
};

}  // namespace

void CpuBackend::AttendTask(const AttentionWork& work, const AttentionTask& task, int worker) {
  const SequenceRows& sequence = work.sequences[static_cast<size_t>(task.sequence)];
  const int64_t share = work.share();
  const int64_t rows = task.num_rows * share;
  const int64_t value_stride = Padded(work.head_dim);
  ScratchCutter cutter;
  cutter.Reserve<float>(rows * work.head_dim);
  cutter.Reserve<float>(work.head_dim * work.key_stride);
  cutter.Reserve<float>(work.key_stride * value_stride);
  cutter.Reserve<float>(rows * work.key_stride);
  for (int part = 0; part < 2; ++part) {
    cutter.Reserve<float>(rows * value_stride);
    cutter.Reserve<float>(rows);
    cutter.Reserve<float>(rows);
  }
  cutter.Reserve<int32_t>(rows);
  cutter.Reserve<int32_t>(rows);
  cutter.Allocate(scratch_[static_cast<size_t>(worker)].attention);

  float* q = cutter.Take<float>(rows * work.head_dim);
  TileMemory memory;
  memory.keys = cutter.Take<float>(work.head_dim * work.key_stride);
  memory.values = cutter.Take<float>(work.key_stride * value_stride);
  AttentionTile tile;
  tile.q = q;
  tile.q_stride = work.head_dim;
  tile.rows = rows;
  tile.head_dim = work.head_dim;
  tile.key_stride = work.key_stride;
  tile.value_stride = value_stride;
  tile.softcap = work.params.softcap;
  tile.scores = cutter.Take<float>(rows * work.key_stride);
  BlockState segment = {};
  BlockState total = {};
  for (BlockState* state : {&segment, &total}) {
    state->mixed = cutter.Take<float>(rows * value_stride);
    state->sum = cutter.Take<float>(rows);
    state->largest = cutter.Take<float>(rows);
  }
  auto* first_seen = cutter.Take<int32_t>(rows);
  auto* end_seen = cutter.Take<int32_t>(rows);
  tile.first_seen = first_seen;
  tile.end_seen = end_seen;
  tile.mixed = segment.mixed;
  tile.sum = segment.sum;
  tile.largest = segment.largest;

  // Row r of the block is query row r / share, head r % share of those that share the kv head.
  for (int64_t r = 0; r < rows; ++r) {
    const float* source = work.q.row(sequence.first_row + task.first_row + r / share) +
                          (task.kv_head * share + r % share) * work.head_dim;
    for (int64_t d = 0; d < work.head_dim; ++d) q[r * work.head_dim + d] = source[d] * work.params.scale;
  }
  segment.Reset(rows, value_stride);
  total.Reset(rows, value_stride);
  if (work.params.sinks != nullptr) {
    for (int64_t r = 0; r < rows; ++r) {
      total.largest[r] = work.params.sinks[task.kv_head * share + r % share];
      total.sum[r] = 1.0f;
    }
  }
  const auto merge = [&] {
    for (int64_t r = 0; r < rows; ++r) {
      kernels_.merge(segment.mixed + r * value_stride, segment.sum[r], segment.largest[r], value_stride,
                     total.mixed + r * value_stride, &total.sum[r], &total.largest[r]);
    }
    segment.Reset(rows, value_stride);
  };

  const int64_t last_row = task.first_row + task.num_rows - 1;
  const Range keys = {work.Seen(sequence, task.first_row).first, work.Seen(sequence, last_row).end};
  const int64_t segment_tiles = std::max<int64_t>(1, kSegmentTokens / work.tile_tokens);
  for (int64_t t = keys.first / work.tile_tokens; t * work.tile_tokens < keys.end; ++t) {
    if (t % segment_tiles == 0) merge();
    const int64_t begin = t * work.tile_tokens;
    tile.num_keys = std::min(work.tile_tokens, keys.end - begin);
    for (int64_t r = 0; r < rows; ++r) {
      const Range seen = work.Seen(sequence, task.first_row + r / share);
      first_seen[r] = static_cast<int32_t>(std::clamp<int64_t>(seen.first - begin, 0, tile.num_keys));
      end_seen[r] = static_cast<int32_t>(std::clamp<int64_t>(seen.end - begin, 0, tile.num_keys));
    }
    if (work.cache != nullptr) {
      LoadPagedTile(kernels_, *work.cache, work.layer, sequence.block_table[static_cast<size_t>(t)], task.kv_head, memory,
                    &tile);
    } else {
      LoadDenseTile(kernels_, work.k, work.v, sequence.first_row + begin, task.kv_head * work.head_dim, work.head_dim,
                    memory, &tile);
    }
    kernels_.attend(tile);
  }
  merge();
  for (int64_t r = 0; r < rows; ++r) {
    float* target = work.out.row(sequence.first_row + task.first_row + r / share) +
                    (task.kv_head * share + r % share) * work.head_dim;
    const float inverse = 1.0f / total.sum[r];
    for (int64_t d = 0; d < work.head_dim; ++d) target[d] = total.mixed[r * value_stride + d] * inverse;
  }
}

void CpuBackend::RunAttention(const AttentionWork& work) {
  attention_tasks_.clear();
  const int64_t step = std::max<int64_t>(1, kBlockRows / work.share());
  for (size_t s = 0; s < work.sequences.size(); ++s) {
    const int64_t rows = work.sequences[s].num_rows;
    // Last blocks first: they see the most keys, and small tasks at the end even out the workers.
    for (int64_t block = CeilDiv(rows, step) - 1; block >= 0; --block) {
      for (int64_t head = 0; head < work.kv_heads; ++head) {
        attention_tasks_.push_back({static_cast<int64_t>(s), head, block * step, std::min(step, rows - block * step)});
      }
    }
  }
  pool_.Run(static_cast<int64_t>(attention_tasks_.size()), [&](int64_t chunk, int worker) {
    AttendTask(work, attention_tasks_[static_cast<size_t>(chunk)], worker);
  });
}

void CpuBackend::PagedAttention(const KvCache& cache, int64_t layer, std::span<const SequenceRows> sequences,
                                const AttentionParams& params, Matrix q, Matrix out) {
  const auto& own = static_cast<const CpuKvCache&>(cache);
  CheckPagedAttention(own.shape(), layer, sequences, q, out);
  AttentionWork work;
  work.sequences = sequences;
  work.params = params;
  work.q = q;
  work.out = out;
  work.head_dim = own.shape().head_dim;
  work.kv_heads = own.shape().kv_heads;
  work.tile_tokens = own.shape().block_len;
  work.key_stride = own.key_stride();
  work.cache = &own;
  work.layer = layer;
  RunAttention(work);
}

void CpuBackend::EncoderAttention(std::span<const SequenceRows> sequences, int64_t head_dim,
                                  const AttentionParams& params, Matrix q, Matrix k, Matrix v, Matrix out) {
  CheckEncoderAttention(sequences, head_dim, q, k, v, out);
  AttentionWork work;
  work.sequences = sequences;
  work.params = params;
  work.q = q;
  work.out = out;
  work.head_dim = head_dim;
  work.kv_heads = k.cols / head_dim;
  work.tile_tokens = kernels_.panel;
  work.key_stride = kernels_.panel;
  work.k = k;
  work.v = v;
  RunAttention(work);
}

namespace {

// One head of one token into place `token` of its block. int8: symmetric, the largest magnitude / 127 as its scale.
struct StorePlace {
  const CpuKvCache* cache;
  std::byte* keys;
  std::byte* values;
  float* scales;
  int64_t token;
};

float Int8Scale(const float* x, int64_t n) {
  float largest = 0.0f;
  for (int64_t i = 0; i < n; ++i) {
    if (!std::isfinite(x[i])) return x[i] - x[i];  // NaN: what comes out must show it
    largest = std::max(largest, std::fabs(x[i]));
  }
  return largest / 127.0f;
}

int8_t ToInt8(float x, float scale) {
  const float rounded = scale > 0.0f ? std::nearbyint(x / scale) : 0.0f;
  return static_cast<int8_t>(rounded > 127.0f ? 127.0f : rounded > -127.0f ? rounded : -127.0f);
}

// `half` holds both heads as f16, keys first, `stride` apart.
void StoreHalves(const StorePlace& place, const uint16_t* half, int64_t stride) {
  const int64_t head_dim = place.cache->shape().head_dim;
  auto* keys = reinterpret_cast<uint16_t*>(place.keys);
  auto* values = reinterpret_cast<uint16_t*>(place.values);
  for (int64_t d = 0; d < head_dim; ++d) keys[d * place.cache->key_stride() + place.token] = half[d];
  std::copy_n(half + stride, head_dim, values + place.token * place.cache->value_stride());
}

void StoreFloats(const StorePlace& place, const float* k, const float* v) {
  const int64_t head_dim = place.cache->shape().head_dim;
  auto* keys = reinterpret_cast<float*>(place.keys);
  auto* values = reinterpret_cast<float*>(place.values);
  for (int64_t d = 0; d < head_dim; ++d) keys[d * place.cache->key_stride() + place.token] = k[d];
  std::copy_n(v, head_dim, values + place.token * place.cache->value_stride());
}

void StoreInt8(const StorePlace& place, const float* k, const float* v) {
  const int64_t head_dim = place.cache->shape().head_dim;
  const float k_scale = Int8Scale(k, head_dim);
  const float v_scale = Int8Scale(v, head_dim);
  place.scales[place.token] = k_scale;
  place.scales[place.cache->key_stride() + place.token] = v_scale;
  auto* keys = reinterpret_cast<int8_t*>(place.keys);
  auto* values = reinterpret_cast<int8_t*>(place.values) + place.token * place.cache->value_stride();
  for (int64_t d = 0; d < head_dim; ++d) {
    keys[d * place.cache->key_stride() + place.token] = ToInt8(k[d], k_scale);
    values[d] = ToInt8(v[d], v_scale);
  }
}

}  // namespace

void CpuBackend::StoreKv(KvCache& cache, int64_t layer, std::span<const SequenceRows> sequences, Matrix k, Matrix v) {
  const auto& own = static_cast<const CpuKvCache&>(cache);
  const KvShape& shape = own.shape();
  CheckStoreKv(shape, layer, sequences, k, v);
  const int64_t head_dim = shape.head_dim;
  const int64_t stride = Padded(head_dim);
  for (const SequenceRows& sequence : sequences) {
    // A task is one head of one block, so no two workers write one chunk.
    const int64_t first_block = sequence.cached_len / shape.block_len;
    const int64_t end = sequence.cached_len + sequence.num_rows;
    const int64_t blocks = CeilDiv(end, shape.block_len) - first_block;
    const auto store = [&](int64_t task, int worker) {
      const int64_t b = first_block + task / shape.kv_heads;
      const int64_t head = task % shape.kv_heads;
      const int64_t block = sequence.block_table[static_cast<size_t>(b)];
      StorePlace place = {&own, own.Keys(layer, block, head), own.Values(layer, block, head),
                          own.Scales(layer, block, head), 0};
      float* both = scratch_[static_cast<size_t>(worker)].row.Need<float>(3 * stride);
      auto* half = reinterpret_cast<uint16_t*>(both + 2 * stride);
      const int64_t last = std::min(end, (b + 1) * shape.block_len);
      for (int64_t p = std::max(sequence.cached_len, b * shape.block_len); p < last; ++p) {
        const int64_t row = sequence.first_row + p - sequence.cached_len;
        const float* k_head = k.row(row) + head * head_dim;
        const float* v_head = v.row(row) + head * head_dim;
        place.token = p - b * shape.block_len;
        if (shape.dtype == KvDType::kF32) StoreFloats(place, k_head, v_head);
        if (shape.dtype == KvDType::kInt8) StoreInt8(place, k_head, v_head);
        if (shape.dtype != KvDType::kF16) continue;
        std::copy_n(k_head, head_dim, both);
        std::copy_n(v_head, head_dim, both + stride);
        std::fill(both + head_dim, both + stride, 0.0f);
        std::fill(both + stride + head_dim, both + 2 * stride, 0.0f);
        kernels_.to_f16(both, 2 * stride, half);
        StoreHalves(place, half, stride);
      }
    };
    const int64_t tasks = sequence.num_rows == 0 ? 0 : blocks * shape.kv_heads;
    if (sequence.num_rows == 1) {
      for (int64_t task = 0; task < tasks; ++task) store(task, 0);
    } else {
      pool_.Run(tasks, store);
    }
  }
}

}  // namespace pensieve::backend::cpu
