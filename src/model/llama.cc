// Llama 2 and 3, SmolLM2, Mistral, Ministral 3: the plain block. SmolLM3 leaves the rotation out in every fourth layer.
#include "model/decoder.h"
#include "model/experts_config.h"

namespace pensieve::model {
namespace {

void SkipRopeEvery(int64_t interval, ModelConfig& config) {
  for (int64_t layer = 0; layer < config.layers; ++layer) config.nope_layers.push_back((layer + 1) % interval == 0);
}

}  // namespace

Result<std::unique_ptr<Model>> NewLlama(const NetworkInputs& inputs) {
  return NewDecoder(inputs, {.requires_qkv_bias = inputs.config.attention_bias});
}

void AdjustLlamaHf(std::string_view type, formats::ConfigFields& fields, ModelConfig& config) {
  // Of Llama's own layers only those slide that are listed so; a window alone says nothing.
  if (type == "llama" && config.sliding_layers.empty()) config.sliding_window = 0;
  if (type != "smollm3") return;
  if (config.nope_layers.empty()) SkipRopeEvery(fields.Int("no_rope_layer_interval", 4, {1, 4096}), config);
  if (config.sliding_layers.empty()) config.sliding_layers = config.nope_layers;
}

void AdjustLlamaGguf(std::string_view type, formats::GgufFields& fields, ModelConfig& config) {
  if (type == "llama" && fields.Int("llama.expert_count", 0, {0, kExpertsRange.max}) > 0) {  // Mixtral
    ReadExpertsGguf("llama.", fields, config);
    config.experts.intermediate_size = config.intermediate_size;
  }
  if (type == "smollm3") SkipRopeEvery(4, config);
  if (type == "mistral3") {  // Ministral 3
    config.rope.query_growth = fields.OptionalFloat("mistral3.attention.temperature_scale").value_or(0.0);
  }
}

}  // namespace pensieve::model
