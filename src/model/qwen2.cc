// Qwen 2 and 2.5: the Llama block with biases on q, k and v.
#include "model/decoder.h"

namespace pensieve::model {

Result<std::unique_ptr<Model>> NewQwen2(const NetworkInputs& inputs) {
  return NewDecoder(inputs, {.requires_qkv_bias = true});
}

void AdjustQwen2Hf(std::string_view, formats::ConfigFields& fields, ModelConfig& config) {
  // Released files name a window and switch it off; a file that is silent means off.
  if (!fields.Has("use_sliding_window")) {
    config.sliding_window = 0;
    config.sliding_layers.clear();
  }
}

}  // namespace pensieve::model
