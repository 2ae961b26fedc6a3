// How a model's own files say that it embeds: modules.json and what it names (sentence-transformers of any version),
// and the length limit, which is there without modules.json too.
#pragma once

#include <string>

#include "base/status.h"
#include "model/config_hf.h"

namespace pensieve::model {

// Fills in pooling, dense layers, normalization, prompts and the length limit of model.config. What is
// not understood is Unimplemented, naming file and field; what does not fit is DataLoss. `config` is config.json.
Status ReadEmbeddingRecipe(const std::string& directory, const Json& config, HfModel& model);

// For embedders whose files say nothing: the rule of a family that the name betrays, else the mean of all tokens, with
// a warning. Does nothing for others.
void ApplyFamilyRule(ModelConfig& config, std::vector<std::string>& warnings);

}  // namespace pensieve::model
