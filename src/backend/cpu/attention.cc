// Attention: (sequence, kv head, block of rows) tasks, keys in fixed tiles from the sequence's first key.
//
// Rows of decode steps, and all rows in the exact modes, are multiplied in f32; those of a prompt in pairs of 16-bit
// integers where that is faster (attention_pairs-inl.h).
//
// The query heads that share a kv head are rows of one task, so each tile of keys and values is read once for all of
// them. The running softmax restarts every kSegmentTokens keys and segments are joined in order, so that a decode step
// over a long context can be split among workers without changing a bit: where tiles and segments begin depends on
// nothing but the key's position.
#include "backend/cpu/attention.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "base/check.h"
#include "base/half.h"

namespace pensieve::backend::cpu {
namespace {

// Query rows (times heads that share keys) a task: enough to make the reading and conversion of a tile cheap beside its
// products, few enough that queries, scores and sums stay in the L2 cache; half as many where workers would idle.
constexpr int64_t kTaskRows = 192;
// Of rows in pairs, which take more to convert and less to multiply.
constexpr int64_t kPairTaskRows = 384;
// Integer sums stay below this.
constexpr double kPairSumMax = 0x1p30;
// Keys a tile, if blocks are not longer: what the softmax's bookkeeping of a row is shared by.
constexpr int64_t kTileTokens = 128;
constexpr int64_t kSegmentTokens = 256;
// Of rows in pairs: prompts have other ways to keep workers busy, and segments cost.
constexpr int64_t kPairSegmentTokens = 1024;
// Up to so many rows f16 keys and values are converted as they are used, for more once a tile.
constexpr int64_t kMostHalfRows = 8;
// Tasks of up to so many rows are split into segments when there are few of them.
constexpr int64_t kMostSplitRows = 16;
// Softmax state of a row that has seen no key. Finite, so that differences are never NaN.
constexpr float kLowest = -3e38f;

struct Range {
  int64_t first;
  int64_t end;
};

}  // namespace

void Attention::SoftmaxState::Reserve(ScratchCutter& cutter, int64_t rows, int64_t stride) {
  cutter.Reserve<float>(rows * stride);
  cutter.Reserve<float>(rows);
  cutter.Reserve<float>(rows);
}

Attention::SoftmaxState Attention::SoftmaxState::Take(ScratchCutter& cutter, int64_t rows, int64_t stride) {
  SoftmaxState state;
  state.mixed = cutter.Take<float>(rows * stride);
  state.sum = cutter.Take<float>(rows);
  state.largest = cutter.Take<float>(rows);
  return state;
}

void Attention::SoftmaxState::Reset(int64_t rows, int64_t stride) const {
  std::memset(mixed, 0, static_cast<size_t>(rows * stride) * sizeof(float));
  std::fill_n(sum, rows, 0.0f);
  std::fill_n(largest, rows, kLowest);
}

// What all tasks of one call share. Block b of a sequence holds the keys from position b * block_len on.
struct Attention::Work {
  std::span<const SequenceRows> sequences;
  AttentionParams params;
  MatrixView q;
  MatrixView out;
  const float* sinks = nullptr;
  int64_t precise_rows = 0;
  int64_t head_dim = 0;
  int64_t kv_heads = 0;
  int64_t block_len = 0;
  int64_t key_stride = 0;
  bool may_pair = false;  // rows that are no decode steps are multiplied in pairs
  // Paged, or null: then k and v are the encoder's matrices.
  const CpuKvCache* cache = nullptr;
  int64_t layer = 0;
  MatrixView k;
  MatrixView v;

