#include "backend/mlx/mlx_device.h"

#include <fmt/format.h>
#ifdef __APPLE__
#include <stdlib.h>
#include <sys/sysctl.h>
#endif
#include <unistd.h>

#include <algorithm>
#include <variant>

#include "backend/devices.h"
#include "backend/mlx/mlx_backend.h"
#include "base/system_memory.h"

namespace pensieve::backend::mlx {
namespace {

// Freed buffers that MLX keeps for arrays of similar sizes. Its own limit is all memory.
constexpr size_t kCacheBytes = size_t{1} << 30;

// M1 to M4 run faster when more operations are sent to the GPU at once; newer ones gain nothing. MLX reads this when it
// first uses the GPU.
void PreferLargeCommandBuffers() {
#ifdef __APPLE__
  char brand[128] = {};
  size_t size = sizeof(brand) - 1;
  if (::sysctlbyname("machdep.cpu.brand_string", brand, &size, nullptr, 0) != 0) return;
  const std::string_view name = brand;
  for (const std::string_view early : {"Apple M1", "Apple M2", "Apple M3", "Apple M4"}) {
    if (name.starts_with(early)) ::setenv("MLX_MAX_OPS_PER_BUFFER", "1000", /*overwrite=*/0);
  }
#endif
}

template <typename T>
T Fact(const mx::Device& device, const char* key, T otherwise) {
  const auto& facts = mx::device_info(device);
  const auto fact = facts.find(key);
  if (fact == facts.end()) return otherwise;
  const T* value = std::get_if<T>(&fact->second);
  return value == nullptr ? otherwise : *value;
}

int64_t MachineMemory() {
  return static_cast<int64_t>(::sysconf(_SC_PHYS_PAGES)) * static_cast<int64_t>(::sysconf(_SC_PAGESIZE));
}

// The first use of a GPU loads MLX's kernels: a missing mlx.metallib, or one for another macOS, shows here and not at
// the first request.
void TryTheGpu() {
  mx::array one = mx::add(mx::array(1.0f), mx::array(0.0f));
  one.eval();
}

std::shared_ptr<pensieve::backend::Device> OpenGpu() {
  const mx::Device gpu(mx::Device::gpu, 0);
  mx::set_default_device(gpu);
  TryTheGpu();
  const auto memory = static_cast<int64_t>(Fact<size_t>(gpu, "memory_size", 0));
  const auto working_set = static_cast<int64_t>(Fact<size_t>(gpu, "max_recommended_working_set_size", 0));
  if (working_set > 0) {
    // What lies beyond is swapped, or ends in a panic of the kernel.
    mx::set_memory_limit(static_cast<size_t>(working_set));
    mx::set_wired_limit(static_cast<size_t>(working_set));
  }
  const std::string name = Fact<std::string>(gpu, "device_name", "GPU");
  return std::make_shared<MlxDevice>(fmt::format("mlx ({})", name), memory > 0 ? memory : MachineMemory(), working_set);
}

}  // namespace

Result<std::shared_ptr<pensieve::backend::Device>> MlxDevice::Open(bool processor_too) {
  PreferLargeCommandBuffers();
  try {
    const bool has_gpu = mx::is_available(mx::Device(mx::Device::gpu, 0));
    if (!has_gpu && !processor_too) return Unavailable("MLX finds no GPU on this machine");
    mx::set_cache_limit(kCacheBytes);
    if (has_gpu) return OpenGpu();
    mx::set_default_device(mx::Device(mx::Device::cpu, 0));
    return std::shared_ptr<pensieve::backend::Device>(
        std::make_shared<MlxDevice>("mlx (on the processor: for tests)", MachineMemory(), 0));
  } catch (const std::exception& error) {
    return Unavailable(fmt::format(
        "MLX cannot use the GPU ({}). Its kernels, mlx.metallib, must lie beside libmlx.dylib and be those of "
        "this macOS: run tools/fetch_mlx.sh again",
        error.what()));
  }
}

BackendDescription MlxDevice::Describe(const BackendOptions&) const {
  BackendDescription description;
  description.device = "mlx";
  description.name = name_;
  description.threads = 1;
  description.memory_bytes = memory_bytes_;
  // MLX chooses its kernels by the number of rows, and each sums in its own order.
  description.company_matters = true;
  description.precision_differs = false;
  description.kv_dtypes = {KvDType::kF16, KvDType::kF32, KvDType::kInt8};
  return description;
}

int64_t MlxDevice::AvailableBytes() const {
  const int64_t machine = AvailableMemoryBytes().value_or(0);
  if (working_set_ == 0) return machine;
  const int64_t left = std::max<int64_t>(1, working_set_ - static_cast<int64_t>(mx::get_active_memory()));
  return machine > 0 ? std::min(machine, left) : left;
}

Status MlxDevice::CheckRoom(int64_t bytes, std::string_view what) const {
  const int64_t left = AvailableBytes();
  if (left == 0 || bytes <= left) return OkStatus();
  return ResourceExhausted(
      fmt::format("{} would take {}, and {} are left", what, FormatBytes(bytes), FormatBytes(left)));
}

Result<std::unique_ptr<Backend>> MlxDevice::NewBackend(const BackendOptions& options) {
  return std::unique_ptr<Backend>(std::make_unique<MlxBackend>(*this, options));
}

}  // namespace pensieve::backend::mlx

namespace pensieve::backend {

// A row of devices.cc.
Result<std::shared_ptr<Device>> OpenMlxDevice(const DeviceOptions& options);

Result<std::shared_ptr<Device>> OpenMlxDevice(const DeviceOptions& options) {
  if (options.index != 0) return Unavailable("MLX has one device: mlx or mlx:0");
  // MLX's own kernels for processors are slow: they are never what `auto` means.
  return mlx::MlxDevice::Open(/*processor_too=*/options.by_name);
}

}  // namespace pensieve::backend
