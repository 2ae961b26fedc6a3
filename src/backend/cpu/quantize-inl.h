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
// Below this a group counts as zero: the inverse of its scale would not be finite.
inline constexpr float kLeastScale = 1e-35f;

// Up to 64 columns in quad order.
struct OrderedGroup {
  float values[64];
  float quad_max[kMostQuads];  // largest magnitude of each quad
  float poison;                // 0, or NaN when some value is not finite
};

PENSIEVE_INLINE void GatherGroup(const float* x, int group, OrderedGroup* out) {
  F32 nought = Zero();
  for (int k = 0; k < group; k += kLanes) {
    const F32 v = LoadInQuadOrder(x, k);
    Store(out->values + k, v);
    nought = Fma(v, Zero(), nought);
    float fours[kLanes];
    Store(fours, MaxOfFours(Abs(v)));
    for (int i = 0; i < kLanes / 4; ++i) out->quad_max[k / 4 + i] = fours[4 * i];
  }
  out->poison = SumLanes(nought);
}

struct ThreeLargest {
  int quads[3];
};

// By a running insertion without branches: a magnitude's bits order like the number itself, and the lowest four give way
// to the quad's number. Quads closer than 2^-19 may swap places, which changes the rounding of their scale at most.
PENSIEVE_INLINE ThreeLargest FindThreeLargest(const float* quad_max, int quads) {
  int32_t best[3] = {0, 0, 0};
  for (int q = 0; q < quads; ++q) {
    int32_t key;
    memcpy(&key, quad_max + q, sizeof(key));
    key = (key & ~15) | q;
    for (int place = 0; place < 3; ++place) {
      const int32_t loser = key < best[place] ? key : best[place];
      best[place] = key < best[place] ? best[place] : key;
      key = loser;
    }
  }
  return {{best[0] & 15, best[1] & 15, best[2] & 15}};
}

PENSIEVE_INLINE int32_t SumInts(I32 x) {
  int32_t lanes[kLanes];
  StoreInt(lanes, x);
  uint32_t total = 0;  // wraps where values were not finite
  for (int i = 0; i < kLanes; ++i) total += static_cast<uint32_t>(lanes[i]);
  return static_cast<int32_t>(total);
}

PENSIEVE_INLINE void QuantizeFineGroup(const float* x, int64_t at, int64_t g, int group, const QuantRow& out) {
  F32 largest = Zero();
  F32 nought = Zero();
  for (int k = 0; k < group; k += kLanes) {
    const F32 v = Load(x + k);
    largest = Max(largest, Abs(v));
    nought = Fma(v, Zero(), nought);
  }
  const float poison = SumLanes(nought);
  float scale = MaxLanes(largest) / kMostFine;
  if (scale < kLeastScale) scale = 0.0f;
  const F32 inverse = Set(scale > 0.0f ? 1.0f / scale : 0.0f);
  I32 sum = SetInt(0);
  for (int k = 0; k < group; k += kLanes) {
    const I32 v = RoundToInt(LoadInQuadOrder(x, k) * inverse);
    sum = AddInt(sum, v);
    // (v + 64) >> 7 with the sign: made positive first, for the shift is logical.
    const I32 high = AddInt(ShiftRight<7>(AddInt(v, SetInt(64 + (1 << 20)))), SetInt(-(1 << 13)));
    StoreI8(out.high + at + k, high);
    StoreI8(out.low + at + k, SubInt(v, ShiftLeft<7>(high)));
  }
  const float exposed = scale + poison;
  out.groups[g] = {exposed, exposed * static_cast<float>(SumInts(sum)), 0.0f, {0, 0}, {0, 0}};
}

// So that kCenter, two bits wide, times a scale is exact.
PENSIEVE_INLINE float RoundUpTo22Bits(float x) {
  uint32_t bits;
  memcpy(&bits, &x, sizeof(bits));
  bits = (bits + 3) & ~3u;
  memcpy(&x, &bits, sizeof(x));
  return x;
}

PENSIEVE_INLINE void QuantizeCoarseGroup(const float* x, int64_t at, int64_t g, int group, const QuantRow& out) {
  OrderedGroup ordered;
  GatherGroup(x, group, &ordered);
  const int count = BigQuads(group);
  const ThreeLargest top = FindThreeLargest(ordered.quad_max, group / 4);
  const float rest = ordered.quad_max[top.quads[count]] / 127.0f;
  const float most = ordered.quad_max[top.quads[0]] / kMostFine;
  float scale = RoundUpTo22Bits(rest > most ? rest : most);
  if (scale < kLeastScale) scale = 0.0f;
  const F32 inverse = Set(scale > 0.0f ? 1.0f / scale : 0.0f);
  I32 sum = SetInt(0);
  int32_t v[64];
  for (int k = 0; k < group; k += kLanes) {
    const I32 rounded = RoundToInt(Load(ordered.values + k) * inverse);
    sum = AddInt(sum, rounded);
    StoreInt(v + k, rounded);
    StoreI8(out.low + at + k, rounded);
  }
  const float exposed = scale + ordered.poison;
  QuantGroup& header = out.groups[g];
  header = {exposed, exposed * static_cast<float>(SumInts(sum)), -kCenter * exposed, {0, 0}, {0, 0}};
  for (int b = 0; b < count; ++b) {
    int8_t high[4];
    const int quad = top.quads[b];
    for (int i = 0; i < 4; ++i) {
      const int32_t value = v[4 * quad + i];
      high[i] = static_cast<int8_t>((value + 64) >> 7);
      out.low[at + 4 * quad + i] = static_cast<int8_t>(value - 128 * high[i]);
    }
    header.big_offset[b] = quad * kPanel * 4;
    memcpy(header.big_value + b, high, 4);
  }
}

// cols a multiple of group, group 16, 32 or 64.
static void QuantizeRow(const float* x, int64_t cols, int group, bool fine, const QuantRow& out) {
  for (int64_t k = 0, g = 0; k < cols; k += group, ++g) {
    fine ? QuantizeFineGroup(x + k, k, g, group, out) : QuantizeCoarseGroup(x + k, k, g, group, out);
  }
}

}  // namespace pensieve::backend::cpu::PENSIEVE_ISA
