#include "backend/cpu/cpu_device.h"

#include <fmt/format.h>
#include <unistd.h>
#if defined(__linux__)
#include <sched.h>
#elif defined(__APPLE__)
#include <sys/sysctl.h>
#endif

#include <algorithm>
#include <fstream>
#include <set>
#include <string>
#include <thread>
#include <utility>

#include "backend/cpu/cpu_backend.h"
#include "base/processors.h"
#include "base/system_memory.h"

namespace pensieve::backend {
namespace cpu {
namespace {

// One thread a physical core that this process may run on: siblings share the units that kernels are limited by.
int PhysicalCores() {
#if defined(__linux__)
  cpu_set_t allowed;
  CPU_ZERO(&allowed);
  if (::sched_getaffinity(0, sizeof(allowed), &allowed) == 0) {
    std::set<std::string> cores;
    for (int id = 0; id < CPU_SETSIZE; ++id) {
      if (!CPU_ISSET(id, &allowed)) continue;
      std::string siblings;
      std::ifstream file(fmt::format("/sys/devices/system/cpu/cpu{}/topology/thread_siblings_list", id));
      if (!std::getline(file, siblings)) siblings = std::to_string(id);
      cores.insert(siblings);
    }
    if (!cores.empty()) {
      const int count = static_cast<int>(cores.size());
      return std::min(count, ProcessorQuota().value_or(count));
    }
  }
#elif defined(__APPLE__)
  // The fast ones where there are two kinds: an operation ends with its slowest worker.
  for (const char* name : {"hw.perflevel0.physicalcpu", "hw.physicalcpu"}) {
    int cores = 0;
    size_t size = sizeof(cores);
    if (::sysctlbyname(name, &cores, &size, nullptr, 0) == 0 && cores > 0) return cores;
  }
#endif
  return std::max(1, static_cast<int>(std::thread::hardware_concurrency()));
}

}  // namespace

BackendDescription CpuDevice::Describe(const BackendOptions& options) const {
  const auto pages = static_cast<int64_t>(::sysconf(_SC_PHYS_PAGES));
  BackendDescription description;
  description.device = "cpu";
  description.name = fmt::format("cpu ({})", kernels_.isa);
  description.threads = pool_.threads();
  description.memory_bytes = pages * static_cast<int64_t>(::sysconf(_SC_PAGESIZE));
  description.precision_differs = options.activations == InputPrecision::kInt8;
  description.kv_dtypes = {KvDType::kF16, KvDType::kF32, KvDType::kInt8};
  return description;
}

int64_t CpuDevice::AvailableBytes() const { return AvailableMemoryBytes().value_or(0); }

Result<std::unique_ptr<Backend>> CpuDevice::NewBackend(const BackendOptions& options) {
  return std::unique_ptr<Backend>(std::make_unique<CpuBackend>(*this, options));
}

}  // namespace cpu

Result<std::shared_ptr<Device>> NewCpuDevice(const CpuOptions& options) {
  constexpr int kMostThreads = 1024;
  if (options.threads < 0 || options.threads > kMostThreads) {
    return InvalidArgument(fmt::format("the thread count must be in 0..{}, not {}", kMostThreads, options.threads));
  }
  const cpu::KernelTables available = cpu::AvailableKernels();
  const cpu::KernelTable* chosen = options.isa.empty() ? available.tables[0] : nullptr;
  std::string names;
  for (int i = 0; i < available.count; ++i) {
    names += fmt::format("{}{}", i == 0 ? "" : ", ", available.tables[i]->isa);
    if (options.isa == available.tables[i]->isa) chosen = available.tables[i];
  }
  if (chosen == nullptr) {
    return InvalidArgument(
        fmt::format("instruction set \"{}\" is not available here; there are {}", options.isa, names));
  }
  const int threads = options.threads > 0 ? options.threads : std::min(cpu::PhysicalCores(), kMostThreads);
  return std::shared_ptr<Device>(std::make_shared<cpu::CpuDevice>(*chosen, threads));
}

}  // namespace pensieve::backend
