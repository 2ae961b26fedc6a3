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

PENSIEVE_INLINE int BigQuads(int group) { return group == 64 ? kBigQuads : 1; }

// acc = what one group adds to one vector of channels.
PENSIEVE_INLINE F32 AddGroup(F32 acc, I32 dot, F32 activation_scale, F32 activation_sum, F32 weight_scale,
                             F32 weight_bias) {
  acc = Fma(ToFloat(dot) * activation_scale, weight_scale, acc);
  return Fma(weight_bias, activation_sum, acc);
}

// high and low += the group's codes times both planes, each code loaded once: for one or two fine rows, whose few sums
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
      const I32 w0 = LoadInt(codes + (q + odd) * kPanel * 4);
      const I32 w1 = LoadInt(codes + (q + odd) * kPanel * 4 + kLanes * 4);
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

// dots[r] += the group's codes times plane quads of kRows rows. codes: [quads][kPanel][4]; plane: row r's quads start at
// plane + r * stride.
template <int kRows, bool kWide>
PENSIEVE_INLINE void AddPlane(I32 (&dots)[kRows][2], const uint8_t* codes, const int8_t* plane, int64_t stride,
                              int64_t quads) {
  for (int64_t q = 0; q < quads; ++q) {
    const I32 w0 = LoadInt(codes + q * kPanel * 4);
    const I32 w1 = LoadInt(codes + q * kPanel * 4 + kLanes * 4);
    PENSIEVE_UNROLL
    for (int r = 0; r < kRows; ++r) {
      const I32 a = SetInt(LoadQuad(plane + r * stride + q * 4));
      dots[r][0] = Dot4<kWide>(dots[r][0], w0, a);
      dots[r][1] = Dot4<kWide>(dots[r][1], w1, a);
    }
  }
}

// dots[r] += the codes of row r's big quads times their upper parts.
template <int kRows, bool kWide>
PENSIEVE_INLINE void AddBigQuads(I32 (&dots)[kRows][2], const uint8_t* codes, const uint8_t* index, const int32_t* value,
                                 int64_t stride, int count) {
  for (int b = 0; b < count; ++b) {
    PENSIEVE_UNROLL
    for (int r = 0; r < kRows; ++r) {
      const uint8_t* quad = codes + index[r * stride + b] * kPanel * 4;
      const I32 a = SetInt(value[r * stride + b]);
      dots[r][0] = Dot4<kWide>(dots[r][0], LoadInt(quad), a);
      dots[r][1] = Dot4<kWide>(dots[r][1], LoadInt(quad + kLanes * 4), a);
    }
  }
}

