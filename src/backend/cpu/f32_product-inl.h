// The f32 tile product that dense weights, exact mode and attention share, and what happens to finished tiles.
//
// C[r][j] += sum over k ascending of A[r][k] * B[k][j], one accumulator an output, one Fma a term: the result of an
// output does not depend on the tile that computed it. B is a panel in cache, rows of whole vectors; A and C are f32
// with any stride. Limited by the two FMA units: 12 rows by 2 vectors keep 24 sums in AVX-512's 32 registers, 4 by 2
// keep 8 in AVX2's 16 beside operands, 8 by 2 keep 16 in NEON's 32 beside four terms of each row; smaller tiles only at
// the edges.
#pragma once

#include "backend/cpu/math-inl.h"

namespace pensieve::backend::cpu::PENSIEVE_ISA {

inline constexpr int kTileRows = kRegisters < 32 ? 4 : kFloatRun == 1 ? 12 : 8;
inline constexpr int kPanel = 2 * kLanes;
inline constexpr int64_t kCacheLine = 64;

// Rows at a stride from p, three a register: x86 addresses hold a stride once or twice, and the compiler left to itself
// keeps one address a row, most of them on the stack.
template <typename T, int kRows>
struct RowsAt {
  const T* thirds[(kRows + 2) / 3];
  int64_t stride;

  PENSIEVE_MEMBER RowsAt(const T* p, int64_t row_stride) : stride(row_stride) {
    PENSIEVE_UNROLL
    for (int i = 0; i < (kRows + 2) / 3; ++i) thirds[i] = p + 3 * i * row_stride;
  }
  PENSIEVE_MEMBER void KeepInRegisters() {
    PENSIEVE_UNROLL
    for (int i = 0; i < (kRows + 2) / 3; ++i) KeepInRegister(thirds[i]);
  }
  PENSIEVE_MEMBER const T* operator[](int r) const { return thirds[r / 3] + r % 3 * stride; }
  PENSIEVE_MEMBER void Advance(int64_t n) {
    PENSIEVE_UNROLL
    for (int i = 0; i < (kRows + 2) / 3; ++i) thirds[i] += n;
  }
};

PENSIEVE_INLINE F32 LoadColumn(const float* p) { return Load(p); }
PENSIEVE_INLINE F32 LoadColumn(const uint16_t* p) { return LoadF16(p); }

// Operands of a tile product: C [rows, columns] = A [rows, depth] * B [depth, columns], or added to C.
template <typename B>
struct F32Operands {
  const float* a;
  int64_t a_stride;
  const B* b;  // f32, or f16 as uint16_t
  int64_t b_stride;
  int64_t depth;
  float* c;
  int64_t c_stride;

  F32Operands At(int64_t row, int64_t column) const {
    return {a + row * a_stride, a_stride, b + column, b_stride, depth, c + row * c_stride + column, c_stride};
  }
};

template <int kRows, int kVectors, bool kAdd, typename B>
PENSIEVE_INLINE void F32Block(const F32Operands<B>& o) {
  F32 sums[kRows][kVectors];
  PENSIEVE_UNROLL
  for (int r = 0; r < kRows; ++r) {
    for (int v = 0; v < kVectors; ++v) sums[r][v] = kAdd ? Load(o.c + r * o.c_stride + v * kLanes) : Zero();
  }
  RowsAt<float, kRows> rows(o.a, o.a_stride);
  const B* b = o.b;
  int64_t k = 0;
  for (; k + kFloatRun <= o.depth; k += kFloatRun) {
    rows.KeepInRegisters();
    FloatRun runs[kRows];
    PENSIEVE_UNROLL
    for (int r = 0; r < kRows; ++r) runs[r] = LoadFloatRun(rows[r]);
    PENSIEVE_UNROLL
    for (int i = 0; i < kFloatRun; ++i) {
      F32 column[kVectors];
      for (int v = 0; v < kVectors; ++v) column[v] = LoadColumn(b + v * kLanes);
      PENSIEVE_UNROLL
      for (int r = 0; r < kRows; ++r) {
        for (int v = 0; v < kVectors; ++v) sums[r][v] = FmaRun(runs[r], i, column[v], sums[r][v]);
      }
      b += o.b_stride;
    }
    rows.Advance(kFloatRun);
  }
  for (; kFloatRun > 1 && k < o.depth; ++k) {
    F32 column[kVectors];
    for (int v = 0; v < kVectors; ++v) column[v] = LoadColumn(b + v * kLanes);
    PENSIEVE_UNROLL
    for (int r = 0; r < kRows; ++r) {
      const F32 x = Set(*rows[r]);
      for (int v = 0; v < kVectors; ++v) sums[r][v] = Fma(x, column[v], sums[r][v]);
    }
    b += o.b_stride;
    rows.Advance(1);
  }
  PENSIEVE_UNROLL
  for (int r = 0; r < kRows; ++r) {
    for (int v = 0; v < kVectors; ++v) Store(o.c + r * o.c_stride + v * kLanes, sums[r][v]);
  }
}

template <int kVectors, bool kAdd, typename B>
static void F32Rows(const F32Operands<B>& o, int64_t rows) {
  int64_t r = 0;
  for (; r + kTileRows <= rows; r += kTileRows) F32Block<kTileRows, kVectors, kAdd>(o.At(r, 0));
  if constexpr (kTileRows > 4) {
    // 7 query heads that share keys are one block, so that these are converted once.
    for (; r + 7 <= rows; r += 7) F32Block<7, kVectors, kAdd>(o.At(r, 0));
    for (; r + 4 <= rows; r += 4) F32Block<4, kVectors, kAdd>(o.At(r, 0));
  }
  for (; r + 2 <= rows; r += 2) F32Block<2, kVectors, kAdd>(o.At(r, 0));
  if (r < rows) F32Block<1, kVectors, kAdd>(o.At(r, 0));
}

template <bool kAdd, typename B>
static void F32Columns(const F32Operands<B>& o, int64_t rows, int64_t columns) {
  int64_t j = 0;
  for (; j + kPanel <= columns; j += kPanel) F32Rows<2, kAdd>(o.At(0, j), rows);
  if (j < columns) F32Rows<1, kAdd>(o.At(0, j), rows);
}

static void F32Tile(const float* a, int64_t a_stride, int64_t rows, const float* panel, int64_t depth, bool add,
                    float* tile) {
  const F32Operands<float> operands = {a, a_stride, panel, kPanel, depth, tile, kPanel};
  add ? F32Columns<true>(operands, rows, kPanel) : F32Columns<false>(operands, rows, kPanel);
}

template <typename Value>
PENSIEVE_INLINE void StoreTileWith(const TileOutput& o, Value value) {
  constexpr int64_t kStoredAhead = 8;  // rows: some hundred cycles
  for (int64_t r = 0; r < o.rows; ++r) {
    float* out = o.out + r * o.stride;
    // Rows lie pages apart, which no processor foresees.
    for (int64_t c = 0; c < o.cols; c += 16) __builtin_prefetch(out + kStoredAhead * o.stride + c, 1);
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

// Asks for the next panel on the way.
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
        __builtin_prefetch(data + ((row + kPanel) * weight.cols + first_k + k) * bytes, 0, 2);
        square[i] = FloatBits(LoadDense(data + (row * weight.cols + first_k + k) * bytes, weight.dtype, lanes));
      }
      Transpose(square);
      for (int i = 0; i < lanes; ++i) StoreInt(panel_out + (k + i) * kPanel + channel, square[i]);
    }
  }
}

}  // namespace pensieve::backend::cpu::PENSIEVE_ISA
