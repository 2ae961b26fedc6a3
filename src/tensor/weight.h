// The three forms in which kernels know a weight matrix, and nothing else: group-affine, microscaled fp4, dense.
//
// All matrices are row-major [rows = output features, cols = input features]; y = x . W^T. The structs borrow: the
// memory belongs to a mapped file or to the Buffers of a model's weight store, which must outlive them.
#pragma once

#include <cstddef>
#include <cstdint>
#include <variant>

#include "tensor/dtype.h"

namespace pensieve::tensor {

// w[n][k] = scale[n][k / group] * q[n][k] + bias[n][k / group], q an unsigned `bits`-bit integer.
//
// MLX's affine layout exactly: each row of codes is a little-endian bit stream of cols * bits bits (element i occupies
// bits [i*bits, (i+1)*bits) of the row), so row stride = cols * bits / 8 bytes, a whole number of 32-bit words per
// 32 elements. Without biases the form is symmetric: w = scale * (q - 2^(bits-1)). Scales may be negative.
struct AffineWeight {
  int64_t rows = 0;
  int64_t cols = 0;                 // a multiple of group
  int bits = 4;                     // 2, 3, 4, 5, 6 or 8
  int group = 64;                   // 16, 32, 64 or 128 elements along a row
  const uint8_t* codes = nullptr;   // [rows, cols * bits / 8]; no alignment promised
  DType scale_dtype = DType::kF16;  // of scales and biases: kF16, kBF16 or kF32
  const void* scales = nullptr;     // [rows, cols / group]; no alignment promised
  const void* biases = nullptr;     // [rows, cols / group], or null: symmetric

  int64_t row_bytes() const { return cols * bits / 8; }
  int64_t groups() const { return cols / group; }
};

// w[n][k] = e2m1(q[n][k]) * 2^(scale[n][k / 32] - 127): OCP mxfp4. Nibbles packed as AffineWeight with bits = 4.
struct Mxfp4Weight {
  int64_t rows = 0;
  int64_t cols = 0;                 // a multiple of 32
  const uint8_t* codes = nullptr;   // [rows, cols / 2]
  const uint8_t* scales = nullptr;  // [rows, cols / 32], E8M0
};

// Plain floats: kF32, kF16 or kBF16. No alignment promised beyond the element's own when it comes from our Buffers;
// data mapped from a file may start anywhere.
struct DenseWeight {
  int64_t rows = 0;
  int64_t cols = 0;
  DType dtype = DType::kF32;
  const void* data = nullptr;  // [rows, cols]
};

using Weight = std::variant<DenseWeight, AffineWeight, Mxfp4Weight>;

inline int64_t Rows(const Weight& w) {
  return std::visit([](const auto& form) { return form.rows; }, w);
}
inline int64_t Cols(const Weight& w) {
  return std::visit([](const auto& form) { return form.cols; }, w);
}

// Bytes that a kernel reads when it streams the whole matrix once.
size_t WeightBytes(const Weight& w);

// A view of `count` rows starting at `first`: how fused projections are split (scales and biases are split with them).
Weight SliceRows(const Weight& w, int64_t first, int64_t count);

// Row `row` as f32, the definition of every form: q and scale and bias in f32, one product, one sum. out: [cols].
// This is the scalar oracle that kernels are tested against.
void DequantizeRow(const Weight& w, int64_t row, float* out);

}  // namespace pensieve::tensor
