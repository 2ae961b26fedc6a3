#include "backend/host_backend.h"

#include <algorithm>
#include <utility>

#include "backend/checks.h"

namespace pensieve::backend {

Result<Vector> HostBackend::ImportVector(std::span<const float> values) {
  PENSIEVE_TRY(const Matrix row, NewMatrix(1, static_cast<int64_t>(values.size())));
  std::copy(values.begin(), values.end(), row.buffer->base);
  return Vector{row.buffer, 0};
}

Result<Matrix> HostBackend::NewMatrix(int64_t rows, int64_t cols) {
  PENSIEVE_TRY(const size_t bytes, MatrixBytes(rows, cols));
  PENSIEVE_TRY(auto buffer, tensor::Buffer::Allocate(bytes));
  buffers_.emplace_back(std::move(buffer));
  return Matrix{&buffers_.back(), 0, rows, cols, cols};
}

void HostBackend::BeginStep(const StepInputs& inputs) {
  CheckStep(inputs);
  step_ = inputs;
}

Status HostBackend::CopyToDevice(std::span<const float> host, Matrix device) {
  const MatrixView view = View(device);
  PENSIEVE_CHECK(static_cast<int64_t>(host.size()) == view.rows * view.cols);
  for (int64_t r = 0; r < view.rows; ++r) std::copy_n(host.data() + r * view.cols, view.cols, view.row(r));
  return OkStatus();
}

Status HostBackend::CopyToHost(Matrix device, std::span<float> host) {
  const MatrixView view = View(device);
  PENSIEVE_CHECK(static_cast<int64_t>(host.size()) == view.rows * view.cols);
  for (int64_t r = 0; r < view.rows; ++r) std::copy_n(view.row(r), view.cols, host.data() + r * view.cols);
  return OkStatus();
}

Status HostBackend::ReadDrawn(std::span<int32_t> tokens) {
  PENSIEVE_CHECK(tokens.size() == drawn_.size());
  std::copy(drawn_.begin(), drawn_.end(), tokens.begin());
  return OkStatus();
}

int64_t HostBackend::PreciseRows(const MatMulInput& input) const {
  if (input.precision == RowPrecision::kPrecise) return input.x.rows;
  PENSIEVE_CHECK(input.x.rows == step_.rows);
  return step_.precise_rows;
}

int64_t HostBackend::EmbeddingRow(EmbedBy by, int64_t r) const {
  if (by == EmbedBy::kFirst) return 0;
  const std::span<const int32_t> rows = by == EmbedBy::kId ? step_.ids : step_.positions;
  return rows[static_cast<size_t>(r)];
}

}  // namespace pensieve::backend
