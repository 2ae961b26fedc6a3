// config.json and its neighbours (generation_config.json, the sentence-transformers files) of a model directory.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "base/status.h"
#include "model/config.h"
#include "model/loader.h"
#include "model/weight_source.h"

namespace pensieve::model {

struct HfModel {
  ModelConfig config;        // tied_embeddings is settled by `tied` and the files
  std::optional<bool> tied;  // nothing: tied iff the files hold no lm_head
  QuantizationConfig quantization;
  std::vector<int64_t> eos_ids;  // of config.json and generation_config.json together
  GenerationDefaults defaults;
  bool has_modules = false;  // modules.json says what follows the network
  bool lowercases = false;   // all text is lowercased before it is tokenized (do_lower_case)
  std::vector<std::string> warnings;
};

// NotFound without a config.json; Unimplemented for architectures and quantization methods that are not known;
// DataLoss, naming file and field, for what does not fit.
Result<HfModel> ReadHfModel(const std::string& directory);

}  // namespace pensieve::model
