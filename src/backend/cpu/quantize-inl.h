// f32 activations to integer planes, one row at a time (QuantRow). A row's numbers depend on nothing but the row.
//
// The scale of a group is its largest magnitude / 16256 in precise rows: v = round(x / scale) = low + 128 * high, low in
// [-64, 63]. In coarse rows it is the largest magnitude outside the big quads / 127, or what keeps the largest of all
// within 16256, whichever is more.
#pragma once

#include "backend/cpu/quant_product-inl.h"

namespace pensieve::backend::cpu::PENSIEVE_ISA {

inline constexpr float kPreciseLimit = 16256.0f;  // 127 * 128
inline constexpr int kMostQuads = 16;
// Below this a group counts as zero: the inverse of its scale would not be finite.
inline constexpr float kLeastScale = 1e-35f;

PENSIEVE_INLINE void QuantizePreciseGroup(const float* x, int64_t at, int64_t g, int group, const QuantRow& out) {
  F32 largest = Zero();
  F32 nan_or_zero = Zero();
  for (int k = 0; k < group; k += kLanes) {
    const F32 v = Load(x + k);
    largest = Max(largest, Abs(v));
    nan_or_zero = Fma(v, Zero(), nan_or_zero);
  }
  const float not_finite = SumLanes(nan_or_zero);
  float scale = MaxLanes(largest) / kPreciseLimit;
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
  const float exposed = scale + not_finite;
  const int32_t total = SumInts(sum);
  out.groups[g] = {exposed, exposed * static_cast<float>(total), 0.0f, total, {}, {}};
}

// So that kCenter, two bits wide, times a scale is exact: scales of coarse rows have 22 bits.
PENSIEVE_INLINE F32 RoundUpTo22Bits(F32 x) { return BitsToFloat(And(AddInt(FloatBits(x), SetInt(3)), SetInt(~3))); }

// kLanes groups of a coarse row at a time, a lane each, for what is decided per group.
struct GroupBatch {
  float values[kLanes][64];              // in quad order
  int32_t quad_max[kLanes][kMostQuads];  // bits of the largest magnitude of every quad; -1 beyond the group
  float exposed[kLanes];                 // the scale, or NaN when some value is not finite
  float inverse[kLanes];
  int32_t big[kMostBigQuads][kLanes];  // the quads with the largest values
};

PENSIEVE_INLINE void GatherGroup(const float* x, int group, int lane, GroupBatch* batch) {
  for (int k = 0; k < group; k += kLanes) {
    const F32 v = LoadInQuadOrder(x, k);
    Store(batch->values[lane] + k, v);
    StoreFourths(batch->quad_max[lane] + k / 4, MaxOfFours(And(FloatBits(v), SetInt(0x7fffffff))));
  }
}

// A magnitude's bits order like the number itself, whatever is not finite last; the lowest four give way to the quad's
// number. Quads closer than 2^-19 may swap places, which changes the rounding of their scale at most.
PENSIEVE_INLINE void ChooseScales(int group, GroupBatch* batch) {
  constexpr int kPlaces = kMostBigQuads + 1;
  const int count = BigQuads(group);
  I32 best[kPlaces];  // descending
  PENSIEVE_UNROLL
  for (int place = 0; place < kPlaces; ++place) best[place] = SetInt(0);
  for (int first = 0; first < group / 4; first += kLanes) {
    I32 square[kLanes];
    PENSIEVE_UNROLL
    for (int i = 0; i < kLanes; ++i) square[i] = LoadInt(batch->quad_max[i] + first);
    Transpose(square);
    PENSIEVE_UNROLL
    for (int i = 0; i < kLanes; ++i) {
      I32 key = Or(And(square[i], SetInt(~15)), SetInt(first + i));
      PENSIEVE_UNROLL
      for (int place = 0; place < kPlaces; ++place) {
        const I32 loser = MinInt(best[place], key);
        best[place] = MaxInt(best[place], key);
        key = loser;
      }
    }
  }
  const auto bound = [](I32 key) { return BitsToFloat(Or(key, SetInt(15))); };  // not below the magnitude
  const F32 rest = bound(best[count]) * Set(1.0f / 127.0f);
  const F32 most = bound(best[0]) * Set(1.0f / kPreciseLimit);
  F32 scale = RoundUpTo22Bits(Max(rest, most));
  scale = IfLess(scale, Set(kLeastScale), Zero(), scale);
  Store(batch->inverse, IfLess(Zero(), scale, Set(1.0f) / scale, Zero()));
  Store(batch->exposed, Fma(bound(best[0]), Zero(), scale));
  for (int b = 0; b < count; ++b) StoreInt(batch->big[b], And(best[b], SetInt(15)));
}

PENSIEVE_INLINE void QuantizeCoarseGroup(const GroupBatch& batch, int lane, int group, int8_t* low, QuantGroup* out) {
  const F32 inverse = Set(batch.inverse[lane]);
  I32 sum = SetInt(0);
  int32_t v[64];
  for (int k = 0; k < group; k += kLanes) {
    const I32 rounded = RoundToInt(Load(batch.values[lane] + k) * inverse);
    sum = AddInt(sum, rounded);
    StoreInt(v + k, rounded);
    StoreI8(low + k, rounded);
  }
  const float scale = batch.exposed[lane];
  const int32_t total = SumInts(sum);
  *out = {scale, scale * static_cast<float>(total), -kCenter * scale, total, {}, {}};
  for (int b = 0; b < BigQuads(group); ++b) {
    int8_t high[4];
    const int quad = batch.big[b][lane];
    for (int i = 0; i < 4; ++i) {
      const int32_t value = v[4 * quad + i];
      high[i] = static_cast<int8_t>((value + 64) >> 7);
      low[4 * quad + i] = static_cast<int8_t>(value - 128 * high[i]);
    }
    out->big_offset[b] = static_cast<uint16_t>(quad * kPanel * 4);
    memcpy(out->big_value + b, high, 4);
  }
}

static void QuantizeCoarseRow(const float* x, int64_t cols, int group, const QuantRow& out) {
  GroupBatch batch;
  memset(batch.quad_max, 0xff, sizeof(batch.quad_max));
  for (int64_t g = 0; g < cols / group; g += kLanes) {
    const int64_t left = cols / group - g;
    const int lanes = left < kLanes ? static_cast<int>(left) : kLanes;
    for (int i = 0; i < lanes; ++i) GatherGroup(x + (g + i) * group, group, i, &batch);
    ChooseScales(group, &batch);
    for (int i = 0; i < lanes; ++i) {
      QuantizeCoarseGroup(batch, i, group, out.low + (g + i) * group, out.groups + g + i);
    }
  }
}

// cols a multiple of group, group 16, 32 or 64.
static void QuantizeRow(const float* x, int64_t cols, int group, bool precise, const QuantRow& out) {
  if (!precise) return QuantizeCoarseRow(x, cols, group, out);
  for (int64_t k = 0, g = 0; k < cols; k += group, ++g) QuantizePreciseGroup(x + k, k, g, group, out);
}

}  // namespace pensieve::backend::cpu::PENSIEVE_ISA
