// Gemma 2 and 3: norms before and after both halves of a block, stored less 1; scaled embeddings; a tanh-gated MLP.
// Gemma 2 caps its scores and logits and slides in every other layer. Gemma 3 normalizes q and k, slides in five layers
// of six and rotates those by a table of their own. EmbeddingGemma is Gemma 3 that looks both ways.
#include <fmt/format.h>

#include <cmath>

#include "base/half.h"
#include "model/config_limits.h"
#include "model/decoder.h"

namespace pensieve::model {
namespace {

constexpr int64_t kGemma3Pattern = 6;  // every sixth layer sees everything

// What no file says: it is part of the architecture.
void SetCommon(ModelConfig& config) {
  // The factor is rounded to bf16 as it was in training: 55.5 for a width of 3072, not 55.4256.
  const float root = std::sqrt(static_cast<float>(config.hidden_size));
  config.embedding_scale = Bf16ToF32(F32ToBf16(root));
  config.activation = backend::Activation::kGeluTanh;
}

void SlideInAllButEvery(int64_t interval, ModelConfig& config) {
  config.sliding_layers.clear();
  for (int64_t layer = 0; layer < config.layers; ++layer) {
    config.sliding_layers.push_back(interval == 0 || (layer + 1) % interval != 0);
  }
}

RopeConfig PlainRope(float base, const ModelConfig& config) {
  RopeConfig rope;
  rope.base = base;
  rope.rotated = config.head_dim;
  return rope;
}

// `window` as files give it: tokens that a row sees in all, half of them to either side. Some transformers releases
// saved the exclusive bound w / 2 + 1 instead, an odd number.
void LookBothWays(ModelConfig& config) {
  config.is_encoder = config.is_embedding = true;
  const int64_t window = config.sliding_window;
  config.sliding_window = window % 2 == 1 ? window - 1 : window / 2;
}

}  // namespace

Result<std::unique_ptr<Model>> NewGemma2(const NetworkInputs& inputs) {
  return NewDecoder(inputs, {.post_norms = true});
}

Result<std::unique_ptr<Model>> NewGemma3(const NetworkInputs& inputs) {
  return NewDecoder(inputs, {.qk_norm = true, .post_norms = true});
}

void AdjustGemmaHf(std::string_view type, formats::ConfigFields& fields, ModelConfig& config) {
  SetCommon(config);
  config.norm_offset = 1.0f;
  const std::string activation = fields.String("hidden_activation", "gelu_pytorch_tanh");
  if (activation != "gelu_pytorch_tanh") {
    fields.Fail(Unimplemented(fields
                                  .Error("hidden_activation", fmt::format("is \"{}\"; only \"gelu_pytorch_tanh\" is "
                                                                          "supported",
                                                                          activation))
                                  .message()));
  }
  const double scalar = fields.Float("query_pre_attn_scalar", 256.0);
  if (!(scalar > 0.0)) fields.Fail(fields.Error("query_pre_attn_scalar", "must be above zero"));
  config.attention_scale = static_cast<float>(1.0 / std::sqrt(scalar));
  // Gemma 3's configurations have both keys; transformers never reads the first, nor the second in a wrapper.
  if (type == "gemma2") config.attention_softcap = static_cast<float>(fields.Float("attn_logit_softcapping", 0.0));
  if (!fields.is_nested()) config.logit_softcap = static_cast<float>(fields.Float("final_logit_softcapping", 0.0));
  if (config.attention_softcap < 0.0f) fields.Fail(fields.Error("attn_logit_softcapping", "is negative"));
  if (config.logit_softcap < 0.0f) fields.Fail(fields.Error("final_logit_softcapping", "is negative"));
  if (!fields.Has("sliding_window")) fields.Fail(fields.Error("sliding_window", "is missing"));
  if (type == "gemma2") {
    if (config.sliding_layers.empty()) SlideInAllButEvery(2, config);
    return;
  }
  if (config.sliding_layers.empty()) {
    SlideInAllButEvery(fields.Int("sliding_window_pattern", kGemma3Pattern, {1, kLayersRange.max}), config);
  }
  if (!config.sliding_rope) {
    config.sliding_rope = PlainRope(static_cast<float>(fields.Float("rope_local_base_freq", 1e4)), config);
  }
  if (fields.Bool("use_bidirectional_attention", false)) LookBothWays(config);
}

// Converters add the 1 to the norms, leave the attention's scale and the layers' pattern to the reader.
void AdjustGemmaGguf(std::string_view type, formats::GgufFields& fields, ModelConfig& config) {
  const auto key = [&](const char* name) { return fmt::format("{}.{}", type, name); };
  SetCommon(config);
  const bool is_27b = config.layers == (type == "gemma2" ? 46 : 62);
  config.attention_scale =
      1.0f / std::sqrt(static_cast<float>(is_27b ? config.hidden_size / config.heads : config.head_dim));
  const bool caps = type == "gemma2";
  config.attention_softcap =
      static_cast<float>(fields.OptionalFloat(key("attn_logit_softcapping")).value_or(caps ? 50.0 : 0.0));
  config.logit_softcap =
      static_cast<float>(fields.OptionalFloat(key("final_logit_softcapping")).value_or(caps ? 30.0 : 0.0));
  if (config.attention_softcap < 0.0f) fields.Fail(fields.Error(key("attn_logit_softcapping"), "is negative"));
  if (config.logit_softcap < 0.0f) fields.Fail(fields.Error(key("final_logit_softcapping"), "is negative"));
  if (config.sliding_window == 0) fields.Fail(fields.Error(key("attention.sliding_window"), "is missing"));
  const int64_t interval = caps ? 2 : kGemma3Pattern;
  SlideInAllButEvery(fields.Int(key("attention.sliding_window_pattern"), interval, {0, kLayersRange.max}), config);
  if (caps) return;
  const double base = fields.OptionalFloat(key("rope.freq_base_swa")).value_or(1e4);
  config.sliding_rope = PlainRope(static_cast<float>(base), config);
  if (type != "gemma-embedding") return;
  LookBothWays(config);
  if (config.dense.size() != 2) {
    fields.Fail(Unimplemented(fields
                                  .Error("general.architecture",
                                         "is gemma-embedding, but the tensors "
                                         "\"dense_2.weight\" and \"dense_3.weight\" behind its pooling are missing")
                                  .message()));
  }
}

}  // namespace pensieve::model