  int64_t share() const { return q.cols / head_dim / kv_heads; }
  int64_t value_stride() const { return Padded(head_dim); }
  int64_t tile_blocks() const { return std::clamp<int64_t>(kTileTokens / block_len, 1, AttentionTile::kMostBlocks); }
  int64_t tile_tokens() const { return tile_blocks() * block_len; }
  int64_t segment_tokens(const SequenceRows& sequence) const {
    const int64_t wanted = Pairs(sequence) ? kPairSegmentTokens : kSegmentTokens;
    return std::max<int64_t>(1, wanted / tile_tokens()) * tile_tokens();
  }
  bool Pairs(const SequenceRows& sequence) const { return may_pair && sequence.first_row >= precise_rows; }
  // Numbers up to these keep sums of head_dim and of a tile's keys exact.
  float score_limit() const { return PairLimit(static_cast<double>(head_dim)); }
  float value_limit() const { return PairLimit(2.0 * static_cast<double>(tile_blocks() * key_stride)); }
  static float PairLimit(double terms) {
    return static_cast<float>(std::min(32000.0, std::floor(std::sqrt(kPairSumMax / terms))));
  }
  // Keys that row `row` of a sequence sees.
  Range Seen(const SequenceRows& sequence, int64_t row) const {
    if (cache != nullptr) {
      const int64_t position = sequence.cached_len + row;
      return {params.window > 0 ? std::max<int64_t>(0, position - params.window + 1) : 0, position + 1};
    }
    if (params.window <= 0) return {0, sequence.num_rows};
    return {std::max<int64_t>(0, row - params.window), std::min(sequence.num_rows, row + params.window + 1)};
  }
  Range SeenBy(const Task& task) const {
    const SequenceRows& sequence = sequences[static_cast<size_t>(task.sequence)];
    return {Seen(sequence, task.first_row).first, Seen(sequence, task.first_row + task.num_rows - 1).end};
  }
  // Segments that hold a key which some row of the task sees.
  Range Segments(const Task& task) const {
    const Range keys = SeenBy(task);
    const int64_t tokens = segment_tokens(sequences[static_cast<size_t>(task.sequence)]);
    return {keys.first / tokens, CeilDiv(keys.end, tokens)};
  }
};

// What is added to a task's memory for products in pairs.
struct Attention::PairMemory {
  int16_t* q;
  float* q_scales;
  int16_t* keys;
  float* key_scales;
  int16_t* values;
  float* value_scales;

  static int64_t Columns(const Work& work) { return work.tile_blocks() * work.key_stride; }
  static int64_t KeyPairs(const Work& work) { return CeilDiv(work.head_dim, 2); }

  static void Reserve(const Work& work, int64_t rows, ScratchCutter& cutter) {
    cutter.Reserve<int16_t>(rows * Padded(work.head_dim));
    cutter.Reserve<float>(rows);
    cutter.Reserve<int16_t>(KeyPairs(work) * Columns(work) * 2);
    cutter.Reserve<float>(Columns(work));
    cutter.Reserve<int16_t>(Columns(work) * work.value_stride());
    cutter.Reserve<float>(Columns(work));
    cutter.Reserve<float>(rows);
  }

  void Take(const Work& work, int64_t rows, ScratchCutter& cutter, AttentionPairs& out) {
    out.q = q = cutter.Take<int16_t>(rows * Padded(work.head_dim));
    out.q_stride = Padded(work.head_dim);
    out.q_scales = q_scales = cutter.Take<float>(rows);
    out.keys = keys = cutter.Take<int16_t>(KeyPairs(work) * Columns(work) * 2);
    out.key_scales = key_scales = cutter.Take<float>(Columns(work));
    out.values = values = cutter.Take<int16_t>(Columns(work) * work.value_stride());
    out.value_scales = value_scales = cutter.Take<float>(Columns(work));
    out.columns = Columns(work);
    out.p_scales = cutter.Take<float>(rows);
    out.p_limit = std::min(32000.0f, 2.0f * work.value_limit());
  }
};

// One worker's memory for one task. Row r of a task is its query row r / share, of the head r % share of those that
// share the kv head.
struct Attention::TaskScratch {
  AttentionTile tile;
  float* keys;    // [blocks][head_dim][key_stride], converted
  float* values;  // [blocks * block_len][value_stride]
  int32_t* first_seen;
  int32_t* end_seen;
  SoftmaxState segment;
  SoftmaxState total;
  bool in_pairs;
  PairMemory pairs = {};

