#include "model/experts.h"

#include <fmt/format.h>

#include <utility>

namespace pensieve::model {
namespace {

using backend::Expert;
using backend::ExpertLayer;
using backend::Matrix;
using backend::Product;

// gate, up and down of every expert. `up` is empty when `gate` holds both.
struct ExpertParts {
  std::vector<Linear> gate, up, down;
};

std::vector<Expert> Join(const ExpertParts& parts) {
  std::vector<Expert> experts;
  for (size_t e = 0; e < parts.down.size(); ++e) {
    Expert expert;
    expert.gate = parts.gate[e].weight;
    expert.gate_bias = parts.gate[e].bias;
    if (!parts.up.empty()) {
      expert.up = parts.up[e].weight;
      expert.up_bias = parts.up[e].bias;
    }
    expert.down = parts.down[e].weight;
    expert.down_bias = parts.down[e].bias;
    experts.push_back(std::move(expert));
  }
  return experts;
}

Result<ExpertParts> BuildSeparate(NetworkBuilder& builder, const ModelConfig& config, const ExpertNames& names,
                                  const std::string& prefix) {
  const int64_t inner = config.experts.intermediate_size;
  ExpertParts parts;
  for (int64_t e = 0; e < config.experts.count; ++e) {
    const auto layer = [&](size_t part, int64_t rows, int64_t cols) {
      return builder.LinearLayer(fmt::format("{}{}.{}.{}", prefix, names.separate, e, names.parts[part]), rows, cols,
                                 /*bias_required=*/false);
    };
    PENSIEVE_TRY(Linear gate, layer(0, inner, config.hidden_size));
    PENSIEVE_TRY(Linear up, layer(1, inner, config.hidden_size));
    PENSIEVE_TRY(Linear down, layer(2, config.hidden_size, inner));
    parts.gate.push_back(std::move(gate));
    parts.up.push_back(std::move(up));
    parts.down.push_back(std::move(down));
  }
  return parts;
}

Result<ExpertParts> BuildStacked(NetworkBuilder& builder, const ModelConfig& config, const std::string& module,
                                 bool interleaved) {
  const int64_t count = config.experts.count;
  const int64_t inner = config.experts.intermediate_size;
  ExpertParts parts;
  if (interleaved) {
    PENSIEVE_TRY(parts.gate, builder.StackedLayers(module + ".gate_up_proj", count, 2 * inner, config.hidden_size));
  } else {
    PENSIEVE_TRY(parts.gate, builder.StackedLayers(module + ".gate_proj", count, inner, config.hidden_size));
    PENSIEVE_TRY(parts.up, builder.StackedLayers(module + ".up_proj", count, inner, config.hidden_size));
  }
  PENSIEVE_TRY(parts.down, builder.StackedLayers(module + ".down_proj", count, config.hidden_size, inner));
  return parts;
}

}  // namespace

Result<ExpertFfn> ExpertFfn::Build(NetworkBuilder& builder, const ModelConfig& config, const ExpertNames& names,
                                   const std::string& prefix) {
  ExpertFfn ffn;
  ffn.layer_.routing = config.experts.routing;
  ffn.layer_.top_k = config.experts.active;
  ffn.layer_.activation = config.activation;
  ffn.layer_.limit = config.experts.limit;
  PENSIEVE_TRY(ffn.router_, builder.LinearLayer(fmt::format("{}{}", prefix, names.router), config.experts.count,
                                                config.hidden_size, /*bias_required=*/false));
  PENSIEVE_RETURN_IF_ERROR(ffn.BuildRouted(builder, config, names, prefix));
  if (config.experts.shared_intermediate_size > 0) {
    PENSIEVE_RETURN_IF_ERROR(ffn.BuildShared(builder, config, prefix));
  }
  return ffn;
}

ExpertFfn ExpertFfn::OfOne(const Linear& gate, const Linear& up, const Linear& down, backend::Activation activation) {
  ExpertFfn ffn;
  ffn.layer_.activation = activation;
  ffn.experts_ = Join({{gate}, {up}, {down}});
  return ffn;
}

Status ExpertFfn::BuildRouted(NetworkBuilder& builder, const ModelConfig& config, const ExpertNames& names,
                              const std::string& prefix) {
  const int64_t before = builder.weight_bytes();
  const std::string stacked = fmt::format("{}{}", prefix, names.stacked);
  const std::string first = fmt::format("{}{}.0.{}", prefix, names.separate, names.parts[0]);
  layer_.interleaved = builder.HasModule(stacked + ".gate_up_proj");
  auto parts = builder.HasModule(first) ? BuildSeparate(builder, config, names, prefix)
                                        : BuildStacked(builder, config, stacked, layer_.interleaved);
  if (!parts) return parts.error();
  experts_ = Join(*parts);
  const int64_t bytes = builder.weight_bytes() - before;
  idle_bytes_ = bytes / config.experts.count * (config.experts.count - config.experts.active);
  return OkStatus();
}

Status ExpertFfn::BuildShared(NetworkBuilder& builder, const ModelConfig& config, const std::string& prefix) {
  const int64_t inner = config.experts.shared_intermediate_size;
  const std::string module = prefix + "mlp.shared_expert";
  ExpertParts parts;
  const auto layer = [&](const char* part, int64_t rows, int64_t cols) {
    return builder.LinearLayer(module + part, rows, cols, /*bias_required=*/false);
  };
  PENSIEVE_TRY(shared_gate_, layer("_gate", 1, config.hidden_size));
  PENSIEVE_TRY(Linear gate, layer(".gate_proj", inner, config.hidden_size));
  PENSIEVE_TRY(Linear up, layer(".up_proj", inner, config.hidden_size));
  PENSIEVE_TRY(Linear down, layer(".down_proj", config.hidden_size, inner));
  parts.gate.push_back(std::move(gate));
  parts.up.push_back(std::move(up));
  parts.down.push_back(std::move(down));
  shared_ = Join(parts);
  return OkStatus();
}

void ExpertFfn::Run(backend::Backend& backend, const backend::MatMulInput& input, Matrix routing, Matrix out) const {
  const auto count = static_cast<int64_t>(experts_.size());
  const Matrix logits = routing.Columns(0, count);
  const Matrix shared_logit = routing.Columns(count, static_cast<int64_t>(shared_.size()));
  const Product products[] = {{.weight = &router_.weight, .bias = router_.bias, .out = logits},
                              {.weight = &shared_gate_.weight, .out = shared_logit}};
  // A choice between near equals is lost to rounding for good: always the finer products. Without a router there is one
  // expert, whose softmax is 1 whatever its logit.
  if (tensor::Rows(router_.weight) > 0) {
    backend.MatMul({input.x, input.x.rows}, std::span(products, shared_.empty() ? 1 : 2));
  }
  ExpertLayer layer = layer_;
  layer.experts = experts_;
  backend.Experts(input, logits, layer, out);
  if (shared_.empty()) return;
  const ExpertLayer shared = {
      .experts = shared_, .routing = backend::Routing::kSigmoid, .top_k = 1, .activation = layer_.activation};
  backend.Experts(input, shared_logit, shared, out);
}

}  // namespace pensieve::model
