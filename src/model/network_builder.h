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
  tensor::Weight weight;        // as imported by the backend
  const float* bias = nullptr;  // device memory, or null
};

// Collects what was imported. Lives only while a network is built.
class NetworkBuilder {
 public:
  explicit NetworkBuilder(const NetworkInputs& inputs) : inputs_(inputs) {}

  // Layers asked for from now on are an encoder's: see Backend::ImportForEncoder.
  void BeginEncoderLayers() { encoder_layers_ = true; }

  Result<tensor::Weight> Matrix(const std::string& module, int64_t rows, int64_t cols);
  // With the module's bias where the file has one; DataLoss without one when `bias_required`.
  Result<Linear> LinearLayer(const std::string& module, int64_t rows, int64_t cols, bool bias_required);
  // Rows [first, first + count) of a fused projection, each part a layer of its own.
  Result<std::vector<Linear>> SplitLayer(const std::string& module, const std::vector<int64_t>& part_rows,
                                         int64_t cols);
  // `count` layers [rows, cols] that the file holds stacked in one tensor, their biases in another.
  Result<std::vector<Linear>> StackedLayers(const std::string& module, int64_t count, int64_t rows, int64_t cols);
  bool HasModule(const std::string& module) const { return inputs_.weights.HasModule(module); }
  Result<const float*> Vector(const std::string& module, std::string_view kind, int64_t length);
  // The weight of an RMS norm, with the model's norm_offset added.
  Result<const float*> Norm(const std::string& module, int64_t length);
  Result<const float*> Upload(const std::vector<float>& values);
  Result<backend::Matrix> Plan(int64_t cols) { return inputs_.backend.NewMatrix(inputs_.rows_max, cols); }

  // Bytes of all matrices imported so far.
  int64_t weight_bytes() const { return weight_bytes_; }

 private:
  Result<tensor::Weight> Import(const std::string& module, const tensor::Weight& weight);

  const NetworkInputs& inputs_;
  bool encoder_layers_ = false;
  int64_t weight_bytes_ = 0;
};

}  // namespace pensieve::model
