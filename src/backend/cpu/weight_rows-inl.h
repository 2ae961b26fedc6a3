// Rows of a quantized weight as they lie in memory: kLanes output channels at a time, a stream of codes and one of scales
// each, at any address.
#pragma once

#include "backend/cpu/quant_product-inl.h"

namespace pensieve::backend::cpu::PENSIEVE_ISA {

struct CodeRows {
  const uint8_t* rows[kLanes];
  int64_t next_panel;  // bytes to the same place of the next panel, which is likely wanted next
};

// Channels beyond `count` repeat the last, so that tiles need no edge; their results are not stored.
PENSIEVE_INLINE CodeRows RowsFrom(const QuantWeight& w, int64_t first_row, int64_t channel, int64_t count) {
  CodeRows result;
  result.next_panel = kPanel * w.row_bytes;
  for (int64_t i = 0; i < kLanes; ++i) {
    const int64_t row = channel + i < count ? channel + i : count - 1;
    result.rows[i] = w.codes + (first_row + row) * w.row_bytes;
  }
  return result;
}

// e2m1 doubled plus 12: 0 0.5 1 1.5 2 3 4 6 and their negatives.
static constexpr uint8_t kE2m1[16] = {12, 13, 14, 15, 16, 18, 20, 24, 12, 11, 10, 9, 8, 6, 4, 0};

struct ScaleRows {
  const uint8_t* rows[kLanes];
  tensor::DType dtype;
  float factor;  // of E8M0 scales
};

PENSIEVE_INLINE int64_t ScaleBytes(tensor::DType dtype) {
  return dtype == tensor::DType::kF32 ? 4 : dtype == tensor::DType::kU8 ? 1 : 2;
}

PENSIEVE_INLINE ScaleRows ScalesFrom(const QuantWeight& w, const uint8_t* data, int64_t first_row, int64_t channel,
                                     int64_t count) {
  ScaleRows result;
  result.dtype = w.scale_dtype;
  result.factor = w.scale_factor;
  const int64_t bytes = ScaleBytes(w.scale_dtype);
  for (int64_t i = 0; i < kLanes; ++i) {
    const int64_t row = channel + i < count ? channel + i : count - 1;
    result.rows[i] = data + (first_row + row) * (w.cols / w.group) * bytes;
  }
  return result;
}

// Groups whose scales are loaded together: 16 bytes of a row of halves.
inline constexpr int kScaleBlock = 8;

// 2^(s - 127), s in 0..255; 255 is NaN. Bit 22 alone is 2^-127, and what makes a NaN of infinity.
PENSIEVE_INLINE F32 FromE8m0(I32 s) {
  const I32 nan = ShiftLeft<14>(And(AddInt(s, SetInt(1)), SetInt(256)));
  return BitsToFloat(MaxInt(Or(ShiftLeft<23>(s), nan), SetInt(0x00400000)));
}

// Halves of kLanes rows by 8 groups, transposed as pairs in four steps, a vector of pairs each.
PENSIEVE_INLINE void LoadHalfScales(const ScaleRows& source, int64_t g, int n, F32* out) {
  I32 rows[4];  // quad q of rows[a]: channel 4 * q + a
  const uint8_t* at[kLanes];
  for (int i = 0; i < kLanes; ++i) at[i] = source.rows[i] + g * 2;
  PENSIEVE_UNROLL
  for (int a = 0; a < 4; ++a) rows[a] = n == kScaleBlock ? LoadHalfRows(at + a, kScaleBlock) : LoadHalfRows(at + a, n);
  TransposeInQuads(rows);
  PENSIEVE_UNROLL
  for (int i = 0; i < 4; ++i) {
    if (source.dtype == tensor::DType::kF16) {
      out[2 * i] = FromF16Lanes(rows[i]);
      out[2 * i + 1] = FromF16Lanes(ShiftRight<16>(rows[i]));
    } else {
      out[2 * i] = BitsToFloat(ShiftLeft<16>(rows[i]));
      out[2 * i + 1] = BitsToFloat(And(rows[i], SetInt(static_cast<int32_t>(0xffff0000u))));
    }
  }
}

// out[i] = the channels' scales of group g + i, for i < n <= kScaleBlock.
PENSIEVE_INLINE void LoadScales(const ScaleRows& source, int64_t g, int n, F32* out) {
  if (source.dtype == tensor::DType::kF16 || source.dtype == tensor::DType::kBF16) {
    LoadHalfScales(source, g, n, out);
    return;
  }
  const bool floats = source.dtype == tensor::DType::kF32;
  int32_t values[kScaleBlock][kLanes];
  for (int c = 0; c < kLanes; ++c) {
    for (int i = 0; i < n; ++i) {
      if (floats) {
        memcpy(&values[i][c], source.rows[c] + (g + i) * 4, 4);
      } else {
        values[i][c] = source.rows[c][g + i];
      }
    }
  }
  for (int i = 0; i < n; ++i) {
    const I32 x = LoadInt(values[i]);
    out[i] = floats ? BitsToFloat(x) : FromE8m0(x) * Set(source.factor);
  }
}

}  // namespace pensieve::backend::cpu::PENSIEVE_ISA
