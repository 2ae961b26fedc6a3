// The model part of a GGUF file's metadata.
#pragma once

#include "base/status.h"
#include "formats/gguf.h"
#include "model/config.h"

namespace pensieve::model {

// Unimplemented for architectures that are not known; DataLoss, naming file and key, for what does not fit.
Result<ModelConfig> ReadGgufConfig(const formats::GgufFile& file);

}  // namespace pensieve::model
