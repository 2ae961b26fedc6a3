// GGUF tensors in the three weight forms that kernels know.
//
//   F32, F16, BF16      dense, in place
//   Q4_0, Q5_0, Q8_0    affine 4, 5, 8 bits, group 32, symmetric, the file's f16 scales: exact
//   Q4_1, Q5_1          affine 4, 5 bits, group 32 with biases, the file's f16 scales: exact
//   IQ4_NL, IQ4_XS      affine 8 bits, group 32, symmetric; f16 and f32 scales: exact
//   Q2_K                affine 2 bits, group 16, f32 scales d*sc and biases -dmin*m: exact up to the sign of zero
//   Q3_K, Q6_K          affine 3, 6 bits, group 16, symmetric, f32 scales: exact
//   Q4_K, Q5_K          affine 4, 5 bits, group 32, f32 scales and biases: exact
//   MXFP4               microscaled fp4: exact
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <optional>
#include <span>

#include "base/status.h"
#include "formats/ggml_blocks.h"
#include "tensor/weight.h"

namespace pensieve::formats {

// A matrix as it lies in a file. Borrows.
struct GgmlMatrix {
  GgmlType type = GgmlType::kF32;
  int64_t rows = 0;
  int64_t cols = 0;                  // a whole number of blocks
  std::span<const std::byte> bytes;  // rows * cols elements; no alignment
  // Row r of the result is row source_rows[r] of the file; empty: in the file's order.
  std::span<const int32_t> source_rows;
};

// Memory that outlives the weight, 64-byte aligned.
using AllocateBytes = std::function<Result<std::byte*>(size_t bytes)>;

// The float type that kernels read a dense type as (F64 becomes F32); nothing for quantized types.
std::optional<tensor::DType> DenseDType(GgmlType type);

// Bytes that a kernel reads of this matrix once converted.
size_t ConvertedBytes(GgmlType type, int64_t rows, int64_t cols);

// True when the matrix is used where it lies in the file: dense types in the file's row order.
bool UsedInPlace(const GgmlMatrix& matrix);

// Rows are converted by `threads` threads (0: one per processor). Unimplemented, naming the type, for types without a
// decoder.
Result<tensor::Weight> ConvertGgmlMatrix(const GgmlMatrix& matrix, const AllocateBytes& allocate, int threads = 0);

}  // namespace pensieve::formats
