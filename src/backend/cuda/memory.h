// Device memory that frees itself, and errors of the CUDA runtime as ours.
#pragma once

#include <cuda_runtime_api.h>

#include <cstddef>
#include <cstdint>
#include <string_view>
#include <utility>

#include "base/status.h"

namespace pensieve::backend::cuda {

// ResourceExhausted for memory, Unavailable for everything else that a device may fail with; the message names `what`.
Status ToStatus(cudaError_t error, std::string_view what);

// Bytes on the device that was current when they were allocated, 256-byte aligned.
class DeviceMemory {
 public:
  DeviceMemory() = default;
  // ResourceExhausted when the device has no more. Contents are undefined.
  static Result<DeviceMemory> Allocate(size_t bytes);

  DeviceMemory(DeviceMemory&& other) noexcept { *this = std::move(other); }
  DeviceMemory& operator=(DeviceMemory&& other) noexcept {
    std::swap(data_, other.data_);
    std::swap(size_, other.size_);
    return *this;
  }
  ~DeviceMemory();

  size_t size() const { return size_; }
  template <typename T>
  T* as() const {
    return static_cast<T*>(data_);
  }

 private:
  void* data_ = nullptr;
  size_t size_ = 0;
};

}  // namespace pensieve::backend::cuda
