// From the MLX layout, rows of bit streams at any address, to panels (QuantPanel). Rows are read in order, one stream a
// channel; squares of 32-bit words are transposed in registers. Limited by the shuffle port: about 110 operations for
// 2,048 codes of 4 bits, shared by all rows of the product.
#pragma once

#include "backend/cpu/quant_product-inl.h"

namespace pensieve::backend::cpu::PENSIEVE_ISA {

// The kBits bytes at p. From whole loads: bytes copied into a word one by one would stall its reading.
template <int kBits>
PENSIEVE_INLINE uint64_t LoadStream(const uint8_t* p) {
  uint32_t low = 0;
  uint16_t pair = 0;
  if constexpr (kBits >= 4) {
    memcpy(&low, p, 4);
    if constexpr (kBits == 5) return low | static_cast<uint64_t>(p[4]) << 32;
    memcpy(&pair, p + 4, 2);
    return low | static_cast<uint64_t>(pair) << 32;
  }
  memcpy(&pair, p, 2);
  return kBits == 2 ? pair : pair | static_cast<uint64_t>(p[2]) << 16;
}

// Eight codes of kBits bits, the bytes p[0 .. kBits), as eight bytes.
template <int kBits>
PENSIEVE_INLINE uint64_t SpreadCodes(const uint8_t* p) {
  const uint64_t stream = LoadStream<kBits>(p);
  constexpr uint64_t kCode = (uint64_t{1} << kBits) - 1;
#if defined(__BMI2__)
  return _pdep_u64(stream, kCode * 0x0101010101010101u);
#else
  uint64_t bytes = 0;
  for (int i = 0; i < 8; ++i) bytes |= ((stream >> (i * kBits)) & kCode) << (8 * i);
  return bytes;
#endif
}

struct CodeRows {
  const uint8_t* rows[kLanes];
  int64_t next_panel;  // bytes to the same place of the next panel, which is likely wanted next
};

// Into the L2 cache, a panel ahead: the hardware does not follow 32 rows at once. Beyond the end it does nothing.
PENSIEVE_INLINE void Prefetch(const uint8_t* p) { __builtin_prefetch(p, 0, 2); }

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

template <int kBits>
PENSIEVE_INLINE void UnpackBytesSquare(const CodeRows& source, int64_t k, int words, uint8_t* out) {
  I32 square[kLanes];
  // Spread codes rest in memory until all rows are there: read at once they would stall.
  uint64_t bytes[kLanes][kLanes / 2];
  if constexpr (kBits != 8) {
    for (int i = 0; i < kLanes; ++i) {
      Prefetch(source.rows[i] + k * kBits / 8 + source.next_panel);
      for (int j = 0; j < kLanes / 2; ++j) {
        bytes[i][j] = 2 * j < words ? SpreadCodes<kBits>(source.rows[i] + (k / 8 + j) * kBits) : 0;
      }
    }
  }
  PENSIEVE_UNROLL
  for (int i = 0; i < kLanes; ++i) {
    if constexpr (kBits == 8) {
      Prefetch(source.rows[i] + k + source.next_panel);
      square[i] = ToQuadOrder(LoadWords(source.rows[i] + k, words));
    } else {
      square[i] = ToQuadOrder(LoadInt(bytes[i]));
    }
  }
  Transpose(square);
  PENSIEVE_UNROLL
  for (int i = 0; i < kLanes; ++i) {
    if (i < words) StoreInt(out + (k / 4 + i) * kPanel * 4, square[i]);
  }
}

template <int kBits>
static void UnpackBytes(const QuantWeight& w, int64_t first_row, int64_t count, uint8_t* out) {
  constexpr int64_t kStep = 4 * kLanes;
  for (int64_t channel = 0; channel < kPanel; channel += kLanes) {
    const CodeRows source = RowsFrom(w, first_row, channel, count);
    int64_t k = 0;
    for (; k + kStep <= w.cols; k += kStep) UnpackBytesSquare<kBits>(source, k, kLanes, out + channel * 4);
    if (k < w.cols) UnpackBytesSquare<kBits>(source, k, static_cast<int>((w.cols - k) / 4), out + channel * 4);
  }
}

// e2m1 doubled plus 12: 0 0.5 1 1.5 2 3 4 6 and their negatives.
static constexpr uint8_t kE2m1[16] = {12, 13, 14, 15, 16, 18, 20, 24, 12, 11, 10, 9, 8, 6, 4, 0};

template <bool kFp4>
PENSIEVE_INLINE void UnpackNibblesSquare(const CodeRows& source, int64_t k, int words, uint8_t* out) {
  const I32 nibble = SetInt(0x0f0f0f0f);
  I32 square[kLanes];
  PENSIEVE_UNROLL
  for (int i = 0; i < kLanes; ++i) {
    Prefetch(source.rows[i] + k / 2 + source.next_panel);
    square[i] = LoadWords(source.rows[i] + k / 2, words);
  }
  Transpose(square);
  PENSIEVE_UNROLL
  for (int i = 0; i < kLanes; ++i) {
    I32 even = And(square[i], nibble);
    I32 odd = And(ShiftRight<4>(square[i]), nibble);
    if constexpr (kFp4) {
      even = LookUpBytes(kE2m1, even);
      odd = LookUpBytes(kE2m1, odd);
    }
    if (i >= words) continue;
    uint8_t* quads = out + (k / 4 + 2 * i) * kPanel * 4;
    StoreInt(quads, even);
    StoreInt(quads + kPanel * 4, odd);
  }
}

template <bool kFp4>
static void UnpackNibbles(const QuantWeight& w, int64_t first_row, int64_t count, uint8_t* out) {
  constexpr int64_t kStep = 8 * kLanes;
  for (int64_t channel = 0; channel < kPanel; channel += kLanes) {
    const CodeRows source = RowsFrom(w, first_row, channel, count);
    int64_t k = 0;
    for (; k + kStep <= w.cols; k += kStep) UnpackNibblesSquare<kFp4>(source, k, kLanes, out + channel * 4);
    if (k < w.cols) UnpackNibblesSquare<kFp4>(source, k, static_cast<int>((w.cols - k) / 8), out + channel * 4);
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

// Scales and biases of the activation groups of a panel's channels.
static void UnpackGroups(const QuantWeight& w, int64_t first_row, int64_t count, const QuantPanel& panel) {
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
  UnpackGroups(w, first_row, count, panel);
}

// Sums of a group under way: even and odd quads of `high`, then of `low`.
template <int kRows>
struct DecodeSums {
  F32 acc[kRows];
  I32 dots[kRows][4];
};

// What one word of eight codes a channel adds. high and low: the first row's eight columns.
template <bool kFp4, int kRows>
PENSIEVE_INLINE void DecodeWord(I32 word, const int8_t* high, const int8_t* low, int64_t stride, DecodeSums<kRows>& s) {
  I32 even = And(word, SetInt(0x0f0f0f0f));
  I32 odd = And(ShiftRight<4>(word), SetInt(0x0f0f0f0f));
  if constexpr (kFp4) {
    even = LookUpBytes(kE2m1, even);
    odd = LookUpBytes(kE2m1, odd);
  }
  PENSIEVE_UNROLL
  for (int r = 0; r < kRows; ++r) {
    s.dots[r][0] = Dot4<false>(s.dots[r][0], even, SetInt(LoadQuad(high + r * stride)));
    s.dots[r][1] = Dot4<false>(s.dots[r][1], odd, SetInt(LoadQuad(high + r * stride + 4)));
    s.dots[r][2] = Dot4<false>(s.dots[r][2], even, SetInt(LoadQuad(low + r * stride)));
    s.dots[r][3] = Dot4<false>(s.dots[r][3], odd, SetInt(LoadQuad(low + r * stride + 4)));
  }
}

// Group g of rows from `first` on is complete. scale and bias: of its channels.
template <int kRows>
PENSIEVE_INLINE void FinishGroup(const QuantRows& rows, int64_t first, int64_t g, F32 scale, F32 bias,
                                 DecodeSums<kRows>& s) {
  PENSIEVE_UNROLL
  for (int r = 0; r < kRows; ++r) {
    const I32 high = ShiftLeft<7>(AddInt(s.dots[r][0], s.dots[r][1]));
    const I32 dot = AddInt(high, AddInt(s.dots[r][2], s.dots[r][3]));
    const int64_t at = (first + r) * rows.groups + g;
    s.acc[r] = AddGroup(s.acc[r], dot, Set(rows.first.scales[at]), Set(rows.first.sums[at]), scale, bias);
    s.dots[r][0] = s.dots[r][1] = s.dots[r][2] = s.dots[r][3] = SetInt(0);
  }
}

// The product of one or two fine rows with four-bit codes that never leave the registers: what UnpackCodes and
// QuantTile give together, bit for bit, without writing the codes down. Decoding one sequence waits for memory; on codes
// in cache the limit is the shuffle port, 64 shuffles a square of 16 channels by 128 columns.
// kWords: words of eight codes a group has, 2, 4 or 8.
template <bool kFp4, int kRows, int kWords>
static void DecodeNibbles(const QuantWeight& w, int64_t first_row, int64_t count, const QuantPanel& panel,
                          const QuantRows& rows, int64_t first, float* tile) {
  constexpr int kStep = kWords < kLanes ? kWords : kLanes;  // words of one group in a square
  const int8_t* high = rows.first.high + first * rows.cols;
  const int8_t* low = rows.first.low + first * rows.cols;
  for (int64_t channel = 0; channel < kPanel; channel += kLanes) {
    const CodeRows source = RowsFrom(w, first_row, channel, count);
    DecodeSums<kRows> sums;
    PENSIEVE_UNROLL
    for (int r = 0; r < kRows; ++r) {
      sums.acc[r] = Zero();
      sums.dots[r][0] = sums.dots[r][1] = sums.dots[r][2] = sums.dots[r][3] = SetInt(0);
    }
    for (int64_t k = 0; k < w.cols; k += 8 * kLanes) {
      const int words = w.cols - k < 8 * kLanes ? static_cast<int>((w.cols - k) / 8) : kLanes;
      I32 square[kLanes];
      PENSIEVE_UNROLL
      for (int i = 0; i < kLanes; ++i) {
        Prefetch(source.rows[i] + k / 2 + source.next_panel);
        square[i] = LoadWords(source.rows[i] + k / 2, words);
      }
      Transpose(square);
      PENSIEVE_UNROLL
      for (int i = 0; i < kLanes; i += kStep) {
        if (i >= words) continue;
        PENSIEVE_UNROLL
        for (int j = i; j < i + kStep; ++j) {
          DecodeWord<kFp4>(square[j], high + k + 8 * j, low + k + 8 * j, rows.cols, sums);
        }
        const int64_t done = k / 8 + i + kStep;
        if (kStep < kWords && done % kWords != 0) continue;
        const int64_t at = (done / kWords - 1) * kPanel + channel;
        FinishGroup(rows, first, done / kWords - 1, Load(panel.scales + at), Load(panel.biases + at), sums);
      }
    }
    PENSIEVE_UNROLL
    for (int r = 0; r < kRows; ++r) Store(tile + r * kPanel + channel, sums.acc[r]);
  }
}

template <bool kFp4, int kRows>
static void DecodeTileRows(const QuantWeight& w, int64_t first_row, int64_t count, const QuantPanel& panel,
                           const QuantRows& rows, int64_t first, float* tile) {
  switch (panel.group) {
    case 16: return DecodeNibbles<kFp4, kRows, 2>(w, first_row, count, panel, rows, first, tile);
    case 32: return DecodeNibbles<kFp4, kRows, 4>(w, first_row, count, panel, rows, first, tile);
    default: return DecodeNibbles<kFp4, kRows, 8>(w, first_row, count, panel, rows, first, tile);
  }
}

static void DecodeTile(const QuantWeight& w, int64_t first_row, int64_t count, const QuantPanel& panel,
                       const QuantRows& rows, int64_t first, int64_t count_rows, float* tile) {
  if (w.fp4) {
    count_rows == 1 ? DecodeTileRows<true, 1>(w, first_row, count, panel, rows, first, tile)
                    : DecodeTileRows<true, 2>(w, first_row, count, panel, rows, first, tile);
  } else {
    count_rows == 1 ? DecodeTileRows<false, 1>(w, first_row, count, panel, rows, first, tile)
                    : DecodeTileRows<false, 2>(w, first_row, count, panel, rows, first, tile);
  }
}

}  // namespace pensieve::backend::cpu::PENSIEVE_ISA
