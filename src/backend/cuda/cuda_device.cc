#include "backend/cuda/cuda_device.h"

#include <cuda_runtime_api.h>
#include <fmt/format.h>

#include "backend/cuda/cuda_backend.h"
#include "backend/cuda/memory.h"
#include "backend/devices.h"

namespace pensieve::backend::cuda {

BackendDescription CudaDevice::Describe(const BackendOptions& options) const {
  BackendDescription description;
  description.device = "cuda";
  description.name = fmt::format("cuda:{} ({})", index_, name_);
  description.threads = 1;
  description.memory_bytes = memory_bytes_;
  description.company_matters = false;
  description.precision_differs = options.activations == InputPrecision::kInt8;
  description.kv_dtypes = {KvDType::kF16, KvDType::kF32, KvDType::kInt8};
  return description;
}

int64_t CudaDevice::AvailableBytes() const {
  size_t available = 0;
  size_t total = 0;
  if (cudaSetDevice(index_) != cudaSuccess || cudaMemGetInfo(&available, &total) != cudaSuccess) return 0;
  return static_cast<int64_t>(available);
}

Result<std::unique_ptr<Backend>> CudaDevice::NewBackend(const BackendOptions& options) {
  return CudaBackend::Create(*this, options);
}

Result<std::shared_ptr<Device>> NewCudaDevice(int index) {
  int count = 0;
  const cudaError_t error = cudaGetDeviceCount(&count);
  if (error == cudaErrorInsufficientDriver || error == cudaErrorNoDevice) {
    cudaGetLastError();
    return Unavailable(error == cudaErrorNoDevice ? "this machine has no NVIDIA GPU"
                                                  : "this machine has no NVIDIA driver, or one that is too old");
  }
  PENSIEVE_RETURN_IF_ERROR(ToStatus(error, "the NVIDIA driver does not answer"));
  if (index < 0 || index >= count) {
    return Unavailable(fmt::format("there is no GPU {}: this machine has {}, counted from 0", index, count));
  }
  cudaDeviceProp properties;
  PENSIEVE_RETURN_IF_ERROR(ToStatus(cudaGetDeviceProperties(&properties, index), "the GPU does not answer"));
  if (properties.major < 8) {
    return Unavailable(fmt::format("{} has compute capability {}.{}; 8.0 (Ampere) or newer is needed", properties.name,
                                   properties.major, properties.minor));
  }
  return std::shared_ptr<Device>(
      std::make_shared<CudaDevice>(index, properties.name, static_cast<int64_t>(properties.totalGlobalMem)));
}

}  // namespace pensieve::backend::cuda

namespace pensieve::backend {

// A row of devices.cc.
Result<std::shared_ptr<Device>> OpenCudaDevice(const DeviceOptions& options);

Result<std::shared_ptr<Device>> OpenCudaDevice(const DeviceOptions& options) {
  return cuda::NewCudaDevice(options.index);
}

}  // namespace pensieve::backend
