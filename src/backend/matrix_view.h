// Matrices and vectors by their addresses, for backends whose memory has any.
#pragma once

#include <cstdint>

#include "backend/backend.h"
#include "base/check.h"

namespace pensieve::backend {

// A row-major f32 matrix in memory; `stride` is in elements. Borrows.
struct MatrixView {
  float* data = nullptr;
  int64_t rows = 0;
  int64_t cols = 0;
  int64_t stride = 0;

  float* row(int64_t r) const { return data + r * stride; }
  MatrixView Columns(int64_t from, int64_t count) const { return {data + from, rows, count, stride}; }
  MatrixView Rows(int64_t from, int64_t count) const { return {data + from * stride, count, cols, stride}; }
};

inline MatrixView View(const Matrix& matrix) {
  if (matrix.buffer == nullptr) {
    PENSIEVE_CHECK(matrix.rows == 0 || matrix.cols == 0);
    return {nullptr, matrix.rows, matrix.cols, matrix.stride};
  }
  PENSIEVE_CHECK(matrix.buffer->base != nullptr);
  return {matrix.buffer->base + matrix.first, matrix.rows, matrix.cols, matrix.stride};
}

// Null for a null vector.
inline const float* View(const Vector& vector) {
  return vector.buffer == nullptr ? nullptr : vector.buffer->base + vector.first;
}

}  // namespace pensieve::backend
