// The decoder block that the Llama, Qwen, Phi-3 and Gemma families share; each has a file that says how it differs.
//
//   x += o(attention(rope(q), rope(k), v)),  q, k, v = projections of rms_norm(x)
//   x += down(act(gate(n)) * up(n)),         n = rms_norm(x)
//   logits = head(rms_norm(x))
//
// Gemma 2 and 3 also normalize what each half adds to x. A model with is_encoder runs the same block bidirectionally,
// without a cache.
#pragma once

#include "model/architectures.h"
#include "model/experts.h"

namespace pensieve::model {

struct DecoderTraits {
  bool requires_qkv_bias = false;  // otherwise additive biases are used where the file has them
  bool qk_norm = false;            // RMS norm of every head of q and k before the rotation
  bool fused_projections = false;  // qkv_proj rows are [q | k | v], gate_up_proj rows are [gate | up]
  bool attention_sinks = false;    // self_attn.sinks, one a head
  ExpertNames experts = {};        // of layers that have experts by the configuration
  bool post_norms = false;         // x += rms_norm(o(...)), x += rms_norm(down(...))
};

Result<std::unique_ptr<Model>> NewDecoder(const NetworkInputs& inputs, const DecoderTraits& traits);

// Bytes of the activations that a network plans at load, for `rows_max` rows of a step and logits of `outputs_max`.
int64_t ActivationBytes(const ModelConfig& config, int64_t rows_max, int64_t outputs_max);

}  // namespace pensieve::model
