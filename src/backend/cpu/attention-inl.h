// Attention of a task's rows over one tile of keys, and the joining of segments (AttentionTile).
//
// s = q . k^T and mixed += p . v are the f32 tile product, so every sum runs in one order: dimensions ascending, then
// keys ascending. Keys that a row does not see leave its state as it was: the maximum stays, the factor is e^0 = 1,
// every p is 0. Limited by FMA for many rows, by reading keys and values for few.
#pragma once

#include "backend/cpu/f32_product-inl.h"

namespace pensieve::backend::cpu::PENSIEVE_ISA {

static constexpr float kLaneNumbers[16] = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
PENSIEVE_INLINE F32 LaneNumbers(int64_t first) { return Load(kLaneNumbers) + Set(static_cast<float>(first)); }

// Keys of block b, and the same in whole vectors.
PENSIEVE_INLINE int64_t KeysOf(const AttentionTile& t, int64_t b) {
  const int64_t left = t.num_keys - b * t.block_len;
  return left < t.block_len ? left : t.block_len;
}
PENSIEVE_INLINE int64_t WholeVectors(int64_t n) { return (n + kLanes - 1) / kLanes * kLanes; }

// The largest of a row's scores of one block, which are capped and masked on the way.
PENSIEVE_INLINE F32 PrepareScores(const AttentionTile& t, int64_t r, int64_t b, float* scores, F32 largest) {
  const int64_t columns = WholeVectors(KeysOf(t, b));
  const int64_t first = t.first_seen[r] - b * t.block_len;
  const int64_t seen = t.end_seen[r] - b * t.block_len;
  const int64_t end = seen < t.block_len ? seen : t.block_len;  // beyond is padding
  if (first <= 0 && end >= columns && t.softcap <= 0.0f) {
    for (int64_t j = 0; j < columns; j += kLanes) largest = Max(largest, Load(scores + j));
    return largest;
  }
  const F32 first_lane = Set(static_cast<float>(first));
  const F32 end_lane = Set(static_cast<float>(end));
  const F32 unseen = Set(-__builtin_inff());
  for (int64_t j = 0; j < columns; j += kLanes) {
    F32 s = Load(scores + j);
    if (t.softcap > 0.0f) s = Set(t.softcap) * Tanh(s * Set(1.0f / t.softcap));
    const F32 key = LaneNumbers(j);
    s = IfLess(key, first_lane, unseen, IfLess(key, end_lane, s, unseen));
    Store(scores + j, s);
    largest = Max(largest, s);
  }
  return largest;
}

// Scores of the first `blocks` blocks become exponentials, and the row's state that of more keys.
PENSIEVE_INLINE void AttendRow(const AttentionTile& t, int64_t r, int64_t blocks) {
  float* scores = t.scores + r * t.score_stride;
  F32 largest = Set(t.largest[r]);
  for (int64_t b = 0; b < blocks; ++b) largest = PrepareScores(t, r, b, scores + b * t.key_stride, largest);
  const float after = MaxLanes(largest);
  const F32 center = Set(after);
  F32 sums = Zero();
  for (int64_t b = 0; b < blocks; ++b) {
    const int64_t columns = WholeVectors(KeysOf(t, b));
    for (int64_t j = b * t.key_stride; j < b * t.key_stride + columns; j += kLanes) {
      const F32 p = Exp(Load(scores + j) - center);
      Store(scores + j, p);
      sums = sums + p;
    }
  }
  const F32 factor = Exp(Set(t.largest[r] - after));
  t.sum[r] = t.sum[r] * Lane(factor, 0) + SumLanes(sums);
  t.largest[r] = after;
  float* mixed = t.mixed + r * t.value_stride;
  if (Lane(factor, 0) == 1.0f) return;
  for (int64_t d = 0; d < t.value_stride; d += kLanes) Store(mixed + d, Load(mixed + d) * factor);
}

// C = A B, or added to C, a slice of the depth at a time; and before every slice the request for as much memory from
// `ahead` on, null for none: few rows are multiplied faster than their keys and values are read, and a core waits for
// no more than some sixteen lines at once.
template <bool kAdd, typename T>
PENSIEVE_INLINE void MultiplyAsking(const F32Operands<T>& o, int64_t rows, int64_t columns, const void* ahead) {
  constexpr int64_t kSliceBytes = 2048;
  const int64_t row_bytes = o.b_stride * static_cast<int64_t>(sizeof(T));
  const int64_t slice = ahead == nullptr || row_bytes >= kSliceBytes ? o.depth : kSliceBytes / row_bytes;
  for (int64_t k = 0; k < o.depth; k += slice) {
    const int64_t depth = o.depth - k < slice ? o.depth - k : slice;
    const auto* wanted = static_cast<const uint8_t*>(ahead) + k * row_bytes;
    const int64_t bytes = ahead == nullptr ? 0 : depth * row_bytes;
    for (int64_t i = 0; i < bytes; i += kCacheLine) __builtin_prefetch(wanted + i, 0, 3);
    const F32Operands<T> part = {o.a + k, o.a_stride, o.b + k * o.b_stride, o.b_stride, depth, o.c, o.c_stride};
    kAdd || k > 0 ? F32Columns<true>(part, rows, columns) : F32Columns<false>(part, rows, columns);
  }
}

template <typename T>
PENSIEVE_INLINE void AttendWith(const AttentionTile& t) {
  // Pieces are read in this order: keys of all blocks, values of all blocks, what comes after the tile.
  const bool asks = sizeof(T) == 2;
  const int64_t all_blocks = (t.num_keys + t.block_len - 1) / t.block_len;
  const auto ahead_of_keys = [&](int64_t b) -> const void* {
    return !asks ? nullptr : b + 1 < all_blocks ? t.keys[b + 1] : t.values[0];
  };
  const auto ahead_of_values = [&](int64_t b) -> const void* {
    return !asks ? nullptr : b + 1 < all_blocks ? t.values[b + 1] : t.ahead;
  };

  // Rows before first_row[b] are too early to see any key of block b: they are spared its products.
  int64_t first_row[AttentionTile::kMostBlocks];
  int64_t blocks = 0;
  for (int64_t r = 0; blocks < AttentionTile::kMostBlocks && blocks * t.block_len < t.num_keys; ++blocks) {
    while (r < t.rows && t.end_seen[r] <= blocks * t.block_len) ++r;
    first_row[blocks] = r;
    const F32Operands<T> scores = {t.q,           t.q_stride, static_cast<const T*>(t.keys[blocks]),
                                   t.key_stride,  t.head_dim, t.scores + blocks * t.key_stride,
                                   t.score_stride};
    MultiplyAsking<false>(scores.At(r, 0), t.rows - r, WholeVectors(KeysOf(t, blocks)), ahead_of_keys(blocks));
  }
  int64_t seen = 0;
  for (int64_t r = 0; r < t.rows; ++r) {
    while (seen < blocks && first_row[seen] <= r) ++seen;
    if (seen > 0) AttendRow(t, r, seen);
  }
  for (int64_t b = 0; b < blocks;) {
    // Neighbouring blocks whose keys follow one another, in scores and in values, are one product.
    const T* values = static_cast<const T*>(t.values[b]);
    int64_t end = b + 1;
    while (end < blocks && t.key_stride == t.block_len && first_row[end] == first_row[b] &&
           static_cast<const T*>(t.values[end]) == values + (end - b) * t.block_len * t.value_stride) {
      ++end;
    }
    const int64_t depth = (end - 1 - b) * t.block_len + KeysOf(t, end - 1);
    const F32Operands<T> mixed = {
        t.scores + b * t.key_stride, t.score_stride, values, t.value_stride, depth, t.mixed, t.value_stride};
    MultiplyAsking<true>(mixed.At(first_row[b], 0), t.rows - first_row[b], t.value_stride, ahead_of_values(b));
    b = end;
  }
}

static void Attend(const AttentionTile& t) { t.halves ? AttendWith<uint16_t>(t) : AttendWith<float>(t); }

static void MergeSegments(const float* mixed, float sum, float largest, int64_t n, float* mixed_total, float* sum_total,
                          float* largest_total) {
  const float after = largest > *largest_total ? largest : *largest_total;
  const F32 old_factor = Exp(Set(*largest_total - after));
  const F32 new_factor = Exp(Set(largest - after));
  for (int64_t d = 0; d < n; d += kLanes) {
    Store(mixed_total + d, Fma(Load(mixed + d), new_factor, Load(mixed_total + d) * old_factor));
  }
  *sum_total = *sum_total * Lane(old_factor, 0) + sum * Lane(new_factor, 0);
  *largest_total = after;
}

static void FromF16(const uint16_t* x, int64_t n, float* out) {
  for (int64_t i = 0; i < n; i += kLanes) Store(out + i, LoadF16(x + i));
}

static void ToF16(const float* x, int64_t n, uint16_t* out) {
  for (int64_t i = 0; i < n; i += kLanes) StoreF16(out + i, Load(x + i));
}

static void FromI8(const int8_t* x, int64_t n, float* out) {
  for (int64_t i = 0; i < n; i += kLanes) Store(out + i, LoadI8(x + i));
}

}  // namespace pensieve::backend::cpu::PENSIEVE_ISA
