// The f32 tile product that dense weights, exact mode and attention share, and what happens to finished tiles.
//
// C[r][j] += sum over k ascending of A[r][k] * B[k][j], one accumulator an output, one Fma a term: the result of an
// output does not depend on the tile that computed it. B is a panel in cache, rows of whole vectors; A and C are f32
// with any stride. Limited by the two FMA units: 12 rows by 2 vectors keep 24 sums in AVX-512's 32 registers, 4 by 2
// keep 8 in AVX2's 16 beside operands; smaller tiles only at the edges.
#pragma once

#include "backend/cpu/math-inl.h"

namespace pensieve::backend::cpu::PENSIEVE_ISA {

inline constexpr int kTileRows = kLanes == 16 ? 12 : 4;
inline constexpr int kPanel = 2 * kLanes;

template <int kRows, int kVectors>
PENSIEVE_INLINE void F32Block(const float* a, int64_t a_stride, const float* b, int64_t b_stride, int64_t depth, float* c,
                              int64_t c_stride) {
  F32 sums[kRows][kVectors];
  PENSIEVE_UNROLL
  for (int r = 0; r < kRows; ++r) {
    for (int v = 0; v < kVectors; ++v) sums[r][v] = Load(c + r * c_stride + v * kLanes);
  }
  for (int64_t k = 0; k < depth; ++k) {
    F32 column[kVectors];
    for (int v = 0; v < kVectors; ++v) column[v] = Load(b + k * b_stride + v * kLanes);
    PENSIEVE_UNROLL
    for (int r = 0; r < kRows; ++r) {
      const F32 x = Set(a[r * a_stride + k]);
      for (int v = 0; v < kVectors; ++v) sums[r][v] = Fma(x, column[v], sums[r][v]);
    }
  }
  PENSIEVE_UNROLL
  for (int r = 0; r < kRows; ++r) {
    for (int v = 0; v < kVectors; ++v) Store(c + r * c_stride + v * kLanes, sums[r][v]);
  }
}

template <int kVectors>
static void F32Rows(const float* a, int64_t a_stride, int64_t rows, const float* b, int64_t b_stride, int64_t depth,
                    float* c, int64_t c_stride) {
  int64_t r = 0;
  for (; r + kTileRows <= rows; r += kTileRows) {
    F32Block<kTileRows, kVectors>(a + r * a_stride, a_stride, b, b_stride, depth, c + r * c_stride, c_stride);
  }
  if constexpr (kTileRows > 4) {
    for (; r + 4 <= rows; r += 4) {
      F32Block<4, kVectors>(a + r * a_stride, a_stride, b, b_stride, depth, c + r * c_stride, c_stride);
    }
  }
  for (; r + 2 <= rows; r += 2) {
    F32Block<2, kVectors>(a + r * a_stride, a_stride, b, b_stride, depth, c + r * c_stride, c_stride);
  }
  if (r < rows) F32Block<1, kVectors>(a + r * a_stride, a_stride, b, b_stride, depth, c + r * c_stride, c_stride);
}

static void F32Tile(const float* a, int64_t a_stride, int64_t rows, const float* b, int64_t b_stride, int64_t depth,
                    int64_t columns, float* c, int64_t c_stride) {
  int64_t j = 0;
  for (; j + kPanel <= columns; j += kPanel) F32Rows<2>(a, a_stride, rows, b + j, b_stride, depth, c + j, c_stride);
  if (j < columns) F32Rows<1>(a, a_stride, rows, b + j, b_stride, depth, c + j, c_stride);
}

template <typename Value>
PENSIEVE_INLINE void StoreTileWith(const TileOutput& o, Value value) {
  for (int64_t r = 0; r < o.rows; ++r) {
    float* out = o.out + r * o.stride;
    for (int64_t c = 0; c < o.cols; c += kLanes) {
      const int lanes = o.cols - c < kLanes ? static_cast<int>(o.cols - c) : kLanes;
      F32 y = value(r, c, lanes);
      if (lanes == kLanes) {
        if (o.accumulate) y = Load(out + c) + y;
        Store(out + c, y);
      } else {
        if (o.accumulate) y = LoadN(out + c, lanes) + y;
        StoreN(out + c, y, lanes);
      }
    }
  }
}

static void StoreTile(const float* tile, int64_t tile_stride, const TileOutput& o) {
  StoreTileWith(o, [&](int64_t r, int64_t c, int lanes) {
    F32 y = Load(tile + r * tile_stride + c);
    if (o.bias != nullptr) y = y + (lanes == kLanes ? Load(o.bias + c) : LoadN(o.bias + c, lanes));
    return Activate(y, o.activation);
  });
}

static void StoreGated(const float* gate, const float* up, int64_t tile_stride, const TileOutput& o) {
  StoreTileWith(o, [&](int64_t r, int64_t c, int) {
    return Activate(Load(gate + r * tile_stride + c), o.activation) * Load(up + r * tile_stride + c);
  });
}

// Dense channels into a panel [k][channel]: blocks of kLanes x kLanes transposed in registers. Limited by the shuffle
// port, at 4 bytes a cycle and more, above what one core reads from memory.
PENSIEVE_INLINE F32 LoadDense(const uint8_t* p, tensor::DType dtype, int lanes) {
  const int bytes = dtype == tensor::DType::kF32 ? 4 : 2;
  uint8_t edge[kLanes * 4] = {0};
  if (lanes < kLanes) {
    for (int i = 0; i < lanes * bytes; ++i) edge[i] = p[i];
    p = edge;
  }
  if (dtype == tensor::DType::kF32) return Load(reinterpret_cast<const float*>(p));
  return dtype == tensor::DType::kF16 ? LoadF16(p) : LoadBf16(p);
}

PENSIEVE_INLINE I32 FloatBits(F32 x) {
  I32 bits;
  memcpy(&bits, &x, sizeof(bits));
  return bits;
}

static void UnpackDense(const tensor::DenseWeight& weight, int64_t first_row, int64_t count, int64_t first_k,
                        int64_t count_k, float* panel_out) {
  const int64_t bytes = weight.dtype == tensor::DType::kF32 ? 4 : 2;
  const auto* data = static_cast<const uint8_t*>(weight.data);
  for (int64_t k = 0; k < count_k; k += kLanes) {
    const int lanes = count_k - k < kLanes ? static_cast<int>(count_k - k) : kLanes;
    for (int64_t channel = 0; channel < kPanel; channel += kLanes) {
      I32 square[kLanes];
      for (int64_t i = 0; i < kLanes; ++i) {
        const int64_t row = first_row + (channel + i < count ? channel + i : count - 1);
        square[i] = FloatBits(LoadDense(data + (row * weight.cols + first_k + k) * bytes, weight.dtype, lanes));
      }
      Transpose(square);
      for (int i = 0; i < lanes; ++i) StoreInt(panel_out + (k + i) * kPanel + channel, square[i]);
    }
  }
}

}  // namespace pensieve::backend::cpu::PENSIEVE_ISA
