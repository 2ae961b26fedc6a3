// Attention of coarse rows over one tile of keys, in pairs of 16-bit integers (AttentionPairs): twice the products of f32
// an instruction (AVX2: one and a half times), at an error below that of 8-bit activations by an order of magnitude.
//
//   score      = f32(sum over d of q[d] * k[d], exact) * query_scale * key_scale
//   p          = e^(score - largest), in f32 as attention-inl.h makes it; its sum is that of the softmax
//   p'         = p * value_scale, rounded with a scale of its own for the row's tile
//   mixed     += f32(sum over keys of p' * v, exact) * p'_scale
// Integers are exact, and every scale depends on one key, one value or one row and its tile alone: results depend neither
// on chunks nor on company. Numbers that are not finite make their scale NaN, and with it all that sees them.
//
// Limited by the two integer ports: 6 rows by 2 vectors are 12 sums, 12 dot products for 8 loads. A panel of 2 vectors of
// keys (or of value dimensions) is 8 KB for 128 dimensions (keys) and stays in the L1 cache while all rows pass.
#pragma once

#include "backend/cpu/attention-inl.h"

namespace pensieve::backend::cpu::PENSIEVE_ISA {

PENSIEVE_INLINE int32_t LoadPair(const int16_t* p) {
  int32_t pair;
  memcpy(&pair, p, sizeof(pair));
  return pair;
}

// Two vectors of integers as pairs: `even` in the lower halves.
PENSIEVE_INLINE I32 JoinPairs(I32 even, I32 odd) { return Or(And(even, SetInt(0xffff)), ShiftLeft<16>(odd)); }

// Magnitudes from which scales are made. Below it numbers count as 0, for 1 / scale would not be finite.
inline constexpr float kLeastMagnitude = 1e-30f;

// e^x for x <= 0, 4e-6 of itself: 2^n times a polynomial for 2^f, n + f = x / ln 2, n rounded by an addition that leaves
// n + 127 in the last bits. Below -87 it is as good as 0 (2^-126); NaN stays NaN.
PENSIEVE_INLINE F32 ExpOfNonPositive(F32 x) {
  const F32 rounder = Set(12582912.0f + 127.0f);
  const F32 y = Max(Set(-126.0f), x * Set(1.44269504f));
  const F32 shifted = y + rounder;
  const F32 f = y - (shifted - rounder);
  F32 p = Set(0.00957009848f);
  p = Fma(p, f, Set(0.0559178591f));
  p = Fma(p, f, Set(0.240247443f));
  p = Fma(p, f, Set(0.693121791f));
  p = Fma(p, f, Set(0.999999285f));
  return p * BitsToFloat(ShiftLeft<23>(FloatBits(shifted)));
}

// limit / magnitude, or 0 for next to nothing.
PENSIEVE_INLINE F32 InverseScale(F32 magnitude, float limit) {
  return IfLess(Set(kLeastMagnitude), magnitude, Set(limit) / magnitude, Zero());
}

// The largest magnitude seen, and whether anything was not finite: then `nan_or_zero` is NaN, else 0.
struct Magnitude {
  F32 largest = Zero();
  F32 nan_or_zero = Zero();