  TaskScratch(const Work& work, const Task& task, Scratch& memory)
      : in_pairs(work.Pairs(work.sequences[static_cast<size_t>(task.sequence)])) {
    const int64_t rows = task.num_rows * work.share();
    const int64_t blocks = work.tile_blocks();
    const int64_t stride = work.value_stride();
    const int64_t score_stride = blocks * work.key_stride;
    ScratchCutter cutter;
    cutter.Reserve<float>(rows * work.head_dim);
    cutter.Reserve<float>(blocks * work.head_dim * work.key_stride);
    cutter.Reserve<float>(blocks * work.block_len * stride);
    cutter.Reserve<float>(rows * score_stride);
    cutter.Reserve<int32_t>(rows);
    cutter.Reserve<int32_t>(rows);
    SoftmaxState::Reserve(cutter, rows, stride);
    SoftmaxState::Reserve(cutter, rows, stride);
    if (in_pairs) pairs.Reserve(work, rows, cutter);
    cutter.Allocate(memory);
    tile.q = cutter.Take<float>(rows * work.head_dim);
    keys = cutter.Take<float>(blocks * work.head_dim * work.key_stride);
    values = cutter.Take<float>(blocks * work.block_len * stride);
    tile.scores = cutter.Take<float>(rows * score_stride);
    first_seen = cutter.Take<int32_t>(rows);
    end_seen = cutter.Take<int32_t>(rows);
    segment = SoftmaxState::Take(cutter, rows, stride);
    total = SoftmaxState::Take(cutter, rows, stride);
    if (in_pairs) pairs.Take(work, rows, cutter, tile.pairs);
    tile.q_stride = work.head_dim;
    tile.rows = rows;
    tile.head_dim = work.head_dim;
    tile.block_len = work.block_len;
    tile.key_stride = work.key_stride;
    tile.value_stride = stride;
    tile.score_stride = score_stride;
    tile.first_seen = first_seen;
    tile.end_seen = end_seen;
    tile.softcap = work.params.softcap;
  }

  void TakeQueries(const KernelTable& kernels, const Work& work, const Task& task) const {
    const SequenceRows& sequence = work.sequences[static_cast<size_t>(task.sequence)];
    const int64_t share = work.share();
    for (int64_t r = 0; r < tile.rows; ++r) {
      const float* source = work.q.row(sequence.first_row + task.first_row + r / share) +
                            (task.kv_head * share + r % share) * work.head_dim;
      if (in_pairs) {
        pairs.q_scales[r] = work.params.scale * kernels.pair_query(source, work.head_dim, work.score_limit(),
                                                                   pairs.q + r * tile.pairs.q_stride);
        continue;
      }
      for (int64_t d = 0; d < work.head_dim; ++d) tile.q[r * work.head_dim + d] = source[d] * work.params.scale;
    }
  }

  // Before the first segment: nothing seen, but for the sinks.
  void BeginTotal(const Work& work, const Task& task) const {
    total.Reset(tile.rows, tile.value_stride);
    if (work.sinks == nullptr) return;
    for (int64_t r = 0; r < tile.rows; ++r) {
      total.largest[r] = work.sinks[task.kv_head * work.share() + r % work.share()];
      total.sum[r] = 1.0f;
    }
  }

  void AddToTotal(const KernelTable& kernels, const SoftmaxState& part) const {
    for (int64_t r = 0; r < tile.rows; ++r) {
      kernels.merge(part.mixed + r * tile.value_stride, part.sum[r], part.largest[r], tile.value_stride,
                    total.mixed + r * tile.value_stride, &total.sum[r], &total.largest[r]);
    }
  }

  void StoreTotal(const Work& work, const Task& task) const {
    const SequenceRows& sequence = work.sequences[static_cast<size_t>(task.sequence)];
    const int64_t share = work.share();
    for (int64_t r = 0; r < tile.rows; ++r) {
      float* target = work.out.row(sequence.first_row + task.first_row + r / share) +
                      (task.kv_head * share + r % share) * work.head_dim;
      const float inverse = 1.0f / total.sum[r];
      for (int64_t d = 0; d < work.head_dim; ++d) target[d] = total.mixed[r * tile.value_stride + d] * inverse;
    }
  }

