// What every architecture with experts reads alike.
#pragma once

#include <string>

#include "formats/config_fields.h"
#include "formats/gguf.h"
#include "model/config.h"
#include "model/config_limits.h"

namespace pensieve::model {

// num_experts or num_local_experts, and num_experts_per_tok.
void ReadExpertsHf(formats::ConfigFields& fields, ModelConfig& config);
// `prefix`: "qwen3moe."; expert_count and expert_used_count.
void ReadExpertsGguf(const std::string& prefix, formats::GgufFields& fields, ModelConfig& config);

}  // namespace pensieve::model
