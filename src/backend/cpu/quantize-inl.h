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

// (v + 64) >> 7 with the sign: made positive first, for the shift is logical.
PENSIEVE_INLINE I32 UpperPart(I32 v) {
  return AddInt(ShiftRight<7>(AddInt(v, SetInt(64 + (1 << 20)))), SetInt(-(1 << 13)));
}

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
    const I32 high = UpperPart(v);
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

template <int kGroup>
PENSIEVE_INLINE void GatherGroup(const float* x, int lane, GroupBatch* batch) {
  PENSIEVE_UNROLL
  for (int k = 0; k < kGroup; k += kLanes) {
    const F32 v = LoadInQuadOrder(x, k);
    Store(batch->values[lane] + k, v);
    StoreFourths(batch->quad_max[lane] + k / 4, MaxOfFours(And(FloatBits(v), SetInt(0x7fffffff))));
  }
}

// A magnitude's bits order like the number itself, whatever is not finite last; the lowest four give way to the quad's
// number. Quads closer than 2^-19 may swap places, which changes the rounding of their scale at most.
template <int kGroup>
PENSIEVE_INLINE void ChooseScales(GroupBatch* batch) {
  constexpr int kCount = BigQuads(kGroup);
  constexpr int kQuads = kGroup / 4;
  constexpr int kKeys = kQuads < kLanes ? kQuads : kLanes;  // of one square
  I32 best[kCount + 1];                                     // descending
  PENSIEVE_UNROLL
  for (int place = 0; place <= kCount; ++place) best[place] = SetInt(0);
  for (int first = 0; first < kQuads; first += kLanes) {
    I32 square[kLanes];
    PENSIEVE_UNROLL
    for (int i = 0; i < kLanes; ++i) square[i] = LoadInt(batch->quad_max[i] + first);
    Transpose(square);
    PENSIEVE_UNROLL
    for (int i = 0; i < kKeys; ++i) {
      I32 key = Or(And(square[i], SetInt(~15)), SetInt(first + i));
      PENSIEVE_UNROLL
      for (int place = 0; place <= kCount; ++place) {
        const I32 loser = MinInt(best[place], key);
        best[place] = MaxInt(best[place], key);
        key = loser;
      }
    }
  }
  const auto bound = [](I32 key) { return BitsToFloat(Or(key, SetInt(15))); };  // not below the magnitude
  const F32 rest = bound(best[kCount]) * Set(1.0f / 127.0f);
  const F32 most = bound(best[0]) * Set(1.0f / kPreciseLimit);
  F32 scale = RoundUpTo22Bits(Max(rest, most));
  scale = IfLess(scale, Set(kLeastScale), Zero(), scale);
  Store(batch->inverse, IfLess(Zero(), scale, Set(1.0f) / scale, Zero()));
  Store(batch->exposed, Fma(bound(best[0]), Zero(), scale));
  for (int b = 0; b < kCount; ++b) StoreInt(batch->big[b], And(best[b], SetInt(15)));
}

// Every value is split as if its quad were a big one, and only big quads take the halves: vectors do that sooner than
// single values.
template <int kGroup>
PENSIEVE_INLINE void QuantizeCoarseGroup(const GroupBatch& batch, int lane, int8_t* low, QuantGroup* out) {
  const F32 inverse = Set(batch.inverse[lane]);
  I32 sum = SetInt(0);
  int8_t upper[kGroup];
  int8_t lower[kGroup];
  PENSIEVE_UNROLL
  for (int k = 0; k < kGroup; k += kLanes) {
    const I32 v = RoundToInt(Load(batch.values[lane] + k) * inverse);
    const I32 high = UpperPart(v);
    sum = AddInt(sum, v);
    StoreI8(low + k, v);
    StoreI8(upper + k, high);
    StoreI8(lower + k, SubInt(v, ShiftLeft<7>(high)));
  }
  const float scale = batch.exposed[lane];
  const int32_t total = SumInts(sum);
  *out = {scale, scale * static_cast<float>(total), -kCenter * scale, total, {}, {}};
  PENSIEVE_UNROLL
  for (int b = 0; b < BigQuads(kGroup); ++b) {
    const int quad = batch.big[b][lane];
    memcpy(low + 4 * quad, lower + 4 * quad, 4);
    memcpy(out->big_value + b, upper + 4 * quad, 4);
    out->big_offset[b] = static_cast<uint16_t>(quad * kPanel * 4);
  }
}

template <int kGroup>
static void QuantizeCoarseRow(const float* x, int64_t cols, const QuantRow& out) {
  GroupBatch batch;
  memset(batch.quad_max, 0xff, sizeof(batch.quad_max));
  for (int64_t g = 0; g < cols / kGroup; g += kLanes) {
    const int64_t left = cols / kGroup - g;
    const int lanes = left < kLanes ? static_cast<int>(left) : kLanes;
    for (int i = 0; i < lanes; ++i) GatherGroup<kGroup>(x + (g + i) * kGroup, i, &batch);
    ChooseScales<kGroup>(&batch);
    for (int i = 0; i < lanes; ++i) {
      QuantizeCoarseGroup<kGroup>(batch, i, out.low + (g + i) * kGroup, out.groups + g + i);
    }
  }
}

// cols a multiple of group, group 16, 32 or 64.
static void QuantizeRow(const float* x, int64_t cols, int group, bool precise, const QuantRow& out) {
  if (!precise) {
    switch (group) {
      case 16: return QuantizeCoarseRow<16>(x, cols, out);
      case 32: return QuantizeCoarseRow<32>(x, cols, out);
      default: return QuantizeCoarseRow<64>(x, cols, out);
    }
  }
  for (int64_t k = 0, g = 0; k < cols; k += group, ++g) QuantizePreciseGroup(x + k, k, g, group, out);
}

}  // namespace pensieve::backend::cpu::PENSIEVE_ISA
