// f32 activations to integer planes, one row at a time (QuantRow). A row's numbers depend on nothing but the row.
//
// The scale of a group is its largest magnitude / 16256 in fine rows: v = round(x / scale) = low + 128 * high, low in
// [-64, 63]. In coarse rows it is the largest magnitude outside the big quads / 127, or what keeps the largest of all
// within 16256, whichever is more.
#pragma once

#include "backend/cpu/quant_product-inl.h"

namespace pensieve::backend::cpu::PENSIEVE_ISA {

inline constexpr float kMostFine = 16256.0f;  // 127 * 128
inline constexpr int kMostQuads = 16;

// Up to 64 columns in quad order, and each quad's largest magnitude. `poison` is 0, or NaN when some x is not finite.
PENSIEVE_INLINE void GatherGroup(const float* x, int group, float* ordered, float* quad_max, float* poison) {
  for (int k = 0; k < group; k += 8) {
    for (int i = 0; i < 4; ++i) {
      ordered[k + i] = x[k + 2 * i];
      ordered[k + 4 + i] = x[k + 2 * i + 1];
    }
  }
  F32 nought = Zero();
  float magnitudes[64];
  for (int k = 0; k < group; k += kLanes) {
    const F32 v = Load(ordered + k);
    nought = Fma(v, Zero(), nought);
    Store(magnitudes + k, Abs(v));
  }
  *poison = SumLanes(nought);
  for (int q = 0; q < group / 4; ++q) {
    const float* m = magnitudes + 4 * q;
    const float a = m[0] > m[1] ? m[0] : m[1];
    const float b = m[2] > m[3] ? m[2] : m[3];
    quad_max[q] = a > b ? a : b;
  }
}

// The `count` quads with the largest values, first ones first among equals; returns the largest value of the others.
PENSIEVE_INLINE float PickBigQuads(float* quad_max, int quads, int count, uint8_t* index) {
  for (int b = 0; b < count; ++b) {
    int best = 0;
    for (int q = 1; q < quads; ++q) {
      if (quad_max[q] > quad_max[best]) best = q;
    }
    index[b] = static_cast<uint8_t>(best);
    quad_max[best] = -1.0f;
  }
  float rest = 0.0f;
  for (int q = 0; q < quads; ++q) rest = quad_max[q] > rest ? quad_max[q] : rest;
  return rest;
}

PENSIEVE_INLINE float LargestOf(const float* values, int n) {
  float largest = 0.0f;
  for (int i = 0; i < n; ++i) largest = values[i] > largest ? values[i] : largest;
  return largest;
}

// v = round(x / scale) into planes; returns the sum of v. high = null: all of v goes into `low`.
PENSIEVE_INLINE int32_t QuantizeGroup(const float* ordered, int group, float inverse, int8_t* low, int8_t* high) {
  I32 sum = SetInt(0);
  for (int k = 0; k < group; k += kLanes) {
    const I32 v = RoundToInt(Load(ordered + k) * Set(inverse));
    sum = AddInt(sum, v);
    if (high == nullptr) {
      StoreI8(low + k, v);
      continue;
    }
    // Arithmetic shift of v + 64 by 7, as a float floor would be: biased into the positive first.
    const I32 up = AddInt(ShiftRight<7>(AddInt(v, SetInt(64 + (1 << 20)))), SetInt(-(1 << 13)));
    StoreI8(high + k, up);
    StoreI8(low + k, SubInt(v, ShiftLeft<7>(up)));
  }
  int32_t lanes[kLanes];
  StoreInt(lanes, sum);
  int32_t total = 0;
  for (int i = 0; i < kLanes; ++i) total += lanes[i];
  return total;
}

// Below this a group counts as zero: the inverse of its scale would not be finite.
inline constexpr float kLeastScale = 1e-35f;

PENSIEVE_INLINE void QuantizeFineGroup(const float* x, int64_t at, int64_t g, int group, const QuantRow& out) {
  float ordered[64];
  float quad_max[kMostQuads];
  float poison = 0.0f;
  GatherGroup(x, group, ordered, quad_max, &poison);
  float scale = LargestOf(quad_max, group / 4) / kMostFine;
  if (scale < kLeastScale) scale = 0.0f;
  const float inverse = scale > 0.0f ? 1.0f / scale : 0.0f;
  const int32_t sum = QuantizeGroup(ordered, group, inverse, out.low + at, out.high + at);
  out.scales[g] = scale + poison;
  out.sums[g] = (scale + poison) * static_cast<float>(sum);
}

PENSIEVE_INLINE void QuantizeCoarseGroup(const float* x, int64_t at, int64_t g, int group, const QuantRow& out) {
  float ordered[64];
  float quad_max[kMostQuads];
  float poison = 0.0f;
  GatherGroup(x, group, ordered, quad_max, &poison);
  const float most = LargestOf(quad_max, group / 4);
  uint8_t* index = out.big_index + g * kBigQuads;
  int32_t* value = out.big_value + g * kBigQuads;
  for (int b = 0; b < kBigQuads; ++b) {
    index[b] = 0;
    value[b] = 0;
  }
  const int count = BigQuads(group);
  const float rest = PickBigQuads(quad_max, group / 4, count, index);
  float scale = rest / 127.0f > most / kMostFine ? rest / 127.0f : most / kMostFine;
  if (scale < kLeastScale) scale = 0.0f;
  const float inverse = scale > 0.0f ? 1.0f / scale : 0.0f;
  // The big quads apart, into both planes; then nought in their place.
  int32_t sum = 0;
  int8_t big_low[kBigQuads][4];
  for (int b = 0; b < count; ++b) {
    int8_t parts[2][kLanes];
    float padded[16] = {0};
    for (int i = 0; i < 4; ++i) padded[i] = ordered[4 * index[b] + i];
    sum += QuantizeGroup(padded, kLanes, inverse, parts[0], parts[1]);
    memcpy(big_low[b], parts[0], 4);
    memcpy(&value[b], parts[1], 4);
    for (int i = 0; i < 4; ++i) ordered[4 * index[b] + i] = 0.0f;
  }
  sum += QuantizeGroup(ordered, group, inverse, out.low + at, nullptr);
  for (int b = 0; b < count; ++b) memcpy(out.low + at + 4 * index[b], big_low[b], 4);
  out.scales[g] = scale + poison;
  out.sums[g] = (scale + poison) * static_cast<float>(sum);
}

// cols a multiple of group, group 16, 32 or 64.
static void QuantizeRow(const float* x, int64_t cols, int group, bool fine, const QuantRow& out) {
  for (int64_t k = 0, g = 0; k < cols; k += group, ++g) {
    fine ? QuantizeFineGroup(x + k, k, g, group, out) : QuantizeCoarseGroup(x + k, k, g, group, out);
  }
}

}  // namespace pensieve::backend::cpu::PENSIEVE_ISA
