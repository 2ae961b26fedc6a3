// The product of one or two precise rows with weights of 4 or 8 bits, the codes used as they are read: what UnpackCodes and
// QuantTile give together, bit for bit, without writing the codes down.
//
// Weights are streamed row by row. A vector of a row's codes times the activations at the same columns leaves a part of
// a group's sum in every lane; the lanes of kLanes rows are then added and transposed in one, by pairs, so that groups
// end up as vectors of channels. Per 64 bytes of 4-bit codes that is 4 dot products, 3 operations to part the nibbles
// and 3 for the sums, on two ports: about 6 cycles, ahead of what one core reads from memory.
#pragma once

#include "backend/cpu/weight_rows-inl.h"

namespace pensieve::backend::cpu::PENSIEVE_ISA {

inline constexpr int kQuadLanes = kLanes / 4;  // 128-bit quads a vector

// How codes of kBits bits fill vectors when kGroup columns share an activation scale.
template <int kBits, int kGroup>
struct DecodeShape {
  static constexpr int kWordColumns = 32 / kBits;
  static constexpr int kGroupQuads = kGroup / kWordColumns / 4;
  // A step is as many vectors as a group needs, or as many groups as a vector holds.
  static constexpr int kVectors = kGroupQuads > kQuadLanes ? kGroupQuads / kQuadLanes : 1;
  static constexpr int kGroups = kGroupQuads > kQuadLanes ? 1 : kQuadLanes / kGroupQuads;
};

// The planes of one row, at the step's first column.
struct DecodePlanes {
  const int8_t* high;
  const int8_t* low;
  int64_t odd;  // bytes from the even columns' quads to the odd ones'; 4 bits only
};

// All words of a vector, or the first few.
template <bool kFull>
PENSIEVE_INLINE I32 LoadPart(const void* p, int words) {
  return kFull ? LoadInt(p) : LoadWords(p, words);
}

// Lanes' parts of codes * (low + 128 * high), codes of 4 bits (or of mxfp4, at most 24): those of even columns and those
// of odd ones.
PENSIEVE_INLINE I32 DotPlanes(I32 even, I32 odd, I32 high_even, I32 high_odd, I32 low_even, I32 low_odd) {
#if defined(__AVX2__) && !defined(__AVX512VNNI__) && !defined(__AVXVNNI__)
  // Sums of four products fit 16 bits (4 * 24 * 127 = 12,192), so they are widened once a plane; the widening product
  // raises the upper plane by 128 as it goes.
  const I32 high = _mm256_add_epi16(_mm256_maddubs_epi16(even, high_even), _mm256_maddubs_epi16(odd, high_odd));
  const I32 low = _mm256_add_epi16(_mm256_maddubs_epi16(even, low_even), _mm256_maddubs_epi16(odd, low_odd));
  return AddInt(_mm256_madd_epi16(high, _mm256_set1_epi16(128)), _mm256_madd_epi16(low, _mm256_set1_epi16(1)));
#else
  const I32 high = Dot4<false>(Dot4<false>(SetInt(0), even, high_even), odd, high_odd);
  return Dot4<false>(Dot4<false>(ShiftLeft<7>(high), even, low_even), odd, low_odd);
#endif
}

// The same for codes of 8 bits, as LowerCodes leaves them.
PENSIEVE_INLINE I32 DotWidePlanes(I32 codes, I32 high, I32 low) {
  return Dot4<true>(ShiftLeft<7>(Dot4<true>(SetInt(0), codes, high)), codes, low);
}

// One row's codes of a step times the planes of kRows activation rows; the sum over lanes is left to SumStep. words: of
// the only vector, when it is not full.
template <int kBits, bool kFp4, int kRows, int kVectors, bool kFull>
PENSIEVE_INLINE void DotStep(const uint8_t* codes, const DecodePlanes (&planes)[kRows], int words, I32 (&dots)[kRows]) {
  I32 even[kVectors];
  I32 odd[kVectors];
  PENSIEVE_UNROLL
  for (int v = 0; v < kVectors; ++v) {
    const I32 word = LoadPart<kFull>(codes + v * kLanes * 4, words);
    if constexpr (kBits == 8) {
      even[v] = LowerCodes<true>(ToQuadOrder(word));
    } else {
      even[v] = LowNibbles(word);
      odd[v] = HighNibbles(word);
      if constexpr (kFp4) {
        even[v] = LookUpBytes(kE2m1, even[v]);
        odd[v] = LookUpBytes(kE2m1, odd[v]);
      }
    }
  }
  PENSIEVE_UNROLL
  for (int r = 0; r < kRows; ++r) {
    dots[r] = SetInt(0);
    PENSIEVE_UNROLL
    for (int v = 0; v < kVectors; ++v) {
      const auto plane = [&](const int8_t* from) { return LoadPart<kFull>(from + v * kLanes * 4, words); };
      if constexpr (kBits == 8) {
        dots[r] = AddInt(dots[r], DotWidePlanes(even[v], plane(planes[r].high), plane(planes[r].low)));
      } else {
        const int64_t to_odd = planes[r].odd;
        dots[r] = AddInt(dots[r], DotPlanes(even[v], odd[v], plane(planes[r].high), plane(planes[r].high + to_odd),
                                            plane(planes[r].low), plane(planes[r].low + to_odd)));
      }
    }
  }
}

// Where the codes of kLanes channels continue: rows at one distance, in few registers.
struct StridedCodes {
  RowsAt<uint8_t, kLanes> rows;

