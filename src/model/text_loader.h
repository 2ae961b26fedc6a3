// The text side of a model: tokenizer, chat templates, stop ids.
#pragma once

#include <string>

#include "base/status.h"
#include "formats/gguf.h"
#include "model/config_hf.h"
#include "model/loader.h"

namespace pensieve::model {

// `template_file`: when not empty, its text is the chat template, whatever the model brings.
Result<ModelText> ReadHfText(const std::string& directory, const HfModel& model, const std::string& template_file);
Result<ModelText> ReadGgufText(const formats::GgufFile& file, const std::string& template_file);

}  // namespace pensieve::model
