#include "backend/cuda/memory.h"

#include <fmt/format.h>

namespace pensieve::backend::cuda {

Status ToStatus(cudaError_t error, std::string_view what) {
  if (error == cudaSuccess) return OkStatus();
  const std::string message = fmt::format("{}: {}", what, cudaGetErrorString(error));
  return error == cudaErrorMemoryAllocation ? ResourceExhausted(message) : Unavailable(message);
}

Result<DeviceMemory> DeviceMemory::Allocate(size_t bytes) {
  DeviceMemory memory;
  if (bytes == 0) return memory;
  const cudaError_t error = cudaMalloc(&memory.data_, bytes);
  if (error == cudaErrorMemoryAllocation) {
    cudaGetLastError();  // it is told here, and must not be found again after the next launch
    size_t available = 0;
    size_t total = 0;
    cudaMemGetInfo(&available, &total);
    return ResourceExhausted(fmt::format("the GPU has no room for {} MB more: {} of {} MB are free", bytes >> 20,
                                         available >> 20, total >> 20));
  }
  PENSIEVE_RETURN_IF_ERROR(ToStatus(error, "the GPU gives no memory"));
  memory.size_ = bytes;
  return memory;
}

DeviceMemory::~DeviceMemory() {
  if (data_ != nullptr) cudaFree(data_);
}

}  // namespace pensieve::backend::cuda
