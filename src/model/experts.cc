#include "model/experts.h"

#include <fmt/format.h>

#include <utility>

namespace pensieve::model {
namespace {

using backend::Matrix;
using backend::Product;

// gate, up and down of every expert. `up` is empty when `gate` holds both.
struct ExpertParts {
  std::vector<HostLinear> gate, up, down;
};

// What `layer` says of its experts, with those of `parts`.
Result<backend::ExpertSet> ImportParts(NetworkBuilder& builder, const std::string& module, const ExpertParts& parts,
                                       backend::ExpertLayer layer) {
  std::vector<backend::Expert> experts;
  for (size_t e = 0; e < parts.down.size(); ++e) {
    backend::Expert expert;
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
  layer.experts = experts;
  return builder.ImportExperts(module, layer);
}

Result<ExpertParts> BuildSeparate(NetworkBuilder& builder, const ModelConfig& config, const ExpertNames& names,
                                  const std::string& prefix) {
  const int64_t inner = config.experts.intermediate_size;
  ExpertParts parts;
  for (int64_t e = 0; e < config.experts.count; ++e) {
    const auto layer = [&](size_t part, int64_t rows, int64_t cols) {
      return builder.FetchLayer(fmt::format("{}{}.{}.{}", prefix, names.separate, e, names.parts[part]), rows, cols,
                                /*bias_required=*/false);
    };
    PENSIEVE_TRY(HostLinear gate, layer(0, inner, config.hidden_size));
    PENSIEVE_TRY(HostLinear up, layer(1, inner, config.hidden_size));
    PENSIEVE_TRY(HostLinear down, layer(2, config.hidden_size, inner));
    parts.gate.push_back(std::move(gate));
    parts.up.push_back(std::move(up));
    parts.down.push_back(std::move(down));
  }
  return parts;
}

Result<ExpertParts> BuildStacked(NetworkBuilder& builder, const ModelConfig& config, const std::string& module,
                                 bool alternating) {
  const int64_t count = config.experts.count;
  const int64_t inner = config.experts.intermediate_size;
  ExpertParts parts;
  if (alternating) {
    PENSIEVE_TRY(parts.gate, builder.FetchStack(module + ".gate_up_proj", count, 2 * inner, config.hidden_size));
  } else {
    PENSIEVE_TRY(parts.gate, builder.FetchStack(module + ".gate_proj", count, inner, config.hidden_size));
    PENSIEVE_TRY(parts.up, builder.FetchStack(module + ".up_proj", count, inner, config.hidden_size));
  }
  PENSIEVE_TRY(parts.down, builder.FetchStack(module + ".down_proj", count, config.hidden_size, inner));
  return parts;
}

}  // namespace

Result<ExpertFfn> ExpertFfn::Build(NetworkBuilder& builder, const ModelConfig& config, const ExpertNames& names,
                                   const std::string& prefix) {
  ExpertFfn ffn;
  PENSIEVE_TRY(ffn.router_, builder.LinearLayer(fmt::format("{}{}", prefix, names.router), config.experts.count,
                                                config.hidden_size, /*bias_required=*/false));
  PENSIEVE_RETURN_IF_ERROR(ffn.BuildRouted(builder, config, names, prefix));
  if (config.experts.shared_intermediate_size > 0) {
    PENSIEVE_RETURN_IF_ERROR(ffn.BuildShared(builder, config, prefix));
  }
  return ffn;
}

Result<ExpertFfn> ExpertFfn::OfOne(NetworkBuilder& builder, const std::string& module, const HostExpert& network,
                                   backend::Activation activation) {
  ExpertFfn ffn;
  PENSIEVE_TRY(ffn.experts_, ImportParts(builder, module, {{network.gate}, {network.up}, {network.down}},
                                         {.activation = activation}));
  return ffn;
}

Status ExpertFfn::BuildRouted(NetworkBuilder& builder, const ModelConfig& config, const ExpertNames& names,
                              const std::string& prefix) {
  const std::string stacked = fmt::format("{}{}", prefix, names.stacked);
  const std::string first = fmt::format("{}{}.0.{}", prefix, names.separate, names.parts[0]);
  const bool alternating = builder.HasModule(stacked + ".gate_up_proj");
  auto parts = builder.HasModule(first) ? BuildSeparate(builder, config, names, prefix)
                                        : BuildStacked(builder, config, stacked, alternating);
  if (!parts) return parts.error();
  PENSIEVE_TRY(experts_, ImportParts(builder, stacked, *parts,
                                     {.routing = config.experts.routing,
                                      .top_k = config.experts.active,
                                      .activation = config.activation,
                                      .alternating = alternating,
                                      .limit = config.experts.limit}));
  idle_bytes_ = experts_.bytes / config.experts.count * (config.experts.count - config.experts.active);
  return OkStatus();
}

Status ExpertFfn::BuildShared(NetworkBuilder& builder, const ModelConfig& config, const std::string& prefix) {
  const int64_t inner = config.experts.shared_intermediate_size;
  const std::string module = prefix + "mlp.shared_expert";
  ExpertParts parts;
  const auto layer = [&](const char* part, int64_t rows, int64_t cols) {
    return builder.FetchLayer(module + part, rows, cols, /*bias_required=*/false);
  };
  PENSIEVE_TRY(shared_gate_, builder.LinearLayer(module + "_gate", 1, config.hidden_size, /*bias_required=*/false));
  PENSIEVE_TRY(HostLinear gate, layer(".gate_proj", inner, config.hidden_size));
  PENSIEVE_TRY(HostLinear up, layer(".up_proj", inner, config.hidden_size));
  PENSIEVE_TRY(HostLinear down, layer(".down_proj", config.hidden_size, inner));
  parts.gate.push_back(std::move(gate));
  parts.up.push_back(std::move(up));
  parts.down.push_back(std::move(down));
  PENSIEVE_TRY(shared_, ImportParts(builder, module, parts,
                                    {.routing = backend::Routing::kSigmoid, .activation = config.activation}));
  return OkStatus();
}

void ExpertFfn::Run(backend::Backend& backend, const backend::MatMulInput& input, Matrix routing, Matrix out) const {
  const Matrix logits = routing.Columns(0, experts_.count);
  const Matrix shared_logit = routing.Columns(experts_.count, shared_.count);
  const Product products[] = {{.weight = router_.weight, .bias = router_.bias, .out = logits},
                              {.weight = shared_gate_.weight, .out = shared_logit}};
  // A choice between near equals is lost to rounding for good: always the finer products. Without a router there is one
  // expert, whose softmax is 1 whatever its logit.
  if (router_.weight.rows > 0) {
    backend.MatMul({input.x, backend::RowPrecision::kPrecise}, std::span(products, shared_.count == 0 ? 1 : 2));
  }
  backend.Experts(input, logits, experts_, out);
  if (shared_.count > 0) backend.Experts(input, shared_logit, shared_, out);
}

}  // namespace pensieve::model