  // Block b of the tile, converted already, in pairs.
  void PairBlock(const KernelTable& kernels, const Work& work, int64_t b) const {
    const int64_t tokens = std::min(tile.block_len, tile.num_keys - b * tile.block_len);
    const int64_t column = b * tile.key_stride;
    kernels.pair_keys(static_cast<const float*>(tile.keys[b]), tile.head_dim, tile.key_stride, work.score_limit(),
                      tile.pairs.columns, pairs.keys + column * 2, pairs.key_scales + column);
    kernels.pair_values(static_cast<const float*>(tile.values[b]), tokens, tile.key_stride, tile.value_stride,
                        work.value_limit(), pairs.values + column * tile.value_stride, pairs.value_scales + column);
  }

  void LoadPagedBlock(const KernelTable& kernels, const Work& work, int64_t page, int64_t head, int64_t b);
  void LoadDenseBlock(const KernelTable& kernels, const Work& work, int64_t first, int64_t column, int64_t b);
};

// Block b of the tile: in place where its form allows, else converted.
void Attention::TaskScratch::LoadPagedBlock(const KernelTable& kernels, const Work& work, int64_t page, int64_t head,
                                            int64_t b) {
  const CpuKvCache& cache = *work.cache;
  const std::byte* k = cache.Keys(work.layer, page, head);
  const std::byte* v = cache.Values(work.layer, page, head);
  float* to_keys = keys + b * cache.key_count();
  float* to_values = values + b * tile.block_len * tile.value_stride;
  const int64_t tokens = std::min(tile.block_len, tile.num_keys - b * tile.block_len);
  const KvDType dtype = cache.shape().dtype;
  tile.halves = dtype == KvDType::kF16 && tile.rows <= kMostHalfRows && !in_pairs;
  if (tile.halves || dtype == KvDType::kF32) {
    tile.keys[b] = k;
    tile.values[b] = v;
    return;
  }
  tile.keys[b] = to_keys;
  tile.values[b] = to_values;
  if (dtype == KvDType::kF16) {
    kernels.from_f16(reinterpret_cast<const uint16_t*>(k), cache.key_count(), to_keys);
    kernels.from_f16(reinterpret_cast<const uint16_t*>(v), tokens * tile.value_stride, to_values);
    return;
  }
  kernels.from_i8(reinterpret_cast<const int8_t*>(k), cache.key_count(), to_keys);
  kernels.from_i8(reinterpret_cast<const int8_t*>(v), tokens * tile.value_stride, to_values);
  const float* scales = cache.Scales(work.layer, page, head);
  for (int64_t d = 0; d < tile.head_dim; ++d) {
    for (int64_t t = 0; t < tile.key_stride; ++t) to_keys[d * tile.key_stride + t] *= scales[t];
  }
  for (int64_t t = 0; t < tokens; ++t) {
    kernels.scale(to_values + t * tile.value_stride, tile.value_stride, scales[tile.key_stride + t]);
  }
}

// Keys from row `first` of an encoder's matrices on, of the head at column `column`.
void Attention::TaskScratch::LoadDenseBlock(const KernelTable& kernels, const Work& work, int64_t first, int64_t column,
                                            int64_t b) {
  const int64_t tokens = std::min(tile.block_len, tile.num_keys - b * tile.block_len);
  float* to_keys = keys + b * tile.head_dim * tile.key_stride;
  float* to_values = values + b * tile.block_len * tile.value_stride;
  const tensor::DenseWeight matrix = {work.k.rows, work.k.stride, tensor::DType::kF32, work.k.data};
  kernels.unpack_dense(matrix, first, tokens, column, tile.head_dim, to_keys);
  for (int64_t t = 0; t < tokens; ++t) {
    float* row = to_values + t * tile.value_stride;
    std::copy_n(work.v.row(first + t) + column, tile.head_dim, row);
    std::fill(row + tile.head_dim, row + tile.value_stride, 0.0f);
  }
  tile.keys[b] = to_keys;
  tile.values[b] = to_values;
}

// The keys of one segment, into `state`.
void Attention::AttendSegment(const Work& work, const Task& task, int64_t segment, TaskScratch& scratch) {
  const SequenceRows& sequence = work.sequences[static_cast<size_t>(task.sequence)];
  const Range keys = work.SeenBy(task);
  const int64_t tile_tokens = work.tile_tokens();
  const int64_t end = std::min(keys.end, (segment + 1) * work.segment_tokens(sequence));
  int64_t begin = segment * work.segment_tokens(sequence);
  begin += std::max<int64_t>(0, keys.first - begin) / tile_tokens * tile_tokens;
  AttentionTile& tile = scratch.tile;
  for (; begin < end; begin += tile_tokens) {
    tile.num_keys = std::min(tile_tokens, end - begin);
    for (int64_t r = 0; r < tile.rows; ++r) {
      const Range seen = work.Seen(sequence, task.first_row + r / work.share());
      scratch.first_seen[r] = static_cast<int32_t>(std::clamp<int64_t>(seen.first - begin, 0, tile.num_keys));
      scratch.end_seen[r] = static_cast<int32_t>(std::clamp<int64_t>(seen.end - begin, 0, tile.num_keys));
    }
    for (int64_t b = 0; b * work.block_len < tile.num_keys; ++b) {
      const int64_t first = begin + b * work.block_len;
      if (work.cache != nullptr) {
        const int32_t page = sequence.block_table[static_cast<size_t>(first / work.block_len)];
        scratch.LoadPagedBlock(kernels_, work, page, task.kv_head, b);
      } else {
        scratch.LoadDenseBlock(kernels_, work, sequence.first_row + first, task.kv_head * work.head_dim, b);
      }
      if (scratch.in_pairs) scratch.PairBlock(kernels_, work, b);
    }
    tile.ahead = nullptr;
    if (tile.halves && begin + tile_tokens < end) {
      const int32_t page = sequence.block_table[static_cast<size_t>((begin + tile_tokens) / work.block_len)];
      tile.ahead = work.cache->Keys(work.layer, page, task.kv_head);
    }
    scratch.in_pairs ? kernels_.attend_pairs(tile) : kernels_.attend(tile);
  }
}

void Attention::AttendTask(const Work& work, const Task& task, int worker) {
  TaskScratch scratch(work, task, scratch_[static_cast<size_t>(worker)].task);
  scratch.TakeQueries(kernels_, work, task);
  scratch.BeginTotal(work, task);
  const Range segments = work.Segments(task);
  scratch.tile.SetState(scratch.segment.mixed, scratch.segment.sum, scratch.segment.largest);
  for (int64_t s = segments.first; s < segments.end; ++s) {
    scratch.segment.Reset(scratch.tile.rows, scratch.tile.value_stride);
    AttendSegment(work, task, s, scratch);
    scratch.AddToTotal(kernels_, scratch.segment);
  }
  scratch.StoreTotal(work, task);
}

// Every segment of every task by itself, then the tasks' segments joined in order: the bits of AttendTask.
void Attention::AttendSplit(const Work& work) {
  std::vector<Part>& parts = parts_;
  parts.clear();
  for (size_t t = 0; t < tasks_.size(); ++t) {
    const Range segments = work.Segments(tasks_[t]);
    for (int64_t s = segments.first; s < segments.end; ++s) parts.push_back({t, s, {}});
  }
  const int64_t stride = work.value_stride();
  const auto rows_of = [&](size_t task) { return tasks_[task].num_rows * work.share(); };
  ScratchCutter cutter;
  for (const Part& part : parts) SoftmaxState::Reserve(cutter, rows_of(part.task), stride);
  cutter.Allocate(states_);
  for (Part& part : parts) part.state = SoftmaxState::Take(cutter, rows_of(part.task), stride);
  pool_.Run(static_cast<int64_t>(parts.size()), [&](int64_t chunk, int worker) {
    const Part& part = parts[static_cast<size_t>(chunk)];
    const Task& task = tasks_[part.task];
    TaskScratch scratch(work, task, scratch_[static_cast<size_t>(worker)].task);
    scratch.TakeQueries(kernels_, work, task);
    part.state.Reset(scratch.tile.rows, stride);
    scratch.tile.SetState(part.state.mixed, part.state.sum, part.state.largest);
    AttendSegment(work, task, part.segment, scratch);
  });
  auto part = parts.begin();
  for (size_t t = 0; t < tasks_.size(); ++t) {
    const TaskScratch scratch(work, tasks_[t], scratch_[0].task);
    scratch.BeginTotal(work, tasks_[t]);
    for (; part != parts.end() && part->task == t; ++part) scratch.AddToTotal(kernels_, part->state);
    scratch.StoreTotal(work, tasks_[t]);
  }
}

void Attention::Run(const Work& work) {
  tasks_.clear();
  int64_t all_rows = 0;
  for (const SequenceRows& sequence : work.sequences) all_rows += sequence.num_rows;
  bool small = true;
  for (size_t s = 0; s < work.sequences.size(); ++s) {
    const int64_t most_rows = work.Pairs(work.sequences[s]) ? kPairTaskRows : kTaskRows;
    const bool plenty = all_rows * work.share() * work.kv_heads > 8 * pool_.threads() * most_rows;
    const int64_t step = std::max<int64_t>(1, (plenty ? most_rows : most_rows / 2) / work.share());
    const int64_t rows = work.sequences[s].num_rows;
    small = small && rows * work.share() <= kMostSplitRows;
    // Last blocks first: they see the most keys, and small tasks at the end even out the workers.
    for (int64_t block = CeilDiv(rows, step) - 1; block >= 0; --block) {
      for (int64_t head = 0; head < work.kv_heads; ++head) {
        tasks_.push_back({static_cast<int64_t>(s), head, block * step, std::min(step, rows - block * step)});
      }
    }
  }
  const auto tasks = static_cast<int64_t>(tasks_.size());
  if (small && pool_.threads() > 1 && tasks < 8 * pool_.threads()) {
    AttendSplit(work);
    return;
  }
  pool_.Run(tasks, [&](int64_t chunk, int worker) { AttendTask(work, tasks_[static_cast<size_t>(chunk)], worker); });
}

void Attention::Paged(const CpuKvCache& cache, int64_t layer, const StepInputs& step, const AttentionParams& params,
                      MatrixView q, MatrixView out) {
  Work work;
  work.sequences = step.sequences;
  work.params = params;
  work.sinks = View(params.sinks);
  work.precise_rows = params.precision == RowPrecision::kPrecise ? step.rows : step.precise_rows;
  work.may_pair = mode_ == InputPrecision::kInt8 && kernels_.attend_pairs != nullptr;
  work.q = q;
  work.out = out;
  work.head_dim = cache.shape().head_dim;
  work.kv_heads = cache.shape().kv_heads;
  work.block_len = cache.shape().block_len;
  work.key_stride = cache.key_stride();
  work.cache = &cache;
  work.layer = layer;
  Run(work);
}

void Attention::Encoder(const EncoderInputs& inputs, const StepInputs& step, const AttentionParams& params,
                        MatrixView out) {
  Work work;
  work.sequences = step.sequences;
  work.params = params;
  work.sinks = View(params.sinks);
  work.precise_rows = params.precision == RowPrecision::kPrecise ? step.rows : step.precise_rows;
  work.may_pair = mode_ == InputPrecision::kInt8 && kernels_.attend_pairs != nullptr;
  work.q = inputs.q;
  work.out = out;
  work.head_dim = inputs.head_dim;
  work.kv_heads = inputs.k.cols / inputs.head_dim;
  work.block_len = kernels_.panel;
  work.key_stride = kernels_.panel;
  work.k = inputs.k;
  work.v = inputs.v;
  Run(work);
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

void Attention::Store(const CpuKvCache& cache, int64_t layer, std::span<const SequenceRows> sequences, MatrixView k,
                      MatrixView v) {
  const KvShape& shape = cache.shape();
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
      StorePlace place = {&cache, cache.Keys(layer, block, head), cache.Values(layer, block, head),
                          cache.Scales(layer, block, head), 0};
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
