// How a model's own files say that it embeds: modules.json and what it names (sentence-transformers of any version), and
// the length limit, which is there without modules.json too.
#pragma once

#include <string>

#include "base/status.h"
#include "model/config_hf.h"

namespace pensieve::model {

// Fills in pooling, dense layers, normalization and the length limit of model.config. Nothing is guessed: what is not
// understood is Unimplemented, naming file and field; what does not fit is DataLoss.
Status ReadEmbeddingRecipe(const std::string& directory, HfModel& model);

}  // namespace pensieve::model
