// What factories do over and over: fetch a weight, hand it to the backend, plan a matrix.
#pragma once

#include <string>
#include <vector>

#include "backend/backend.h"
#include "base/status.h"
#include "model/architectures.h"
#include "tensor/weight.h"

namespace pensieve::model {

// A linear layer: y = x . W^T + bias.
struct Linear {
  backend::Weight weight;
  backend::Vector bias;  // or null
};

// The same in host memory, as the files have it.
struct HostLinear {
  tensor::Weight weight;
  std::vector<float> bias;  // or empty
};

// Collects what was imported. Lives only while a network is built.
class NetworkBuilder {
 public:
  explicit NetworkBuilder(const NetworkInputs& inputs) : inputs_(inputs) {}

  // Layers asked for from now on are an encoder's: see backend::WeightUse.
  void BeginEncoderLayers() { use_ = backend::WeightUse::kEncoderLayer; }

  Result<backend::Weight> Matrix(const std::string& module, int64_t rows, int64_t cols);
  // Its rows from `first_row` on.
  Result<backend::Weight> MatrixFrom(const std::string& module, int64_t first_row, int64_t rows, int64_t cols);
  // With the module's bias where the file has one; DataLoss without one when `bias_required`.
  Result<Linear> LinearLayer(const std::string& module, int64_t rows, int64_t cols, bool bias_required);
  Result<HostLinear> FetchLayer(const std::string& module, int64_t rows, int64_t cols, bool bias_required);
  // The parts of a fused projection by their rows, each a layer of its own.
  Result<std::vector<HostLinear>> FetchSplit(const std::string& module, const std::vector<int64_t>& part_rows,
                                             int64_t cols);
  // `count` layers [rows, cols] that the file holds stacked in one tensor, their biases in another.
  Result<std::vector<HostLinear>> FetchStack(const std::string& module, int64_t count, int64_t rows, int64_t cols);
  Result<Linear> Import(const std::string& module, const HostLinear& layer);
  Result<backend::ExpertSet> ImportExperts(const std::string& module, const backend::ExpertLayer& layer);
  bool HasModule(const std::string& module) const { return inputs_.weights.HasModule(module); }
  Result<backend::Vector> Vector(const std::string& module, std::string_view kind, int64_t length);
  // Null when the file has none.
  Result<backend::Vector> OptionalVector(const std::string& module, std::string_view kind, int64_t length);
  // The weight of an RMS norm, with the model's norm_offset added.
  Result<backend::Vector> Norm(const std::string& module, int64_t length);
  Result<backend::Rope> Rope(const backend::RopeTable& usual, const backend::RopeTable& for_long) {
    return inputs_.backend.ImportRope(usual, for_long);
  }
  // For all rows of a step, or for those whose logits are wanted.
  Result<backend::Matrix> Plan(int64_t cols) { return inputs_.backend.NewMatrix(inputs_.rows_max, cols); }
  Result<backend::Matrix> PlanOutputs(int64_t cols) { return inputs_.backend.NewMatrix(inputs_.outputs_max, cols); }

  // Bytes of all matrices imported so far.
  int64_t weight_bytes() const { return weight_bytes_; }

 private:
  Result<backend::Weight> ImportMatrix(const std::string& module, const tensor::Weight& weight);

  const NetworkInputs& inputs_;
  backend::WeightUse use_ = backend::WeightUse::kAny;
  int64_t weight_bytes_ = 0;
};

}  // namespace pensieve::model
