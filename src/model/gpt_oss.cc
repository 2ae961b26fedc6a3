// gpt-oss: biases everywhere, a sink in every head's softmax, windows in every other layer, experts with clamped gates.
#include <fmt/format.h>

#include "model/decoder.h"
#include "model/experts_config.h"

namespace pensieve::model {
namespace {

// What the files do not say, or may leave out.
void SetDefaults(ModelConfig& config) {
  config.activation = backend::Activation::kQuickGelu;
  config.experts.routing = backend::Routing::kSoftmaxOfChosen;
  config.experts.limit = 7.0f;
  if (!config.sliding_layers.empty()) return;
  for (int64_t layer = 0; layer < config.layers; ++layer) config.sliding_layers.push_back(layer % 2 == 0);
}

}  // namespace

Result<std::unique_ptr<Model>> NewGptOss(const NetworkInputs& inputs) {
  return NewDecoder(inputs, {.requires_qkv_bias = inputs.config.attention_bias,
                             .attention_sinks = true,
                             .experts = {.router = "mlp.router", .stacked = "mlp.experts"}});
}

void AdjustGptOssHf(std::string_view, formats::ConfigFields& fields, ModelConfig& config) {
  if (config.activation != backend::Activation::kSilu) {
    fields.Fail(Unimplemented(fields.Error("hidden_act", "must be \"silu\" in this architecture").message()));
  }
  SetDefaults(config);
  config.attention_bias = fields.Bool("attention_bias", true);
  config.sliding_window = fields.Int("sliding_window", 128, {1, INT64_MAX});
  ReadExpertsHf(fields, config);
  config.experts.intermediate_size = config.intermediate_size;
  config.experts.limit = static_cast<float>(fields.Float("swiglu_limit", 7.0));
  if (!(config.experts.limit > 0.0f)) fields.Fail(fields.Error("swiglu_limit", "must be above 0"));
  const double alpha = fields.Float("swiglu_alpha", 1.702);
  if (alpha != 1.702) {
    const std::string problem = fmt::format("is {}; only 1.702 is supported", alpha);
    fields.Fail(Unimplemented(fields.Error("swiglu_alpha", problem).message()));
  }
}

void AdjustGptOssGguf(std::string_view type, formats::GgufFields& fields, ModelConfig& config) {
  SetDefaults(config);
  config.attention_bias = true;
  config.rope.truncate = false;  // as the model was trained; the format has no key for it
  const std::string prefix = std::string(type) + ".";
  ReadExpertsGguf(prefix, fields, config);
  config.experts.intermediate_size =
      fields.Int(prefix + "expert_feed_forward_length", config.intermediate_size, kHiddenRange);
}

}  // namespace pensieve::model
