// Qwen 2 and 2.5: the Llama block with biases on q, k and v.
#include "model/decoder.h"

namespace pensieve::model {

Result<std::unique_ptr<Model>> NewQwen2(const NetworkInputs& inputs) {
  return NewDecoder(inputs, {.requires_qkv_bias = true});
}

}  // namespace pensieve::model
