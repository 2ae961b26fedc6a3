// Attention of a block of rows over one tile of keys, and the joining of segments (AttentionTile).
//
// s = q . k^T and mixed += p . v are the f32 tile product, so every sum runs in one order: dimensions ascending, then
// keys ascending. A tile that a row does not see leaves its state as it was: the maximum stays, the factor is
// e^0 = 1, every p is 0. Limited by FMA for many rows, by reading keys and values for few.
#pragma once

#include "backend/cpu/f32_product-inl.h"

namespace pensieve::backend::cpu::PENSIEVE_ISA {

PENSIEVE_INLINE F32 LaneNumbers(int64_t first) {
  float numbers[kLanes];
  for (int i = 0; i < kLanes; ++i) numbers[i] = static_cast<float>(first + i);
  return Load(numbers);
}

static void AttendRow(const AttentionTile& t, int64_t r, int64_t columns) {
  float* scores = t.scores + r * t.key_stride;
  const F32 first = Set(static_cast<float>(t.first_seen[r]));
  const F32 end = Set(static_cast<float>(t.end_seen[r]));
  const F32 unseen = Set(-__builtin_inff());
  F32 largest = Set(t.largest[r]);
  for (int64_t j = 0; j < columns; j += kLanes) {
    F32 s = Load(scores + j);
    if (t.softcap > 0.0f) s = Set(t.softcap) * Tanh(s * Set(1.0f / t.softcap));
    const F32 key = LaneNumbers(j);
    s = IfLess(key, first, unseen, IfLess(key, end, s, unseen));
    Store(scores + j, s);
    largest = Max(largest, s);
  }
  const float after = MaxLanes(largest);
  const F32 center = Set(after);
  F32 sums = Zero();
  for (int64_t j = 0; j < columns; j += kLanes) {
    const F32 p = Exp(Load(scores + j) - center);
    Store(scores + j, p);
    sums = sums + p;
  }
  const F32 factor = Exp(Set(t.largest[r] - after));
  t.sum[r] = t.sum[r] * Lane(factor, 0) + SumLanes(sums);
  t.largest[r] = after;
  float* mixed = t.mixed + r * t.value_stride;
  if (Lane(factor, 0) == 1.0f) return;
  for (int64_t d = 0; d < t.value_stride; d += kLanes) Store(mixed + d, Load(mixed + d) * factor);
}

static void Attend(const AttentionTile& t) {
  const int64_t columns = (t.num_keys + kLanes - 1) / kLanes * kLanes;
  for (int64_t r = 0; r < t.rows; ++r) {
    for (int64_t j = 0; j < columns; j += kLanes) Store(t.scores + r * t.key_stride + j, Zero());
  }
  F32Tile(t.q, t.q_stride, t.rows, t.keys, t.key_stride, t.head_dim, columns, t.scores, t.key_stride);
  for (int64_t r = 0; r < t.rows; ++r) AttendRow(t, r, columns);
  F32Tile(t.scores, t.key_stride, t.rows, t.values, t.value_stride, t.num_keys, t.value_stride, t.mixed, t.value_stride);
}

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
