#include "model/network_builder.h"

#include <numeric>

namespace pensieve::model {

Result<tensor::Weight> NetworkBuilder::Import(const std::string& module, const tensor::Weight& weight) {
  auto imported = encoder_layers_ ? inputs_.backend.ImportForEncoder(weight) : inputs_.backend.Import(weight);
  if (!imported) return imported.error().WithContext(module);
  weight_bytes_ += static_cast<int64_t>(tensor::WeightBytes(*imported));
  return imported;
}

Result<tensor::Weight> NetworkBuilder::Matrix(const std::string& module, int64_t rows, int64_t cols) {
  PENSIEVE_TRY(const tensor::Weight weight, inputs_.weights.Matrix(module, rows, cols));
  return Import(module, weight);
}

Result<const float*> NetworkBuilder::Upload(const std::vector<float>& values) {
  PENSIEVE_TRY(const backend::Matrix row, inputs_.backend.NewMatrix(1, static_cast<int64_t>(values.size())));
  inputs_.backend.CopyToDevice(values, row.data);
  return static_cast<const float*>(row.data);
}

Result<const float*> NetworkBuilder::Vector(const std::string& module, std::string_view kind, int64_t length) {
  PENSIEVE_TRY(const std::vector<float> values, inputs_.weights.Vector(module, kind, length));
  return Upload(values);
}

Result<const float*> NetworkBuilder::Norm(const std::string& module, int64_t length) {
  PENSIEVE_TRY(std::vector<float> values, inputs_.weights.Vector(module, "weight", length));
  for (float& value : values) value += inputs_.config.norm_offset;
  return Upload(values);
}

Result<Linear> NetworkBuilder::LinearLayer(const std::string& module, int64_t rows, int64_t cols, bool bias_required) {
  Linear layer;
  PENSIEVE_TRY(layer.weight, Matrix(module, rows, cols));
  PENSIEVE_TRY(const std::vector<float> bias, bias_required ? inputs_.weights.Vector(module, "bias", rows)
                                                            : inputs_.weights.OptionalVector(module, "bias", rows));
  if (!bias.empty()) {
    PENSIEVE_TRY(layer.bias, Upload(bias));
  }
  return layer;
}

Result<std::vector<Linear>> NetworkBuilder::SplitLayer(const std::string& module, const std::vector<int64_t>& part_rows,
                                                       int64_t cols) {
  const int64_t rows = std::accumulate(part_rows.begin(), part_rows.end(), int64_t{0});
  PENSIEVE_TRY(const tensor::Weight fused, inputs_.weights.Matrix(module, rows, cols));
  PENSIEVE_TRY(const std::vector<float> bias, inputs_.weights.OptionalVector(module, "bias", rows));
  const float* device_bias = nullptr;
  if (!bias.empty()) {
    PENSIEVE_TRY(device_bias, Upload(bias));
  }
  std::vector<Linear> parts;
  int64_t first = 0;
  for (const int64_t count : part_rows) {
    Linear part;
    PENSIEVE_TRY(part.weight, Import(module, tensor::SliceRows(fused, first, count)));
    part.bias = device_bias == nullptr ? nullptr : device_bias + first;
    parts.push_back(std::move(part));
    first += count;
  }
  return parts;
}

Result<std::vector<Linear>> NetworkBuilder::StackedLayers(const std::string& module, int64_t count, int64_t rows,
                                                          int64_t cols) {
  PENSIEVE_TRY(const tensor::Weight stack, inputs_.weights.Stack(module, count, rows, cols));
  PENSIEVE_TRY(const std::vector<float> biases, inputs_.weights.OptionalStackBias(module, count, rows));
  const float* device_biases = nullptr;
  if (!biases.empty()) {
    PENSIEVE_TRY(device_biases, Upload(biases));
  }
  std::vector<Linear> layers(static_cast<size_t>(count));
  for (int64_t i = 0; i < count; ++i) {
    Linear& layer = layers[static_cast<size_t>(i)];
    PENSIEVE_TRY(layer.weight, Import(module, tensor::SliceRows(stack, i * rows, rows)));
    layer.bias = device_biases == nullptr ? nullptr : device_biases + i * rows;
  }
  return layers;
}

}  // namespace pensieve::model
