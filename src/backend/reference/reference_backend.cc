#include "backend/reference/reference_backend.h"

#include <unistd.h>

#include <algorithm>
#include <utility>

#include "backend/checks.h"

namespace pensieve::backend {

std::unique_ptr<Backend> NewReferenceBackend() { return std::make_unique<reference::ReferenceBackend>(); }

namespace reference {

DeviceDescription ReferenceBackend::Describe() const {
  const auto pages = static_cast<int64_t>(::sysconf(_SC_PHYS_PAGES));
  return {"reference (scalar)", 1, pages * static_cast<int64_t>(::sysconf(_SC_PAGESIZE))};
}

Result<tensor::Weight> ReferenceBackend::Import(const tensor::Weight& weight) { return weight; }

Result<Matrix> ReferenceBackend::NewMatrix(int64_t rows, int64_t cols) {
  PENSIEVE_TRY(const size_t bytes, MatrixBytes(rows, cols));
  PENSIEVE_TRY(auto buffer, tensor::Buffer::Allocate(bytes));
  buffers_.push_back(std::move(buffer));
  return Matrix{buffers_.back().as<float>(), rows, cols, cols};
}

void ReferenceBackend::CopyToDevice(std::span<const float> host, float* device) {
  std::copy(host.begin(), host.end(), device);
}

void ReferenceBackend::CopyToHost(const float* device, std::span<float> host) {
  std::copy_n(device, host.size(), host.begin());
}

}  // namespace reference
}  // namespace pensieve::backend
