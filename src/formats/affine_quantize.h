// Floats to MLX's affine form, bit for bit as mlx.core.quantize does it on a CPU.
//
// Per group of `group` elements along a row, in f32, with n = 2^bits - 1: the end of the group's range that is larger in
// magnitude becomes the bias and is kept exactly; the scale is changed a little so that zero falls on a code.
//   s = max((max - min) / n, 1e-7), negative unless |min| > |max|;  edge = |min| > |max| ? min : max
//   z = rint(edge / s);  z != 0: s = edge / z, b = edge;  else b = 0
//   q = clamp(rint((w - b) / s), 0, n);  s and b are then rounded to the type of the source
#pragma once

#include <cstdint>
#include <span>

#include "base/status.h"
#include "formats/ggml_convert.h"
#include "tensor/weight.h"

namespace pensieve::formats {

struct AffineFormat {
  int bits = 4;    // 2, 3, 4, 5, 6 or 8
  int group = 64;  // a multiple of 32
};

// Bytes that a kernel reads of such a matrix.
size_t AffineBytes(int64_t rows, int64_t cols, tensor::DType scale_dtype, const AffineFormat& format);

// `source.cols` must be a multiple of the group. Row r of the result is row source_rows[r] of the source; empty: in its
// order. DataLoss when a value is no finite number. Rows are shared among `threads` threads (0: one per processor).
Result<tensor::Weight> QuantizeAffine(const tensor::DenseWeight& source, std::span<const int32_t> source_rows,
                                      const AffineFormat& format, const AllocateBytes& allocate, int threads = 0);

}  // namespace pensieve::formats
