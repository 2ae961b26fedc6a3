// Integer products: unsigned weight codes times signed activation planes, in panels of two vectors of output channels.
//
// For a row m and channel n, groups g ascending, one f32 accumulator:
//   i   = sum of code * low + 128 * sum of code * high         (i32, exact)
//   acc = fma(f32(i) * activation_scale[g], weight_scale[g], acc)
//   acc = fma(weight_bias[g], activation_sum[g], acc)
// The same sequence in every kernel and tile, so an output never depends on how the work was cut. Bounds of i: codes
// <= 255, |low| <= 127, |high| <= 127 over at most 64 columns: below 2^28.
#pragma once

#include "backend/cpu/f32_product-inl.h"

namespace pensieve::backend::cpu::PENSIEVE_ISA {

PENSIEVE_INLINE int32_t LoadQuad(const int8_t* p) {
  int32_t quad;
  memcpy(&quad, p, sizeof(quad));
  return quad;
}

// An exact sum over a group for what LowerCodes took from its codes.
template <bool kWide>
PENSIEVE_INLINE I32 RaiseSum(I32 dot, const QuantGroup& group) {
  if constexpr (!kWide || !kLowersWideCodes) return dot;
  return AddInt(dot, ShiftLeft<7>(SetInt(group.total)));
}

// acc = what one group adds to one vector of channels.
PENSIEVE_INLINE F32 AddGroup(F32 acc, I32 dot, F32 activation_scale, F32 activation_sum, F32 weight_scale,
                             F32 weight_bias) {
  acc = Fma(ToFloat(dot) * activation_scale, weight_scale, acc);
  return Fma(weight_bias, activation_sum, acc);
}

// high and low += the group's codes times both planes, each code loaded once: for one or two precise rows, whose few sums
// would otherwise wait for one another. Even and odd quads go to separate sums.
template <int kRows, bool kWide>
PENSIEVE_INLINE void AddBothPlanes(I32 (&dots)[kRows][2], const uint8_t* codes, const int8_t* high, const int8_t* low,
                                   int64_t stride, int64_t quads) {
  I32 sums[kRows][2][2][2];  // row, vector, plane, parity
  PENSIEVE_UNROLL
  for (int i = 0; i < kRows * 8; ++i) sums[i / 8][i / 4 % 2][i / 2 % 2][i % 2] = SetInt(0);
  for (int64_t q = 0; q < quads; q += 2) {
    PENSIEVE_UNROLL
    for (int odd = 0; odd < 2; ++odd) {
      const I32 w0 = LowerCodes<kWide>(LoadInt(codes + (q + odd) * kPanel * 4));
      const I32 w1 = LowerCodes<kWide>(LoadInt(codes + (q + odd) * kPanel * 4 + kLanes * 4));
      PENSIEVE_UNROLL
      for (int r = 0; r < kRows; ++r) {
        const I32 h = SetInt(LoadQuad(high + r * stride + (q + odd) * 4));
        const I32 l = SetInt(LoadQuad(low + r * stride + (q + odd) * 4));
        sums[r][0][0][odd] = Dot4<kWide>(sums[r][0][0][odd], w0, h);
        sums[r][1][0][odd] = Dot4<kWide>(sums[r][1][0][odd], w1, h);
        sums[r][0][1][odd] = Dot4<kWide>(sums[r][0][1][odd], w0, l);
        sums[r][1][1][odd] = Dot4<kWide>(sums[r][1][1][odd], w1, l);
      }
    }
  }
  PENSIEVE_UNROLL
  for (int i = 0; i < kRows * 2; ++i) {
    const auto& planes = sums[i / 2][i % 2];
    dots[i / 2][i % 2] = AddInt(ShiftLeft<7>(AddInt(planes[0][0], planes[0][1])), AddInt(planes[1][0], planes[1][1]));
  }
}

// dots[r] += the group's codes times plane quads of kRows rows. codes: [kQuads][kPanel][4]; plane: row r's quads start
// at plane + r * stride.
template <int kRows, bool kWide, int kQuads>
PENSIEVE_INLINE void AddPlane(I32 (&dots)[kRows][2], const uint8_t* codes, const int8_t* plane, int64_t stride) {
  RowsAt<int8_t, kRows> row(plane, stride);
  row.KeepInRegisters();
  // Else, where runs are long, the codes of one plane would be kept, on the stack, for the other.
  if constexpr (kQuadRun > 1) KeepInRegister(codes);
  PENSIEVE_UNROLL_RUNS
  for (int q = 0; q < kQuads; q += kQuadRun) {
    QuadRun runs[kRows];
    PENSIEVE_UNROLL
    for (int r = 0; r < kRows; ++r) runs[r] = LoadQuadRun(row[r] + q * 4);
    PENSIEVE_UNROLL
    for (int i = 0; i < kQuadRun; ++i) {
      const I32 w0 = LowerCodes<kWide>(LoadInt(codes + (q + i) * kPanel * 4));
      const I32 w1 = LowerCodes<kWide>(LoadInt(codes + (q + i) * kPanel * 4 + kLanes * 4));
      PENSIEVE_UNROLL
      for (int r = 0; r < kRows; ++r) {
        dots[r][0] = DotQuad<kWide>(dots[r][0], w0, runs[r], i);
        dots[r][1] = DotQuad<kWide>(dots[r][1], w1, runs[r], i);
      }
    }
  }
}

// dots[r] += the codes of row r's big quads times their upper parts.
template <int kRows, bool kWide, int kCount>
PENSIEVE_INLINE void AddBigQuads(I32 (&dots)[kRows][2], const uint8_t* codes, const RowsAt<QuantGroup, kRows>& row) {
  PENSIEVE_UNROLL
  for (int b = 0; b < kCount; ++b) {
    PENSIEVE_UNROLL
    for (int r = 0; r < kRows; ++r) {
      const uint8_t* quad = codes + row[r]->big_offset[b];
      const QuadRun run = LoadQuadRun(reinterpret_cast<const int8_t*>(row[r]->big_value));
      dots[r][0] = DotQuad<kWide>(dots[r][0], LowerCodes<kWide>(LoadInt(quad)), run, b);
      dots[r][1] = DotQuad<kWide>(dots[r][1], LowerCodes<kWide>(LoadInt(quad + kLanes * 4)), run, b);
    }
  }
}

// Which codes a tile is compiled for. Small ones keep a coarse row's sum below 2^22, so that sums can be built upon
// kCenter's bits and need no conversion: scale * (kCenter + sum) - scale * kCenter, rounded once, is what converting and
// multiplying gives. Wide ones may exceed 127.
enum class Codes { kSmall, kMedium, kWide };
// The largest of the small ones: columns of big quads count 16256 each, others 127.
constexpr int SmallCodeMax(int group) {
  const int big = 4 * BigQuads(group);
  return ((1 << 22) - 1) / (big * 16256 + (group - big) * 127);
}
#if defined(__AVX2__)
inline constexpr bool kCentersSums = true;
#else
inline constexpr bool kCentersSums = false;  // NEON must copy kCenter first, the portable Fma rounds twice
#endif

// The sums of one group in f32: two vectors of channels of one row.
template <bool kCentered, bool kWide>
PENSIEVE_INLINE void FlushGroup(F32 (&acc)[2], const I32 (&dots)[2], const QuantGroup& group, const float* scale,
                                const float* bias) {
  const FloatRun run = LoadFloatRun(&group.scale);  // scale, sum
  PENSIEVE_UNROLL
  for (int v = 0; v < 2; ++v) {
    const F32 weight_scale = Load(scale + v * kLanes);
    const F32 weight_bias = Load(bias + v * kLanes);
    if constexpr (kCentered) {
      const F32 scaled = FmaRun(run, 0, BitsToFloat(dots[v]), Set(group.center));
      acc[v] = FmaRun(run, 1, weight_bias, Fma(scaled, weight_scale, acc[v]));
    } else {
      acc[v] = AddGroup(acc[v], RaiseSum<kWide>(dots[v], group), Set(group.scale), Set(group.sum), weight_scale,
                        weight_bias);
    }
  }
}

// Into the L2 cache, ahead of its use. An address beyond the weights does nothing.
PENSIEVE_INLINE void Prefetch(const uint8_t* p) { __builtin_prefetch(p, 0, 2); }

// Bytes [first, end) of every group's share of what is wanted next: what one block of rows asks for. A core waits for no
// more than some sixteen lines at once, so requests are spread over all of a panel's arithmetic: asked for in one go,
// the next panel would be read while nothing is computed.
struct AheadRange {
  int64_t first;
  int64_t end;
};

PENSIEVE_INLINE AheadRange AheadOfRows(const QuantPanel& panel, int64_t row, int64_t rows, int64_t all_rows) {
  const int64_t lines = (panel.ahead_per_group + kCacheLine - 1) / kCacheLine;
  return {lines * row / all_rows * kCacheLine, lines * (row + rows) / all_rows * kCacheLine};
}

PENSIEVE_INLINE void PrefetchBytes(const uint8_t* p, int64_t n) {
  for (int64_t i = 0; i < n; i += kCacheLine) Prefetch(p + i);
}

PENSIEVE_INLINE void FetchAhead(const QuantPanel& panel, int64_t g, AheadRange range) {
  PrefetchBytes(panel.ahead + g * panel.ahead_per_group + range.first, range.end - range.first);
}

// kRows rows by two vectors of channels, sums of groups and of rows both in registers: 6 rows keep 24 of 32.
// Limited by the integer dot product ports: a group of 64 is 32 dots a row, 2 x 2 for its big quads, and 2 x 4
// operations to scale the sums. Codes and planes come from the L1 and L2 caches.
template <int kRows, bool kPrecise, Codes kCodes, int kQuads>
static void QuantBlock(const QuantPanel& panel, const QuantRows& rows, int64_t first, AheadRange ahead, float* tile) {
  constexpr bool kWide = kCodes == Codes::kWide;
  constexpr bool kCentered = kCentersSums && !kPrecise && kCodes == Codes::kSmall;
  const int64_t cols = rows.cols;
  const int64_t skipped = panel.first_group * kQuads * 4;
  const int8_t* low = rows.first.low + first * cols + skipped;
  const int8_t* high = rows.first.high + first * cols + skipped;
  const QuantGroup* groups = rows.first.groups + first * rows.groups;
  const uint8_t* codes = panel.codes;
  const float* scale = panel.scales + panel.first_group * kPanel;
  const float* bias = panel.biases + panel.first_group * kPanel;
  F32 acc[kRows][2];
  PENSIEVE_UNROLL
  for (int r = 0; r < kRows; ++r) {
    acc[r][0] = panel.first_group == 0 ? Zero() : Load(tile + r * kPanel);
    acc[r][1] = panel.first_group == 0 ? Zero() : Load(tile + r * kPanel + kLanes);
  }
  for (int64_t g = panel.first_group; g < panel.end_group; ++g) {
    FetchAhead(panel, g, ahead);
    RowsAt<QuantGroup, kRows> group(groups + g, rows.groups);
    group.KeepInRegisters();
    I32 dots[kRows][2];
    if constexpr (kPrecise && kRows <= 2) {
      AddBothPlanes<kRows, kWide>(dots, codes, high, low, cols, kQuads);
    } else {
      // kCenter's bits are shifted into place with the upper parts.
      PENSIEVE_UNROLL
      for (int r = 0; r < kRows; ++r) dots[r][0] = dots[r][1] = SetInt(kCentered ? 0x4b400000 >> 7 : 0);
      if constexpr (kPrecise) {
        AddPlane<kRows, kWide, kQuads>(dots, codes, high, cols);
      } else {
        AddBigQuads<kRows, kWide, BigQuads(kQuads * 4)>(dots, codes, group);
      }
      PENSIEVE_UNROLL
      for (int r = 0; r < kRows; ++r) {
        dots[r][0] = ShiftLeft<7>(dots[r][0]);
        dots[r][1] = ShiftLeft<7>(dots[r][1]);
      }
      AddPlane<kRows, kWide, kQuads>(dots, codes, low, cols);
    }
    PENSIEVE_UNROLL
    for (int r = 0; r < kRows; ++r) FlushGroup<kCentered, kWide>(acc[r], dots[r], *group[r], scale, bias);
    scale += kPanel;
    bias += kPanel;
    codes += kQuads * kPanel * 4;
    low += kQuads * 4;
    high += kQuads * 4;
  }
  PENSIEVE_UNROLL
  for (int r = 0; r < kRows; ++r) {
    Store(tile + r * kPanel, acc[r][0]);
    Store(tile + r * kPanel + kLanes, acc[r][1]);
  }
}

// Rows from r on, kRows at a time: the first that are left over.
template <int kRows, bool kPrecise, Codes kCodes, int kQuads>
PENSIEVE_INLINE int64_t QuantBlocks(const QuantPanel& panel, const QuantRows& rows, int64_t first, int64_t r,
                                    int64_t count, float* tile) {
  for (; r + kRows <= count; r += kRows) {
    QuantBlock<kRows, kPrecise, kCodes, kQuads>(panel, rows, first + r, AheadOfRows(panel, r, kRows, count),
                                                tile + r * kPanel);
  }
  return r;
}

template <bool kPrecise, Codes kCodes, int kQuads>
static void QuantRowsOf(const QuantPanel& panel, const QuantRows& rows, int64_t first, int64_t count, float* tile) {
  int64_t r = 0;
  if constexpr (kRegisters == 32) r = QuantBlocks<6, kPrecise, kCodes, kQuads>(panel, rows, first, r, count, tile);
  r = QuantBlocks<4, kPrecise, kCodes, kQuads>(panel, rows, first, r, count, tile);
  r = QuantBlocks<2, kPrecise, kCodes, kQuads>(panel, rows, first, r, count, tile);
  QuantBlocks<1, kPrecise, kCodes, kQuads>(panel, rows, first, r, count, tile);
}

template <bool kPrecise, Codes kCodes>
PENSIEVE_INLINE void QuantGroupsOf(const QuantPanel& panel, const QuantRows& rows, int64_t first, int64_t count,
                                   float* tile) {
  switch (panel.group) {
    case 16: return QuantRowsOf<kPrecise, kCodes, 4>(panel, rows, first, count, tile);
    case 32: return QuantRowsOf<kPrecise, kCodes, 8>(panel, rows, first, count, tile);
    default: return QuantRowsOf<kPrecise, kCodes, 16>(panel, rows, first, count, tile);
  }
}

static void QuantTile(const QuantPanel& panel, const QuantRows& rows, int64_t first, int64_t count, bool precise,
                      float* tile) {
  if (panel.code_max > 127) {
    precise ? QuantGroupsOf<true, Codes::kWide>(panel, rows, first, count, tile)
            : QuantGroupsOf<false, Codes::kWide>(panel, rows, first, count, tile);
  } else if (precise) {
    QuantGroupsOf<true, Codes::kMedium>(panel, rows, first, count, tile);
  } else if (panel.code_max > SmallCodeMax(panel.group)) {
    QuantGroupsOf<false, Codes::kMedium>(panel, rows, first, count, tile);
  } else {
    QuantGroupsOf<false, Codes::kSmall>(panel, rows, first, count, tile);
  }
}

// w[k] = scale * code + bias as f32, columns back in their natural order.
static void DequantizePanel(const QuantPanel& panel, float* panel_out) {
  const uint8_t* codes = panel.codes;
  for (int64_t g = panel.first_group; g < panel.end_group; ++g) {
    FetchAhead(panel, g, {0, panel.ahead_per_group});
    for (int64_t k = 0; k < panel.group; k += 8) {
      for (int v = 0; v < 2; ++v) {
        const F32 scale = Load(panel.scales + g * kPanel + v * kLanes);
        const F32 bias = Load(panel.biases + g * kPanel + v * kLanes);
        for (int64_t odd = 0; odd < 2; ++odd) {
          I32 quad = LoadInt(codes + (odd * kPanel + v * kLanes) * 4);
          for (int64_t i = 0; i < 4; ++i) {
            const F32 q = ToFloat(And(quad, SetInt(255)));
            Store(panel_out + (2 * i + odd) * kPanel + v * kLanes, Fma(scale, q, bias));
            quad = ShiftRight<8>(quad);
          }
        }
      }
      codes += 8 * kPanel;
      panel_out += 8 * kPanel;
    }
  }
}

}  // namespace pensieve::backend::cpu::PENSIEVE_ISA
