// From the MLX layout, rows of bit streams at any address, to panels (QuantPanel). Rows are read in order, one stream a
// channel; squares of 32-bit words are transposed in registers. Limited by the shuffle port: about 110 operations for
// 2,048 codes of 4 bits, shared by all rows of the product.
#pragma once

#include "backend/cpu/weight_rows-inl.h"

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
  return SpreadBits<kBits>(LoadStream<kBits>(p));
}

template <int kBits>
PENSIEVE_INLINE void UnpackBytesSquare(const CodeRows& source, int64_t k, int words, uint8_t* out) {
  I32 square[kLanes];
  // Spread codes rest in memory until all rows are there: read at once they would stall.
  uint64_t bytes[kLanes][kLanes / 2];
  if constexpr (kBits != 8) {
    for (int i = 0; i < kLanes; ++i) {
      for (int j = 0; j < kLanes / 2; ++j) {
        bytes[i][j] = 2 * j < words ? SpreadCodes<kBits>(source.rows[i] + (k / 8 + j) * kBits) : 0;
      }
    }
  }
  PENSIEVE_UNROLL
  for (int i = 0; i < kLanes; ++i) {
    if constexpr (kBits == 8) {
      square[i] = ToQuadOrder(LoadWords(source.rows[i] + k, words));
    } else {
      square[i] = ToQuadOrder(LoadInt(bytes[i]));
    }
  }
  Transpose(square);
  PENSIEVE_UNROLL
  for (int i = 0; i < kLanes; ++i) {
    if (i < words) StoreInt(out + i * kPanel * 4, square[i]);
  }
}

// Columns of a weight, from and up to a multiple of eight.
struct ColumnRange {
  int64_t first;
  int64_t end;
};

template <int kBits>
static void UnpackBytes(const QuantWeight& w, int64_t first_row, int64_t count, ColumnRange columns, uint8_t* out) {
  constexpr int64_t kStep = 4 * kLanes;
  for (int64_t channel = 0; channel < kPanel; channel += kLanes) {
    const CodeRows source = RowsFrom(w, first_row, channel, count);
    uint8_t* target = out + channel * 4;
    int64_t k = columns.first;
    for (; k + kStep <= columns.end; k += kStep, target += kStep * kPanel) {
      UnpackBytesSquare<kBits>(source, k, kLanes, target);
    }
    if (k < columns.end) UnpackBytesSquare<kBits>(source, k, static_cast<int>((columns.end - k) / 4), target);
  }
}

// Words [kLanes channels] of eight codes, to the quads of its even and of its odd columns.
template <bool kFp4>
PENSIEVE_INLINE void StoreNibbles(I32 word, uint8_t* quads) {
  I32 even = LowNibbles(word);
  I32 odd = HighNibbles(word);
  if constexpr (kFp4) {
    even = LookUpBytes(kE2m1, even);
    odd = LookUpBytes(kE2m1, odd);
  }
  StoreInt(quads, even);
  StoreInt(quads + kPanel * 4, odd);
}

// 32 columns of kLanes channels: rows are gathered by quads, so that only half of the transposition is left to shuffle.
template <bool kFp4>
PENSIEVE_INLINE void UnpackNibbleQuads(const CodeRows& source, int64_t k, uint8_t* out) {
  I32 words[4];
  PENSIEVE_UNROLL
  for (int a = 0; a < 4; ++a) words[a] = LoadQuadRows(source.rows + a, k / 2);
  TransposeInQuads(words);
  PENSIEVE_UNROLL
  for (int i = 0; i < 4; ++i) StoreNibbles<kFp4>(words[i], out + 2 * i * kPanel * 4);
}

template <bool kFp4>
static void UnpackNibbles(const QuantWeight& w, int64_t first_row, int64_t count, ColumnRange columns, uint8_t* out) {
  for (int64_t channel = 0; channel < kPanel; channel += kLanes) {
    const CodeRows source = RowsFrom(w, first_row, channel, count);
    uint8_t* target = out + channel * 4;
    int64_t k = columns.first;
    for (; k + 32 <= columns.end; k += 32, target += 32 * kPanel) UnpackNibbleQuads<kFp4>(source, k, target);
    for (; k < columns.end; k += 8, target += 8 * kPanel) {
      uint32_t words[kLanes];
      for (int i = 0; i < kLanes; ++i) memcpy(words + i, source.rows[i] + k / 2, 4);
      StoreNibbles<kFp4>(LoadInt(words), target);
    }
  }
}

// [groups][kPanel] f32 from [rows][groups] of any type.
PENSIEVE_INLINE void UnpackScales(const QuantWeight& w, const uint8_t* data, int64_t first_row, int64_t count,
                                  float* out) {
  const int64_t groups = w.cols / w.group;
  const int64_t panel_bytes = kPanel * groups * ScaleBytes(w.scale_dtype);
  PrefetchBytes(data + first_row * groups * ScaleBytes(w.scale_dtype) + panel_bytes, panel_bytes);  // the next panel's
  for (int64_t channel = 0; channel < kPanel; channel += kLanes) {
    const ScaleRows rows = ScalesFrom(w, data, first_row, channel, count);
    for (int64_t g = 0; g < groups; g += kScaleBlock) {
      F32 block[kScaleBlock];
      const int n = groups - g < kScaleBlock ? static_cast<int>(groups - g) : kScaleBlock;
      LoadScales(rows, g, n, block);
      for (int i = 0; i < n; ++i) Store(out + (g + i) * kPanel + channel, block[i]);
    }
  }
}

// Scales and biases of the activation groups of a panel's channels.
static void UnpackGroups(const QuantWeight& w, int64_t first_row, int64_t count, const QuantPanel& panel) {
  UnpackScales(w, w.scales, first_row, count, panel.scales);
  if (w.biases != nullptr) UnpackScales(w, w.biases, first_row, count, panel.biases);
  const int64_t repeat = w.group / panel.group;
  if (repeat == 1 && w.biases != nullptr) return;
  // From the last group down, so that a long weight group can be repeated for its activation groups in place.
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
  const ColumnRange columns = {panel.first_group * panel.group, panel.end_group * panel.group};
  switch (w.bits) {
    case 2: return UnpackBytes<2>(w, first_row, count, columns, panel.codes);
    case 3: return UnpackBytes<3>(w, first_row, count, columns, panel.codes);
    case 4:
      return w.fp4 ? UnpackNibbles<true>(w, first_row, count, columns, panel.codes)
                   : UnpackNibbles<false>(w, first_row, count, columns, panel.codes);
    case 5: return UnpackBytes<5>(w, first_row, count, columns, panel.codes);
    case 6: return UnpackBytes<6>(w, first_row, count, columns, panel.codes);
    default: return UnpackBytes<8>(w, first_row, count, columns, panel.codes);
  }
}

}  // namespace pensieve::backend::cpu::PENSIEVE_ISA
