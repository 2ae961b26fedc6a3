#include "backend/cpu/cpu_backend.h"

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

#include "backend/checks.h"
#include "backend/cpu/sizes.h"

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
    if (!cores.empty()) return static_cast<int>(cores.size());
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

CpuBackend::CpuBackend(const CpuOptions& options, const KernelTable& kernels, int threads)
    : kernels_(kernels), mode_(options.activations), pool_(threads), scratch_(static_cast<size_t>(threads)) {}

DeviceDescription CpuBackend::Describe() const {
  const auto pages = static_cast<int64_t>(::sysconf(_SC_PHYS_PAGES));
  return {fmt::format("cpu ({})", kernels_.isa), pool_.threads(),
          pages * static_cast<int64_t>(::sysconf(_SC_PAGESIZE))};
}

// Kernels read every form where it lies.
Result<tensor::Weight> CpuBackend::Import(const tensor::Weight& weight) { return weight; }

// f32 as panels of all columns: half as much time for a text of a dozen tokens.
Result<tensor::Weight> CpuBackend::ImportForEncoder(const tensor::Weight& weight) {
  const auto* dense = std::get_if<tensor::DenseWeight>(&weight);
  if (dense == nullptr || dense->dtype != tensor::DType::kF32) return weight;
  const int64_t panel = kernels_.panel;
  const int64_t panels = CeilDiv(dense->rows, panel);
  PENSIEVE_TRY(const size_t bytes, MatrixBytes(panels * panel, dense->cols));
  PENSIEVE_TRY(std::byte* const memory, encoder_weights_.Allocate(bytes));
  auto* out = reinterpret_cast<float*>(memory);
  pool_.Run(panels, [&](int64_t p, int) {
    const int64_t count = std::min(panel, dense->rows - p * panel);
    kernels_.unpack_dense(*dense, p * panel, count, 0, dense->cols, out + p * panel * dense->cols);
  });
  return tensor::Weight(tensor::DenseWeight{dense->rows, dense->cols, tensor::DType::kF32, out, panel});
}

Result<Matrix> CpuBackend::NewMatrix(int64_t rows, int64_t cols) {
  PENSIEVE_TRY(const size_t bytes, MatrixBytes(rows, cols));
  PENSIEVE_TRY(auto buffer, tensor::Buffer::Allocate(bytes));
  buffers_.push_back(std::move(buffer));
  return Matrix{buffers_.back().as<float>(), rows, cols, cols};
}

Result<std::unique_ptr<KvCache>> CpuBackend::NewKvCache(const KvShape& shape) { return CpuKvCache::Create(shape); }

void CpuBackend::CopyToDevice(std::span<const float> host, float* device) {
  std::copy(host.begin(), host.end(), device);
}

void CpuBackend::CopyToHost(const float* device, std::span<float> host) {
  std::copy_n(device, host.size(), host.begin());
}

}  // namespace cpu

Result<std::unique_ptr<Backend>> NewCpuBackend(const CpuOptions& options) {
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
    return InvalidArgument(fmt::format("instruction set \"{}\" is not available here; there are {}", options.isa, names));
  }
  const int threads = options.threads > 0 ? options.threads : std::min(cpu::PhysicalCores(), kMostThreads);
  return std::unique_ptr<Backend>(std::make_unique<cpu::CpuBackend>(options, *chosen, threads));
}

}  // namespace pensieve::backend