// kRows rows by two vectors of channels. Limited by the integer dot product ports: a group of 64 is 32 dots a row,
// followed by 2 x 4 operations in f32. Codes and planes come from the L1 and L2 caches.
template <int kRows, bool kFine, bool kWide>
static void QuantBlock(const QuantPanel& panel, const QuantRows& rows, int64_t first, float* tile) {
  const int64_t quads = panel.group / 4;
  const int64_t groups = rows.groups;
  const int64_t cols = rows.cols;
  const int8_t* low = rows.first.low + first * cols;
  const int8_t* high = rows.first.high + first * cols;
  const uint8_t* big_index = rows.first.big_index + first * groups * kBigQuads;
  const int32_t* big_value = rows.first.big_value + first * groups * kBigQuads;
  const float* scales = rows.first.scales + first * groups;
  const float* sums = rows.first.sums + first * groups;
  const uint8_t* codes = panel.codes;
  for (int i = 0; i < kRows * 2; ++i) Store(tile + i * kLanes, Zero());
  for (int64_t g = 0; g < groups; ++g) {
    I32 dots[kRows][2];
    if constexpr (kFine && kRows <= 2) {
      AddBothPlanes<kRows, kWide>(dots, codes, high + g * quads * 4, low + g * quads * 4, cols, quads);
    } else {
      PENSIEVE_UNROLL
      for (int r = 0; r < kRows; ++r) dots[r][0] = dots[r][1] = SetInt(0);
      if constexpr (kFine) {
        AddPlane<kRows, kWide>(dots, codes, high + g * quads * 4, cols, quads);
      } else {
        AddBigQuads<kRows, kWide>(dots, codes, big_index + g * kBigQuads, big_value + g * kBigQuads,
                                  groups * kBigQuads, BigQuads(panel.group));
      }
      PENSIEVE_UNROLL
      for (int r = 0; r < kRows; ++r) {
        dots[r][0] = ShiftLeft<7>(dots[r][0]);
        dots[r][1] = ShiftLeft<7>(dots[r][1]);
      }
      AddPlane<kRows, kWide>(dots, codes, low + g * quads * 4, cols, quads);
    }
    const float* scale = panel.scales + g * kPanel;
    const float* bias = panel.biases + g * kPanel;
    PENSIEVE_UNROLL
    for (int r = 0; r < kRows; ++r) {
      const F32 row_scale = Set(scales[r * groups + g]);
      const F32 row_sum = Set(sums[r * groups + g]);
      float* acc = tile + r * kPanel;
      Store(acc, AddGroup(Load(acc), dots[r][0], row_scale, row_sum, Load(scale), Load(bias)));
      Store(acc + kLanes, AddGroup(Load(acc + kLanes), dots[r][1], row_scale, row_sum, Load(scale + kLanes),
                                   Load(bias + kLanes)));
    }
    codes += quads * kPanel * 4;
  }
}

template <bool kFine, bool kWide>
static void QuantRowsOf(const QuantPanel& panel, const QuantRows& rows, int64_t first, int64_t count, float* tile) {
  int64_t r = 0;
  for (; r + kTileRows <= count; r += kTileRows) {
    QuantBlock<kTileRows, kFine, kWide>(panel, rows, first + r, tile + r * kPanel);
  }
  if constexpr (kTileRows > 4) {
    for (; r + 4 <= count; r += 4) QuantBlock<4, kFine, kWide>(panel, rows, first + r, tile + r * kPanel);
  }
  for (; r + 2 <= count; r += 2) QuantBlock<2, kFine, kWide>(panel, rows, first + r, tile + r * kPanel);
  if (r < count) QuantBlock<1, kFine, kWide>(panel, rows, first + r, tile + r * kPanel);
}

static void QuantTile(const QuantPanel& panel, const QuantRows& rows, int64_t first, int64_t count, bool fine,
                      float* tile) {
  if (panel.wide) {
    fine ? QuantRowsOf<true, true>(panel, rows, first, count, tile)
         : QuantRowsOf<false, true>(panel, rows, first, count, tile);
  } else {
    fine ? QuantRowsOf<true, false>(panel, rows, first, count, tile)
         : QuantRowsOf<false, false>(panel, rows, first, count, tile);
  }
}

// w[k] = scale * code + bias as f32, columns back in their natural order.
static void DequantizePanel(const QuantPanel& codes, int64_t first_k, int64_t count_k, float* panel_out) {
  for (int64_t run = first_k; run < first_k + count_k; run += 8) {
    const int64_t g = run / codes.group;
    for (int v = 0; v < 2; ++v) {
      const F32 scale = Load(codes.scales + g * kPanel + v * kLanes);
      const F32 bias = Load(codes.biases + g * kPanel + v * kLanes);
      for (int64_t odd = 0; odd < 2; ++odd) {
        I32 quad = LoadInt(codes.codes + ((run / 4 + odd) * kPanel + v * kLanes) * 4);
        for (int64_t i = 0; i < 4; ++i) {
          const F32 q = ToFloat(And(quad, SetInt(255)));
          Store(panel_out + (run - first_k + 2 * i + odd) * kPanel + v * kLanes, Fma(scale, q, bias));
          quad = ShiftRight<8>(quad);
        }
      }
    }
  }
}

}  // namespace pensieve::backend::cpu::PENSIEVE_ISA
