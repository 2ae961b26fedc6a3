// One NVIDIA GPU. Thread-safe; each Backend has a stream of its own.
#pragma once

#include <memory>
#include <string>

#include "backend/backend.h"

namespace pensieve::backend::cuda {

class CudaDevice final : public Device {
 public:
  CudaDevice(int index, std::string name, int64_t memory_bytes)
      : index_(index), name_(std::move(name)), memory_bytes_(memory_bytes) {}

  BackendDescription Describe(const BackendOptions& options) const override;
  int64_t AvailableBytes() const override;
  Result<std::unique_ptr<Backend>> NewBackend(const BackendOptions& options) override;

  int index() const { return index_; }

 private:
  const int index_;
  const std::string name_;
  const int64_t memory_bytes_;
};

// GPU number `index`. Unavailable, in one sentence, where there is no driver, no GPU or none of that number.
Result<std::shared_ptr<Device>> NewCudaDevice(int index);

}  // namespace pensieve::backend::cuda
