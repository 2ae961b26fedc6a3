// Qwen 3: the Llama block with a norm on every head of q and k before the rotation.
#include "model/decoder.h"

namespace pensieve::model {

Result<std::unique_ptr<Model>> NewQwen3(const NetworkInputs& inputs) { return NewDecoder(inputs, {.qk_norm = true}); }

}  // namespace pensieve::model
