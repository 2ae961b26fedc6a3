// From the MLX layout, rows of bit streams at any address, to panels (QuantPanel). Rows are read in order, one stream a
// channel; squares of 32-bit words are transposed in registers. Limited by the shuffle port: about 110 operations for
// 2,048 codes of 4 bits, shared by all rows of the product.
#pragma once

#include "backend/cpu/quant_product-inl.h"

namespace pensieve::backend::cpu::PENSIEVE_ISA {

// Eight codes of kBits bits, the bytes p[0 .. kBits), as eight bytes.
template <int kBits>
PENSIEVE_INLINE uint64_t SpreadCodes(const uint8_t* p) {
  uint64_t stream = 0;
  memcpy(&stream, p, kBits);
  constexpr uint64_t kCode = (uint64_t{1} << kBits) - 1;
#if defined(__BMI2__)
  return _pdep_u64(stream, kCode * 0x0101010101010101u);
#else
  uint64_t bytes = 0;
  for (int i = 0; i < 8; ++i) bytes |= ((stream >> (i * kBits)) & kCode) << (8 * i);
  return bytes;
#endif
}

// kLanes words of codes, a byte each, from column k on; `words` of them exist.
template <int kBits>
PENSIEVE_INLINE I32 LoadCodeBytes(const uint8_t* row, int64_t k, int words) {
  if constexpr (kBits == 8) return LoadWords(row + k, words);
  uint64_t bytes[kLanes / 2] = {0};
  for (int i = 0; i < kLanes / 2 && 2 * i < words; ++i) bytes[i] = SpreadCodes<kBits>(row + (k / 8 + i) * kBits);
  return LoadInt(bytes);
}

struct CodeRows {
  const uint8_t* rows[kLanes];
};

// Channels beyond `count` repeat the last, so that tiles need no edge; their results are not stored.
PENSIEVE_INLINE CodeRows RowsFrom(const QuantWeight& w, int64_t first_row, int64_t channel, int64_t count) {
  CodeRows result;
  for (int64_t i = 0; i < kLanes; ++i) {
    const int64_t row = channel + i < count ? channel + i : count - 1;
    result.rows[i] = w.codes + (first_row + row) * w.row_bytes;
  }
  return result;
}

template <int kBits>
static void UnpackBytes(const QuantWeight& w, int64_t first_row, int64_t count, uint8_t* out) {
  for (int64_t channel = 0; channel < kPanel; channel += kLanes) {
    const CodeRows source = RowsFrom(w, first_row, channel, count);
    for (int64_t k = 0; k < w.cols; k += 4 * kLanes) {
      const int words = w.cols - k < 4 * kLanes ? static_cast<int>((w.cols - k) / 4) : kLanes;
      I32 square[kLanes];
      for (int i = 0; i < kLanes; ++i) square[i] = ToQuadOrder(LoadCodeBytes<kBits>(source.rows[i], k, words));
      Transpose(square);
      for (int i = 0; i < words; ++i) StoreInt(out + ((k / 4 + i) * kPanel + channel) * 4, square[i]);
    }
  }
}

template <bool kFp4>
static void UnpackNibbles(const QuantWeight& w, int64_t first_row, int64_t count, uint8_t* out) {
  // e2m1 doubled plus 12: 0 0.5 1 1.5 2 3 4 6 and their negatives.
  static constexpr uint8_t kE2m1[16] = {12, 13, 14, 15, 16, 18, 20, 24, 12, 11, 10, 9, 8, 6, 4, 0};
  const I32 nibble = SetInt(0x0f0f0f0f);
  for (int64_t channel = 0; channel < kPanel; channel += kLanes) {
    const CodeRows source = RowsFrom(w, first_row, channel, count);
    for (int64_t k = 0; k < w.cols; k += 8 * kLanes) {
      const int words = w.cols - k < 8 * kLanes ? static_cast<int>((w.cols - k) / 8) : kLanes;
      I32 square[kLanes];
      for (int i = 0; i < kLanes; ++i) square[i] = LoadWords(source.rows[i] + k / 2, words);
      Transpose(square);
      for (int i = 0; i < words; ++i) {
        I32 even = And(square[i], nibble);
        I32 odd = And(ShiftRight<4>(square[i]), nibble);
        if constexpr (kFp4) {
          even = LookUpBytes(kE2m1, even);
          odd = LookUpBytes(kE2m1, odd);
        }
        uint8_t* quads = out + ((k / 4 + 2 * i) * kPanel + channel) * 4;
        StoreInt(quads, even);
        StoreInt(quads + kPanel * 4, odd);
      }
    }
  }
}

// 2^(s - 127); 255 is NaN.
PENSIEVE_INLINE float FromE8m0(uint8_t s) {
  const uint32_t bits = s == 255 ? 0x7fc00000u : s == 0 ? 0x00400000u : static_cast<uint32_t>(s) << 23;
  float value;
  memcpy(&value, &bits, sizeof(value));
  return value;
}

// [groups][kPanel] f32 from [rows][groups] of any type.
PENSIEVE_INLINE void UnpackScales(const QuantWeight& w, const uint8_t* data, int64_t first_row, int64_t count,
                                  float* out) {
  const int64_t groups = w.cols / w.group;
  if (w.fp4) {
    for (int64_t c = 0; c < kPanel; ++c) {
      const uint8_t* row = data + (first_row + (c < count ? c : count - 1)) * groups;
      for (int64_t g = 0; g < groups; ++g) out[g * kPanel + c] = FromE8m0(row[g]) * w.scale_factor;
    }
    return;
  }
  const tensor::DenseWeight matrix = {w.rows, groups, w.scale_dtype, data};
  UnpackDense(matrix, first_row, count, 0, groups, out);
}

static void UnpackCodes(const QuantWeight& w, int64_t first_row, int64_t count, const QuantPanel& panel) {
  switch (w.bits) {
    case 2: UnpackBytes<2>(w, first_row, count, panel.codes); break;
    case 3: UnpackBytes<3>(w, first_row, count, panel.codes); break;
    case 4:
      w.fp4 ? UnpackNibbles<true>(w, first_row, count, panel.codes)
            : UnpackNibbles<false>(w, first_row, count, panel.codes);
      break;
    case 5: UnpackBytes<5>(w, first_row, count, panel.codes); break;
    case 6: UnpackBytes<6>(w, first_row, count, panel.codes); break;
    default: UnpackBytes<8>(w, first_row, count, panel.codes); break;
  }
  UnpackScales(w, w.scales, first_row, count, panel.scales);
  if (w.biases != nullptr) UnpackScales(w, w.biases, first_row, count, panel.biases);
  // From the last group down, so that a long weight group can be repeated for its activation groups in place.
  const int64_t repeat = w.group / panel.group;
  for (int64_t g = w.cols / panel.group - 1; g >= 0; --g) {
    for (int64_t c = 0; c < kPanel; c += kLanes) {
      const F32 scale = Load(panel.scales + g / repeat * kPanel + c);
      const F32 bias = w.biases == nullptr ? Set(-w.zero) * scale : Load(panel.biases + g / repeat * kPanel + c);
      Store(panel.scales + g * kPanel + c, scale);
      Store(panel.biases + g * kPanel + c, bias);
    }
  }
}

}  // namespace pensieve::backend::cpu::PENSIEVE_ISA
