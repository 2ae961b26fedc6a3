// Phi-3, Phi-3.5 and Phi-4: the Llama block with q, k, v in one matrix and gate, up in another.
#include "model/decoder.h"

namespace pensieve::model {

Result<std::unique_ptr<Model>> NewPhi3(const NetworkInputs& inputs) {
  return NewDecoder(inputs, {.fused_projections = true});
}

void AdjustPhi3Hf(std::string_view, formats::ConfigFields&, ModelConfig& config) {
  // Long-context files name a window longer than the context: it hides nothing.
  if (config.sliding_window >= config.context_max) config.sliding_window = 0;
}

}  // namespace pensieve::model