  PENSIEVE_MEMBER void See(F32 x) {
    largest = Max(largest, Abs(x));
    nan_or_zero = nan_or_zero + x * Zero();
  }
  PENSIEVE_MEMBER F32 Scale(float limit) const { return largest * Set(1.0f / limit) + nan_or_zero; }
};

// One row of n values, zeros up to a whole vector. The scale: x ~ scale * out.
static float PairQuery(const float* x, int64_t n, float limit, int16_t* out) {
  Magnitude m;
  for (int64_t i = 0; i < n; i += kLanes) m.See(n - i < kLanes ? LoadN(x + i, static_cast<int>(n - i)) : Load(x + i));
  const float largest = MaxLanes(m.largest);
  const F32 inverse = InverseScale(Set(largest), limit);
  for (int64_t i = 0; i < n; i += kLanes) {
    StoreI16(out + i, RoundToInt((n - i < kLanes ? LoadN(x + i, static_cast<int>(n - i)) : Load(x + i)) * inverse));
  }
  return largest * (1.0f / limit) + SumLanes(m.nan_or_zero);
}

// keys: [head_dim][key_stride], transposed. out: [pairs of dimensions][columns][2], from the block's first column on.
static void PairKeys(const float* keys, int64_t head_dim, int64_t key_stride, float limit, int64_t columns,
                     int16_t* out, float* scales) {
  for (int64_t j = 0; j < key_stride; j += kLanes) {
    Magnitude m;
    for (int64_t d = 0; d < head_dim; ++d) m.See(Load(keys + d * key_stride + j));
    const F32 inverse = InverseScale(m.largest, limit);
    Store(scales + j, m.Scale(limit));
    for (int64_t d = 0; d < head_dim; d += 2) {
      const I32 even = RoundToInt(Load(keys + d * key_stride + j) * inverse);
      const I32 odd = d + 1 < head_dim ? RoundToInt(Load(keys + (d + 1) * key_stride + j) * inverse) : SetInt(0);
      StoreInt(out + (d / 2 * columns + j) * 2, JoinPairs(even, odd));
    }
  }
}

PENSIEVE_INLINE F32 PairValueScale(const float* value, int64_t stride, float limit, float* scale) {
  Magnitude m;
  for (int64_t d = 0; d < stride; d += kLanes) m.See(Load(value + d));
  const float largest = MaxLanes(m.largest);
  *scale = largest * (1.0f / limit) + SumLanes(m.nan_or_zero);
  return InverseScale(Set(largest), limit);
}

// values: [tokens][stride]. out: [pairs of tokens][stride][2]; zeros up to `padded` tokens, an even number.
static void PairValues(const float* values, int64_t tokens, int64_t padded, int64_t stride, float limit, int16_t* out,
                       float* scales) {
  for (int64_t t = 0; t < padded; t += 2) {
    const float* even = values + t * stride;
    scales[t] = scales[t + 1] = 0.0f;
    const F32 even_inverse = t < tokens ? PairValueScale(even, stride, limit, scales + t) : Zero();
    const F32 odd_inverse = t + 1 < tokens ? PairValueScale(even + stride, stride, limit, scales + t + 1) : Zero();
    for (int64_t d = 0; d < stride; d += kLanes) {
      const I32 low = t < tokens ? RoundToInt(Load(even + d) * even_inverse) : SetInt(0);
      const I32 high = t + 1 < tokens ? RoundToInt(Load(even + stride + d) * odd_inverse) : SetInt(0);
      StoreInt(out + (t * stride + 2 * d), JoinPairs(low, high));
    }
  }
}

// A [rows][pairs][2] times B [pairs][columns][2].
struct PairOperands {
  const int16_t* a;
  int64_t a_stride;
  const int16_t* b;
  int64_t b_stride;
  int64_t pairs;
};

// Dots += the products of kCount pairs.
template <int kRows, int kVectors, int kCount>
PENSIEVE_INLINE void AddPairProducts(RowsAt<int16_t, kRows>& row, const int16_t* b, int64_t b_stride,
                                     I32 (&dots)[kRows][kVectors]) {
  row.KeepInRegisters();
  PENSIEVE_UNROLL
  for (int k = 0; k < kCount; ++k) {
    I32 column[kVectors];
    for (int v = 0; v < kVectors; ++v) column[v] = LoadInt(b + k * b_stride + v * kLanes * 2);
    PENSIEVE_UNROLL
    for (int r = 0; r < kRows; ++r) {
      const I32 x = SetInt(LoadPair(row[r] + 2 * k));
      for (int v = 0; v < kVectors; ++v) dots[r][v] = Dot2(dots[r][v], x, column[v]);
    }
  }
  row.Advance(2 * kCount);
}

template <int kRows, int kVectors>
PENSIEVE_INLINE void DotPairs(const PairOperands& o, I32 (&dots)[kRows][kVectors]) {
  PENSIEVE_UNROLL
  for (int i = 0; i < kRows * kVectors; ++i) dots[i / kVectors][i % kVectors] = SetInt(0);
  RowsAt<int16_t, kRows> row(o.a, o.a_stride);
  const int16_t* b = o.b;
  int64_t left = o.pairs;
  for (; left >= 4; left -= 4, b += 4 * o.b_stride) AddPairProducts<kRows, kVectors, 4>(row, b, o.b_stride, dots);
  for (; left > 0; --left, b += o.b_stride) AddPairProducts<kRows, kVectors, 1>(row, b, o.b_stride, dots);
}

// Rows [first, end) of a tile, and a panel of kVectors vectors of columns from `column` on.
struct PairPanel {
  int64_t first;
  int64_t end;
  int64_t column;
  int64_t pairs;
};

template <int kVectors>
struct ScorePairs {
  template <int kRows>
  PENSIEVE_MEMBER static void Block(const AttentionTile& t, const PairPanel& p, int64_t r) {
    const AttentionPairs& pairs = t.pairs;
    I32 dots[kRows][kVectors];
    DotPairs<kRows, kVectors>(
        {pairs.q + r * pairs.q_stride, pairs.q_stride, pairs.keys + p.column * 2, pairs.columns * 2, p.pairs}, dots);
    PENSIEVE_UNROLL
    for (int i = 0; i < kRows; ++i) {
      const F32 row_scale = Set(pairs.q_scales[r + i]);
      for (int v = 0; v < kVectors; ++v) {
        const int64_t j = p.column + v * kLanes;
        Store(t.scores + (r + i) * t.score_stride + j, ToFloat(dots[i][v]) * (row_scale * Load(pairs.key_scales + j)));
      }
    }
  }
};

// The rounded probabilities of row r lie where its scores were.
PENSIEVE_INLINE int16_t* ProbabilitiesOf(const AttentionTile& t, int64_t r) {
  return reinterpret_cast<int16_t*>(t.scores + r * t.score_stride);
}

template <int kVectors>
struct MixPairs {
  template <int kRows>
  PENSIEVE_MEMBER static void Block(const AttentionTile& t, const PairPanel& p, int64_t r) {
    const AttentionPairs& pairs = t.pairs;
    I32 dots[kRows][kVectors];
    DotPairs<kRows, kVectors>(
        {ProbabilitiesOf(t, r), t.score_stride * 2, pairs.values + p.column * 2, t.value_stride * 2, p.pairs}, dots);
    PENSIEVE_UNROLL
    for (int i = 0; i < kRows; ++i) {
      const F32 row_scale = Set(pairs.p_scales[r + i]);
      for (int v = 0; v < kVectors; ++v) {
        float* mixed = t.mixed + (r + i) * t.value_stride + p.column + v * kLanes;
        Store(mixed, Fma(ToFloat(dots[i][v]), row_scale, Load(mixed)));
      }
    }
  }
};

template <typename Product>
static void PairRows(const AttentionTile& t, const PairPanel& p) {
  int64_t r = p.first;
  if constexpr (kLanes == 16) {
    for (; r + 6 <= p.end; r += 6) Product::template Block<6>(t, p, r);
  }
  for (; r + 4 <= p.end; r += 4) Product::template Block<4>(t, p, r);
  for (; r + 2 <= p.end; r += 2) Product::template Block<2>(t, p, r);
  if (r < p.end) Product::template Block<1>(t, p, r);
}

template <template <int> typename Product>
PENSIEVE_INLINE void PairColumns(const AttentionTile& t, PairPanel p, int64_t columns) {
  for (; p.column + kPanel <= columns; p.column += kPanel) PairRows<Product<2>>(t, p);
  for (; p.column < columns; p.column += kLanes) PairRows<Product<1>>(t, p);
}

// The largest of a row's first `columns` scores, which are capped and masked on the way, and of those of tiles before.
PENSIEVE_INLINE float LargestScore(const AttentionTile& t, int64_t r, int64_t seen, int64_t columns) {
  float* scores = t.scores + r * t.score_stride;
  F32 largest = Set(t.largest[r]);
  const bool all = t.key_stride == t.block_len && t.first_seen[r] == 0 && t.end_seen[r] >= columns && t.softcap <= 0.0f;
  if (all) {
    for (int64_t j = 0; j < columns; j += kLanes) largest = Max(largest, Load(scores + j));
  } else {
    for (int64_t b = 0; b < seen; ++b) largest = PrepareScores(t, r, b, scores + b * t.key_stride, largest);
  }
  return MaxLanes(largest);
}

// Rows whose softmax is made together, step by step, for a row's steps wait for one another.
inline constexpr int kSoftenRows = 8;

struct SoftenedRow {
  float largest;    // score, of this tile and those before
  float magnitude;  // of p'
  float sum;        // of p
};

PENSIEVE_INLINE void Exponentiate(const AttentionTile& t, int64_t r, int64_t columns, SoftenedRow& row) {
  float* p = t.scores + r * t.score_stride;
  const F32 center = Set(row.largest);
  F32 sums = Zero();
  F32 largest = Zero();
  for (int64_t j = 0; j < columns; j += kLanes) {
    const F32 x = ExpOfNonPositive(Load(p + j) - center);
    const F32 scaled = x * Load(t.pairs.value_scales + j);
    sums = sums + x;
    largest = Max(largest, scaled);
    Store(p + j, scaled);
  }
  row.magnitude = MaxLanes(largest);
  row.sum = SumLanes(sums);
}

// nan_or_zero: 0, or NaN if a value's scale is.
PENSIEVE_INLINE void RoundRow(const AttentionTile& t, int64_t r, int64_t columns, const SoftenedRow& row,
                              float nan_or_zero) {
  const float* p = t.scores + r * t.score_stride;
  const F32 inverse = Set(row.magnitude > kLeastMagnitude ? t.pairs.p_limit / row.magnitude : 0.0f);
  int16_t* out = ProbabilitiesOf(t, r);
  for (int64_t j = 0; j < columns; j += kLanes) StoreI16(out + j, RoundToInt(Load(p + j) * inverse));
  t.pairs.p_scales[r] = row.magnitude * (1.0f / t.pairs.p_limit) + nan_or_zero;
  if (row.largest == t.largest[r]) {
    t.sum[r] += row.sum;
    return;
  }
  const F32 factor = Exp(Set(t.largest[r] - row.largest));
  t.sum[r] = t.sum[r] * Lane(factor, 0) + row.sum;
  t.largest[r] = row.largest;
  float* mixed = t.mixed + r * t.value_stride;
  for (int64_t d = 0; d < t.value_stride; d += kLanes) Store(mixed + d, Load(mixed + d) * factor);
}

// Scores of the first `columns` columns become rounded probabilities times their values' scales, and the rows' state
// that of more keys.
PENSIEVE_INLINE void SoftenRows(const AttentionTile& t, int64_t first, int64_t end, int64_t seen, int64_t columns) {
  F32 nan_or_zero = Zero();
  for (int64_t j = 0; j < columns; j += kLanes) nan_or_zero = nan_or_zero + Load(t.pairs.value_scales + j) * Zero();
  const float not_finite = SumLanes(nan_or_zero);
  for (; first < end; first += kSoftenRows) {
    SoftenedRow rows[kSoftenRows];
    const int64_t count = end - first < kSoftenRows ? end - first : kSoftenRows;
    for (int64_t i = 0; i < count; ++i) rows[i].largest = LargestScore(t, first + i, seen, columns);
    for (int64_t i = 0; i < count; ++i) Exponentiate(t, first + i, columns, rows[i]);
    for (int64_t i = 0; i < count; ++i) RoundRow(t, first + i, columns, rows[i], not_finite);
  }
}

// Blocks that row r sees a key of, or lies behind.
PENSIEVE_INLINE int64_t BlocksSeen(const AttentionTile& t, int64_t r) {
  return (t.end_seen[r] + t.block_len - 1) / t.block_len;
}

static void AttendPairs(const AttentionTile& t) {
  for (int64_t first = 0, end = 0; first < t.rows; first = end) {
    const int64_t seen = BlocksSeen(t, first);
    while (end < t.rows && BlocksSeen(t, end) == seen) ++end;
    if (seen == 0) continue;
    const int64_t columns = (seen - 1) * t.key_stride + WholeVectors(KeysOf(t, seen - 1));
    PairColumns<ScorePairs>(t, {first, end, 0, (t.head_dim + 1) / 2}, columns);
    SoftenRows(t, first, end, seen, columns);
    PairColumns<MixPairs>(t, {first, end, 0, columns / 2}, t.value_stride);
  }
}

}  // namespace pensieve::backend::cpu::PENSIEVE_ISA
