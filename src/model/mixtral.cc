// Mixtral: Mistral's block with experts. Its GGUF files call themselves llama and name a number of experts.
#include "model/decoder.h"
#include "model/experts_config.h"

namespace pensieve::model {

Result<std::unique_ptr<Model>> NewMixtral(const NetworkInputs& inputs) {
  return NewDecoder(inputs, {.experts = {.router = "block_sparse_moe.gate",
                                         .stacked = "block_sparse_moe.switch_mlp",
                                         .separate = "block_sparse_moe.experts",
                                         .parts = {"w1", "w3", "w2"}}});
}

void AdjustMixtralHf(std::string_view, formats::ConfigFields& fields, ModelConfig& config) {
  ReadExpertsHf(fields, config);
  config.experts.intermediate_size = config.intermediate_size;
}

}  // namespace pensieve::model
