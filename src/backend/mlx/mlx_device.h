// A GPU (or, for tests, the processor) through MLX.
#pragma once

#include <memory>
#include <string>
#include <string_view>

#include "backend/backend.h"
#include "backend/mlx/arrays.h"

namespace pensieve::backend::mlx {

class MlxDevice final : public pensieve::backend::Device {
 public:
  // The GPU where MLX has one. Without: MLX's own kernels for processors where `processor_too`, else Unavailable.
  static Result<std::shared_ptr<pensieve::backend::Device>> Open(bool processor_too);
  MlxDevice(std::string name, int64_t memory_bytes, int64_t working_set)
      : name_(std::move(name)), memory_bytes_(memory_bytes), working_set_(working_set) {}

  BackendDescription Describe(const BackendOptions& options) const override;
  int64_t AvailableBytes() const override;
  Result<std::unique_ptr<Backend>> NewBackend(const BackendOptions& options) override;
  // ResourceExhausted when `what` would take more bytes than are left. To be asked before anything large is made: MLX
  // on a processor does not notice that it got no memory.
  Status CheckRoom(int64_t bytes, std::string_view what) const;

 private:
  const std::string name_;
  const int64_t memory_bytes_;
  const int64_t working_set_;  // that a GPU should hold at most; 0: not known
};

}  // namespace pensieve::backend::mlx
