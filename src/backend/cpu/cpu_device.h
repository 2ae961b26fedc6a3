// A machine's processor: the kernels of one instruction set, and the one pool of threads that all models compute with.
// Thread-safe.
#pragma once

#include <memory>

#include "backend/backend.h"
#include "backend/cpu/kernels.h"
#include "backend/cpu/worker_pool.h"

namespace pensieve::backend::cpu {

class CpuDevice final : public Device {
 public:
  CpuDevice(const KernelTable& kernels, int threads) : kernels_(kernels), pool_(threads) {}

  BackendDescription Describe(const BackendOptions& options) const override;
  int64_t AvailableBytes() const override;
  Result<std::unique_ptr<Backend>> NewBackend(const BackendOptions& options) override;

  const KernelTable& kernels() const { return kernels_; }
  WorkerPool& pool() { return pool_; }

 private:
  const KernelTable& kernels_;
  WorkerPool pool_;
};

}  // namespace pensieve::backend::cpu
