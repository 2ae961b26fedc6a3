#include "model/network_builder.h"

#include <numeric>

namespace pensieve::model {

Result<backend::Weight> NetworkBuilder::ImportMatrix(const std::string& module, const tensor::Weight& weight) {
  auto imported = inputs_.backend.Import(weight, use_);
  if (!imported) return imported.error().WithContext(module);
  weight_bytes_ += imported->bytes;
  return imported;
}

Result<backend::Weight> NetworkBuilder::Matrix(const std::string& module, int64_t rows, int64_t cols) {
  return MatrixFrom(module, 0, rows, cols);
}

Result<backend::Weight> NetworkBuilder::MatrixFrom(const std::string& module, int64_t first_row, int64_t rows,
                                                   int64_t cols) {
  PENSIEVE_TRY(const tensor::Weight weight, inputs_.weights.Matrix(module, rows, cols));
  return ImportMatrix(module, first_row == 0 ? weight : tensor::SliceRows(weight, first_row, rows - first_row));
}

Result<backend::Vector> NetworkBuilder::Vector(const std::string& module, std::string_view kind, int64_t length) {
  PENSIEVE_TRY(const std::vector<float> values, inputs_.weights.Vector(module, kind, length));
  return inputs_.backend.ImportVector(values);
}

Result<backend::Vector> NetworkBuilder::OptionalVector(const std::string& module, std::string_view kind,
                                                       int64_t length) {
  PENSIEVE_TRY(const std::vector<float> values, inputs_.weights.OptionalVector(module, kind, length));
  if (values.empty()) return backend::Vector();
  return inputs_.backend.ImportVector(values);
}

Result<backend::Vector> NetworkBuilder::Norm(const std::string& module, int64_t length) {
  PENSIEVE_TRY(std::vector<float> values, inputs_.weights.Vector(module, "weight", length));
  for (float& value : values) value += inputs_.config.norm_offset;
  return inputs_.backend.ImportVector(values);
}

Result<HostLinear> NetworkBuilder::FetchLayer(const std::string& module, int64_t rows, int64_t cols,
                                              bool bias_required) {
  HostLinear layer;
  PENSIEVE_TRY(layer.weight, inputs_.weights.Matrix(module, rows, cols));
  PENSIEVE_TRY(layer.bias, bias_required ? inputs_.weights.Vector(module, "bias", rows)
                                         : inputs_.weights.OptionalVector(module, "bias", rows));
  return layer;
}

Result<Linear> NetworkBuilder::LinearLayer(const std::string& module, int64_t rows, int64_t cols, bool bias_required) {
  PENSIEVE_TRY(const HostLinear layer, FetchLayer(module, rows, cols, bias_required));
  return Import(module, layer);
}

Result<Linear> NetworkBuilder::Import(const std::string& module, const HostLinear& layer) {
  Linear imported;
  PENSIEVE_TRY(imported.weight, ImportMatrix(module, layer.weight));
  if (!layer.bias.empty()) { PENSIEVE_TRY(imported.bias, inputs_.backend.ImportVector(layer.bias)); }
  return imported;
}

Result<backend::ExpertSet> NetworkBuilder::ImportExperts(const std::string& module, const backend::ExpertLayer& layer) {
  auto imported = inputs_.backend.ImportExperts(layer);
  if (!imported) return imported.error().WithContext(module);
  weight_bytes_ += imported->bytes;
  return imported;
}

Result<std::vector<HostLinear>> NetworkBuilder::FetchSplit(const std::string& module,
                                                           const std::vector<int64_t>& part_rows, int64_t cols) {
  const int64_t rows = std::accumulate(part_rows.begin(), part_rows.end(), int64_t{0});
  PENSIEVE_TRY(const HostLinear fused, FetchLayer(module, rows, cols, /*bias_required=*/false));
  std::vector<HostLinear> parts;
  int64_t first = 0;
  for (const int64_t count : part_rows) {
    HostLinear part;
    part.weight = tensor::SliceRows(fused.weight, first, count);
    if (!fused.bias.empty()) part.bias.assign(fused.bias.begin() + first, fused.bias.begin() + first + count);
    parts.push_back(std::move(part));
    first += count;
  }
  return parts;
}

Result<std::vector<HostLinear>> NetworkBuilder::FetchStack(const std::string& module, int64_t count, int64_t rows,
                                                           int64_t cols) {
  PENSIEVE_TRY(const tensor::Weight stack, inputs_.weights.Stack(module, count, rows, cols));
  PENSIEVE_TRY(const std::vector<float> biases, inputs_.weights.OptionalStackBias(module, count, rows));
  std::vector<HostLinear> layers(static_cast<size_t>(count));
  for (int64_t i = 0; i < count; ++i) {
    HostLinear& layer = layers[static_cast<size_t>(i)];
    layer.weight = tensor::SliceRows(stack, i * rows, rows);
    if (!biases.empty()) layer.bias.assign(biases.begin() + i * rows, biases.begin() + (i + 1) * rows);
  }
  return layers;
}

}  // namespace pensieve::model
