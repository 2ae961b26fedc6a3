#include "model/dense_stack.h"

#include <fmt/format.h>

namespace pensieve::model {

Status DenseStack::Build(NetworkBuilder& builder, const ModelConfig& config) {
  int64_t inputs = config.hidden_size;
  for (size_t i = 0; i < config.dense.size(); ++i) {
    const DenseLayer& dense = config.dense[i];
    if (dense.inputs != inputs) {
      return DataLoss(fmt::format("dense layer {} takes {} numbers, but {} come in", i, dense.inputs, inputs));
    }
    inputs = dense.outputs;
    Layer layer;
    PENSIEVE_TRY(layer.linear, builder.LinearLayer(fmt::format("dense.{}", i), dense.outputs, dense.inputs,
                                                   /*bias_required=*/false));
    PENSIEVE_TRY(layer.out, builder.Plan(dense.outputs));
    layer.tanh = dense.tanh;
    layers_.push_back(std::move(layer));
  }
  return OkStatus();
}

backend::Matrix DenseStack::Run(backend::Backend& backend, backend::Matrix pooled) const {
  for (const Layer& layer : layers_) {
    const backend::Matrix out = layer.out.Rows(0, pooled.rows);
    const backend::Product product{.weight = layer.linear.weight, .bias = layer.linear.bias, .out = out};
    backend.MatMul({pooled, backend::RowPrecision::kPrecise}, {&product, 1});
    if (layer.tanh) backend.Softcap(out, 1.0f);  // tanh itself
    pooled = out;
  }
  return pooled;
}

}  // namespace pensieve::model