  PENSIEVE_MEMBER StridedCodes(const CodeRows& source, int64_t stride, int64_t at) : rows(source.rows[0] + at, stride) {
    rows.KeepInRegisters();
  }
  PENSIEVE_MEMBER const uint8_t* operator[](int i) const { return rows[i]; }
};
// The same for a panel's end, where the last channel is repeated.
struct ListedCodes {
  const CodeRows& source;
  int64_t at;

  PENSIEVE_MEMBER ListedCodes(const CodeRows& from, int64_t, int64_t offset) : source(from), at(offset) {}
  PENSIEVE_MEMBER const uint8_t* operator[](int i) const { return source.rows[i] + at; }
};

// sums[r][g]: the integer sums of the step's groups, a lane a channel. ahead: bytes to what is wanted next, or 0.
template <int kBits, int kGroup, bool kFp4, int kRows, bool kFull, typename Codes>
PENSIEVE_INLINE void SumStep(const Codes& source, int64_t ahead, const DecodePlanes (&planes)[kRows], int words,
                             I32 (&sums)[kRows][DecodeShape<kBits, kGroup>::kGroups]) {
  using Shape = DecodeShape<kBits, kGroup>;
  I32 quads[kRows][kQuadLanes];
  PENSIEVE_UNROLL
  for (int q = 0; q < kQuadLanes; ++q) {
    I32 pairs[kRows][2];
    PENSIEVE_UNROLL
    for (int half = 0; half < 2; ++half) {
      I32 dots[2][kRows];
      PENSIEVE_UNROLL
      for (int i = 0; i < 2; ++i) {
        const uint8_t* codes = source[4 * q + 2 * half + i];
        if (ahead > 0) Prefetch(codes + ahead);
        DotStep<kBits, kFp4, kRows, Shape::kVectors, kFull>(codes, planes, words, dots[i]);
      }
      PENSIEVE_UNROLL
      for (int r = 0; r < kRows; ++r) pairs[r][half] = AddPairs(dots[0][r], dots[1][r]);
    }
    PENSIEVE_UNROLL
    for (int r = 0; r < kRows; ++r) quads[r][q] = AddPairs(pairs[r][0], pairs[r][1]);
  }
  PENSIEVE_UNROLL
  for (int r = 0; r < kRows; ++r) {
    TransposeQuads(quads[r]);
    constexpr int kGroupQuads = kQuadLanes / Shape::kGroups;
    PENSIEVE_UNROLL
    for (int g = 0; g < Shape::kGroups; ++g) {
      sums[r][g] = quads[r][g * kGroupQuads];
      PENSIEVE_UNROLL
      for (int q = 1; q < kGroupQuads; ++q) sums[r][g] = AddInt(sums[r][g], quads[r][g * kGroupQuads + q]);
    }
  }
}

// Scales and biases of kScaleBlock weight groups of kLanes channels, from group `first` on.
struct ScaleBlock {
  int64_t first;
  F32 scale[kScaleBlock];
  F32 bias[kScaleBlock];
};

// The block that holds group g. The last block of a row begins earlier instead of being short, for a short one is
// loaded number by number.
PENSIEVE_INLINE void LoadScaleBlock(const QuantWeight& w, const ScaleRows& scales, const ScaleRows& biases, int64_t g,
                                    ScaleBlock* block) {
  const int64_t groups = w.cols / w.group;
  const int n = groups < kScaleBlock ? static_cast<int>(groups) : kScaleBlock;
  block->first = g + n <= groups ? g : groups - n;
  LoadScales(scales, block->first, n, block->scale);
  if (w.biases != nullptr) {
    LoadScales(biases, block->first, n, block->bias);
  } else {
    for (int i = 0; i < n; ++i) block->bias[i] = Set(-w.zero) * block->scale[i];
  }
}

template <int kBits, int kGroup, bool kFp4, int kRows, typename Codes>
static void DecodeChannels(const QuantWeight& w, int64_t first_row, int64_t channel, int64_t count,
                           const QuantRows& rows, int64_t first, float* tile) {
  using Shape = DecodeShape<kBits, kGroup>;
  constexpr int64_t kStepBytes = Shape::kGroups * kGroup * kBits / 8;
  const CodeRows source = RowsFrom(w, first_row, channel, count);
  const ScaleRows scales = ScalesFrom(w, w.scales, first_row, channel, count);
  const ScaleRows biases = w.biases == nullptr ? scales : ScalesFrom(w, w.biases, first_row, channel, count);
  // Weight groups hold one activation group or two: shifts, for divisions would take as long as a step.
  const int shift = w.group > kGroup ? 1 : 0;
  F32 acc[kRows];
  for (int r = 0; r < kRows; ++r) acc[r] = Zero();
  ScaleBlock block;
  for (int64_t g = 0; g < rows.groups; g += Shape::kGroups) {
    if ((g & ((kScaleBlock << shift) - 1)) == 0) LoadScaleBlock(w, scales, biases, g >> shift, &block);
    const int64_t k = g * kGroup;
    DecodePlanes planes[kRows];
    for (int r = 0; r < kRows; ++r) {
      const int64_t row = (first + r) * w.cols;
      planes[r] = kBits == 8 ? DecodePlanes{rows.first.high + row + k, rows.first.low + row + k, 0}
                             : DecodePlanes{rows.split_high + row + k / 2, rows.split_low + row + k / 2, w.cols / 2};
    }
    I32 sums[kRows][Shape::kGroups];
    const int64_t words = (w.cols - k) / Shape::kWordColumns;
    const int64_t at = k * kBits / 8;
    const Codes codes(source, w.row_bytes, at);
    // Once a cache line.
    const int64_t ahead = at % kCacheLine < kStepBytes ? source.next_panel : 0;
    if (words >= kLanes) {
      SumStep<kBits, kGroup, kFp4, kRows, true>(codes, ahead, planes, kLanes, sums);
    } else {
      SumStep<kBits, kGroup, kFp4, kRows, false>(codes, ahead, planes, static_cast<int>(words), sums);
    }
    PENSIEVE_UNROLL
    for (int i = 0; i < Shape::kGroups; ++i) {
      if (g + i >= rows.groups) break;
      const int64_t in_block = ((g + i) >> shift) - block.first;
      PENSIEVE_UNROLL
      for (int r = 0; r < kRows; ++r) {
        const QuantGroup& group = rows.first.groups[(first + r) * rows.groups + g + i];
        acc[r] = AddGroup(acc[r], RaiseSum<kBits == 8>(sums[r][i], group), Set(group.scale), Set(group.sum),
                          block.scale[in_block], block.bias[in_block]);
      }
    }
  }
  for (int r = 0; r < kRows; ++r) Store(tile + r * kPanel + channel, acc[r]);
}

template <int kBits, int kGroup, bool kFp4, int kRows>
PENSIEVE_INLINE void DecodeRows(const QuantWeight& w, int64_t first_row, int64_t count, const QuantRows& rows,
                                int64_t first, float* tile) {
  for (int64_t channel = 0; channel < kPanel; channel += kLanes) {
    if (channel + kLanes <= count) {
      DecodeChannels<kBits, kGroup, kFp4, kRows, StridedCodes>(w, first_row, channel, count, rows, first, tile);
    } else {
      DecodeChannels<kBits, kGroup, kFp4, kRows, ListedCodes>(w, first_row, channel, count, rows, first, tile);
    }
  }
}

template <int kBits, int kGroup, bool kFp4>
static void DecodePanel(const QuantWeight& w, int64_t first_row, int64_t count, const QuantRows& rows, int64_t first,
                        int64_t count_rows, float* tile) {
  if (count_rows == 1) {
    DecodeRows<kBits, kGroup, kFp4, 1>(w, first_row, count, rows, first, tile);
  } else {
    DecodeRows<kBits, kGroup, kFp4, 2>(w, first_row, count, rows, first, tile);
  }
}

static void DecodeTile(const QuantWeight& w, int64_t first_row, int64_t count, const QuantRows& rows, int64_t first,
                       int64_t count_rows, float* tile) {
  const bool short_groups = w.activation_group() == 32;
  if (w.fp4) return DecodePanel<4, 32, true>(w, first_row, count, rows, first, count_rows, tile);
  if (w.bits == 4) {
    return short_groups ? DecodePanel<4, 32, false>(w, first_row, count, rows, first, count_rows, tile)
                        : DecodePanel<4, 64, false>(w, first_row, count, rows, first, count_rows, tile);
  }
  return short_groups ? DecodePanel<8, 32, false>(w, first_row, count, rows, first, count_rows, tile)
                      : DecodePanel<8, 64, false>(w, first_row, count, rows, first, count_rows, tile);
}

// Quads of even columns first, then those of odd ones: words of eight 4-bit codes meet one of each.
static void SplitQuads(const int8_t* plane, int64_t cols, int8_t* out) {
  int8_t* odd = out + cols / 2;
  for (int64_t k = 0; k < cols; k += 8) {
    memcpy(out + k / 2, plane + k, 4);
    memcpy(odd + k / 2, plane + k + 4, 4);
  }
}

}  // namespace pensieve::backend::cpu::PENSIEVE_ISA
