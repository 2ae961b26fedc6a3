// What backends share whose memory is the host's own: matrices, vectors, copies, and the inputs of the present step.
#pragma once

#include <deque>
#include <span>
#include <vector>

#include "backend/backend.h"
#include "backend/matrix_view.h"
#include "tensor/buffer.h"

namespace pensieve::backend {

class HostBackend : public Backend {
 public:
  Result<Vector> ImportVector(std::span<const float> values) override;
  Result<Matrix> NewMatrix(int64_t rows, int64_t cols) override;
  // The inputs are not copied.
  void BeginStep(const StepInputs& inputs) override;
  // Operations were computed when they returned.
  Status EndStep() override { return OkStatus(); }
  Status CopyToDevice(std::span<const float> host, Matrix device) override;
  Status CopyToHost(Matrix device, std::span<float> host) override;
  Status ReadDrawn(std::span<int32_t> tokens) override;

 protected:
  const StepInputs& step() const { return step_; }
  // How many leading rows of a product's input are precise.
  int64_t PreciseRows(const MatMulInput& input) const;
  // The row of an embedding that row `r` of the step takes.
  int64_t EmbeddingRow(EmbedBy by, int64_t r) const;

  std::vector<int32_t> drawn_;

 private:
  struct HostBuffer final : Buffer {
    explicit HostBuffer(tensor::Buffer owned) : memory(std::move(owned)) { base = memory.as<float>(); }
    tensor::Buffer memory;
  };

  StepInputs step_;
  std::deque<HostBuffer> buffers_;
};

}  // namespace pensieve::backend
