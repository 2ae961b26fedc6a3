// Qwen3-MoE and Qwen2-MoE: the Qwen blocks with experts in most layers; Qwen 2's also have one that every token uses.
#include "model/decoder.h"
#include "model/experts_config.h"

namespace pensieve::model {
namespace {

// Qwen 3's layers all slide or none does; Qwen 2's, unless they are listed, every other of the first max_window_layers.
void ReadWindows(std::string_view type, formats::ConfigFields& fields, ModelConfig& config) {
  const bool listed = type == "qwen2_moe" && fields.Has("layer_types");
  if (listed) return;
  config.sliding_layers.clear();
  if (type == "qwen3_moe") return;
  const int64_t limit = fields.Int("max_window_layers", 0, {0, kLayersRange.max});
  for (int64_t layer = 0; layer < config.layers; ++layer) {
    config.sliding_layers.push_back(layer % 2 == 0 && layer < limit);
  }
}

}  // namespace

Result<std::unique_ptr<Model>> NewQwen3Moe(const NetworkInputs& inputs) {
  return NewDecoder(inputs, {.qk_norm = true});
}

Result<std::unique_ptr<Model>> NewQwen2Moe(const NetworkInputs& inputs) {
  return NewDecoder(inputs, {.requires_qkv_bias = inputs.config.attention_bias});
}

void AdjustQwenMoeHf(std::string_view type, formats::ConfigFields& fields, ModelConfig& config) {
  ReadWindows(type, fields, config);
  ReadExpertsHf(fields, config);
  config.experts.intermediate_size = fields.RequiredInt("moe_intermediate_size", kHiddenRange);
  const bool normalized = fields.Bool("norm_topk_prob", false);
  config.experts.routing = normalized ? backend::Routing::kSoftmaxOfChosen : backend::Routing::kSoftmax;
  if (type == "qwen2_moe") {
    config.attention_bias = fields.Bool("qkv_bias", true);
    config.experts.shared_intermediate_size = fields.RequiredInt("shared_expert_intermediate_size", kHiddenRange);
  }
  const int64_t step = fields.Int("decoder_sparse_step", 1, kLayersRange);
  for (int64_t layer = 0; layer < config.layers; ++layer) {
    config.experts.dense_layers.push_back((layer + 1) % step != 0);
  }
  for (const int64_t layer : fields.IntOrInts("mlp_only_layers", {0, kLayersRange.max}, 4096)) {
    if (layer < config.layers) config.experts.dense_layers[static_cast<size_t>(layer)] = true;
  }
}

void AdjustQwenMoeGguf(std::string_view type, formats::GgufFields& fields, ModelConfig& config) {
  const std::string prefix = std::string(type) + ".";
  ReadExpertsGguf(prefix, fields, config);
  config.experts.intermediate_size = fields.RequiredInt(prefix + "expert_feed_forward_length", kHiddenRange);
  // The files rarely say it: Qwen 3's makers renormalise, Qwen 2's do not.
  const bool normalized = fields.OptionalBool(prefix + "expert_weights_norm").value_or(type == "qwen3moe");
  config.experts.routing = normalized ? backend::Routing::kSoftmaxOfChosen : backend::Routing::kSoftmax;
  if (type == "qwen2moe") {
    config.attention_bias = true;
    config.experts.shared_intermediate_size =
        fields.RequiredInt(prefix + "expert_shared_feed_forward_length", kHiddenRange);
  }
}

}  // namespace pensieve::model
