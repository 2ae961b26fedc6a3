#include "model/embedding_recipe.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cctype>
#include <filesystem>

#include "base/mapped_file.h"
#include "formats/config_fields.h"
#include "formats/printable.h"
#include "model/config_limits.h"

namespace pensieve::model {
namespace {

namespace fs = std::filesystem;
using formats::ConfigFields;

constexpr size_t kRecipeBytesMax = 4 << 20;
constexpr size_t kTokenizerConfigBytesMax = 64 << 20;

bool Exists(const fs::path& path) {
  std::error_code ignored;
  return fs::exists(path, ignored);
}

Status NotSupported(const ConfigFields& fields, std::string_view key, std::string_view problem) {
  return Unimplemented(fields.Error(key, problem).message());
}

// --- Pooling
// ----------------------------------------------------------------------------------------------------------

// Releases before 5.4 wrote one flag for each mode, in this order.
constexpr std::array<std::pair<const char*, const char*>, 6> kPoolingFlags = {
    {{"pooling_mode_cls_token", "cls"},
     {"pooling_mode_max_tokens", "max"},
     {"pooling_mode_mean_tokens", "mean"},
     {"pooling_mode_mean_sqrt_len_tokens", "mean_sqrt_len_tokens"},
     {"pooling_mode_weightedmean_tokens", "weightedmean"},
     {"pooling_mode_lasttoken", "lasttoken"}}};

// The modes whose results stand behind one another. Without any the default is the mean.
std::vector<std::string> PoolingModes(ConfigFields& fields) {
  constexpr size_t kModesMax = 16;
  std::vector<std::string> modes;
  if (const Json* mode = fields.Find("pooling_mode")) {
    if (mode->is_array()) {
      modes = fields.Strings("pooling_mode", kModesMax);
      if (modes.empty()) fields.Fail(fields.Error("pooling_mode", "is an empty list"));
    } else {
      modes.push_back(fields.String("pooling_mode", ""));
    }
    return modes;
  }
  for (const auto& [flag, mode] : kPoolingFlags) {
    if (fields.Bool(flag, false)) modes.emplace_back(mode);
  }
  if (modes.empty()) modes.emplace_back("mean");
  return modes;
}

Status ReadPooling(const std::string& path, ModelConfig& config) {
  PENSIEVE_TRY(const Json json, formats::ReadJsonObject(path, kRecipeBytesMax));
  ConfigFields fields(path, json);
  const std::vector<std::string> modes = PoolingModes(fields);
  const char* width_key = fields.Has("embedding_dimension") ? "embedding_dimension" : "word_embedding_dimension";
  const int64_t width = fields.Int(width_key, config.hidden_size, kHiddenRange);
  const bool include_prompt = fields.Bool("include_prompt", true);
  PENSIEVE_RETURN_IF_ERROR(fields.status());
  if (width != config.hidden_size) {
    return fields.Error(width_key,
                        fmt::format("is {}, but the model's vectors have {} numbers", width, config.hidden_size));
  }
  if (!include_prompt) {
    return NotSupported(fields, "include_prompt", "is false; leaving prompts out of the pooling is not supported");
  }
  if (modes.size() > 1) {
    return NotSupported(
        fields, "pooling_mode",
        fmt::format("names {} modes ({}); only one is supported", modes.size(), fmt::join(modes, ", ")));
  }
  const std::string& mode = modes.front();
  if (mode == "cls") {
    config.pooling = backend::Pooling::kCls;
  } else if (mode == "mean") {
    config.pooling = backend::Pooling::kMean;
  } else if (mode == "max") {
    config.pooling = backend::Pooling::kMax;
  } else if (mode == "lasttoken") {
    config.pooling = backend::Pooling::kLast;
  } else {
    return NotSupported(fields, "pooling_mode",
                        fmt::format("is \"{}\"; cls, mean, max and lasttoken are supported", mode));
  }
  config.is_embedding = true;
  config.recipe_source = "modules.json";
  return OkStatus();
}

// --- what follows the pooling
// -----------------------------------------------------------------------------------------

// Modules may read and write other things than the text's vector (token vectors, for example).
Status CheckWorksOnVector(ConfigFields& fields) {
  for (const char* key : {"module_input_name", "module_output_name"}) {
    const std::string name = fields.String(key, "sentence_embedding");
    PENSIEVE_RETURN_IF_ERROR(fields.status());
    if (name != "sentence_embedding") {
      return NotSupported(fields, key, fmt::format("is \"{}\"; only \"sentence_embedding\" is supported", name));
    }
  }
  return OkStatus();
}

Status ReadNormalize(const fs::path& folder, ModelConfig& config) {
  config.normalize = true;
  const std::string path = (folder / "config.json").string();
  if (!Exists(path)) return OkStatus();  // releases before 5.6 wrote none
  PENSIEVE_TRY(const Json json, formats::ReadJsonObject(path, kRecipeBytesMax));
  ConfigFields fields(path, json);
  return CheckWorksOnVector(fields);
}

Status ReadDense(const fs::path& directory, const std::string& folder, ModelConfig& config) {
  const std::string path = (directory / folder / "config.json").string();
  PENSIEVE_TRY(const Json json, formats::ReadJsonObject(path, kRecipeBytesMax));
  ConfigFields fields(path, json);
  const int64_t width = config.embedding_size();
  DenseLayer dense;
  dense.folder = folder;
  dense.inputs = fields.RequiredInt("in_features", kHiddenRange);
  dense.outputs = fields.RequiredInt("out_features", kHiddenRange);
  const std::string activation = fields.String("activation_function", "torch.nn.modules.activation.Tanh");
  const bool use_residual = fields.Bool("use_residual", false);
  PENSIEVE_RETURN_IF_ERROR(fields.status());
  PENSIEVE_RETURN_IF_ERROR(CheckWorksOnVector(fields));
  if (dense.inputs != width) {
    return fields.Error("in_features", fmt::format("is {}, but {} numbers come in", dense.inputs, width));
  }
  dense.tanh = activation == "torch.nn.modules.activation.Tanh";
  if (!dense.tanh && activation != "torch.nn.modules.linear.Identity") {
    return NotSupported(fields, "activation_function", fmt::format("is \"{}\", which is not supported", activation));
  }
  if (use_residual) return NotSupported(fields, "use_residual", "is true, which is not supported");
  if (!Exists(directory / folder / "model.safetensors") && Exists(directory / folder / "pytorch_model.bin")) {
    return Unimplemented(
        fmt::format("{}: holds PyTorch weights (pytorch_model.bin), which are not read; save the model "
                    "again with a newer sentence-transformers, which writes model.safetensors",
                    (directory / folder).string()));
  }
  config.dense.push_back(std::move(dense));
  return OkStatus();
}

// --- modules.json
// -----------------------------------------------------------------------------------------------------

// The class of a module: "Pooling" of "sentence_transformers.models.Pooling" (before 5.4) and of
// "sentence_transformers.sentence_transformer.modules.pooling.Pooling". "" for classes of other packages.
std::string ModuleClass(const std::string& type) {
  if (!type.starts_with("sentence_transformers.")) return "";
  return type.substr(type.rfind('.') + 1);
}

Status ReadModule(const fs::path& directory, ConfigFields& module, size_t index, ModelConfig& config) {
  const std::string type = module.String("type", "");
  const std::string folder = module.String("path", "");
  PENSIEVE_RETURN_IF_ERROR(module.status());
  if (folder.find("..") != std::string::npos || fs::path(folder).is_absolute()) {
    return module.Error("path", "must stay inside the model's directory");
  }
  const std::string kind = ModuleClass(type);
  if (kind.empty()) {
    return NotSupported(module, "type", fmt::format("is \"{}\", Python code that is not run here", type));
  }
  if ((kind == "Transformer") != (index == 0)) {
    return NotSupported(module, "type",
                        fmt::format("is \"{}\" in place {}; the first module must be the Transformer, "
                                    "and no other",
                                    type, index));
  }
  if (kind == "Transformer" && !folder.empty() && folder != ".") {
    return NotSupported(module, "path", fmt::format("is \"{}\"; the network must lie beside modules.json", folder));
  }
  if (kind == "Transformer" || kind == "Dropout") return OkStatus();
  if (kind == "Pooling") return ReadPooling((directory / folder / "config.json").string(), config);
  if (!config.is_embedding || config.normalize) {
    return NotSupported(module, "type",
                        fmt::format("is \"{}\" {}; only Pooling, Dense layers and Normalize in this order "
                                    "are supported",
                                    type, config.normalize ? "after Normalize" : "before Pooling"));
  }
  if (kind == "Dense") return ReadDense(directory, folder, config);
  if (kind == "Normalize") return ReadNormalize(directory / folder, config);
  return NotSupported(module, "type", fmt::format("is \"{}\", which is not supported", type));
}

Status ReadModules(const std::string& path, const fs::path& directory, HfModel& model) {
  constexpr size_t kModulesMax = 64;
  PENSIEVE_TRY(const std::string text, ReadFile(path, kRecipeBytesMax));
  const auto modules = ParseJson(text);
  if (!modules || !modules->is_array() || modules->size() > kModulesMax) {
    return DataLoss(fmt::format("{}: must hold a JSON list of at most {} modules", path, kModulesMax));
  }
  ModelConfig& config = model.config;
  const bool was_embedding = config.is_embedding;
  config.is_embedding = false;  // until the pooling is found
  config.normalize = false;
  for (size_t i = 0; i < modules->size(); ++i) {
    ConfigFields module(path, (*modules)[i], fmt::format("[{}].", i));
    PENSIEVE_RETURN_IF_ERROR(ReadModule(directory, module, i, config));
  }
  config.is_embedding = config.is_embedding || was_embedding;
  return OkStatus();
}

// --- length limit
// -----------------------------------------------------------------------------------------------------

// The settings of the Transformer module, under the name that the writing release gave them; null when there are none.
Result<Json> ReadTransformerSettings(const fs::path& directory, std::string& path) {
  for (const char* kind : {"bert", "roberta", "distilbert", "camembert", "albert", "xlm-roberta", "xlnet"}) {
    path = (directory / fmt::format("sentence_{}_config.json", kind)).string();
    if (Exists(path)) return formats::ReadJsonObject(path, kRecipeBytesMax);
  }
  return Json();
}

// tokenizer_config.json's limit, 0 when it names none: "no limit" is written as 1e30.
Result<int64_t> ReadTokenizerLimit(const fs::path& directory) {
  const std::string path = (directory / "tokenizer_config.json").string();
  if (!Exists(path)) return int64_t{0};
  PENSIEVE_TRY(const Json json, formats::ReadJsonObject(path, kTokenizerConfigBytesMax));
  ConfigFields fields(path, json);
  const double limit = fields.Float("model_max_length", 0.0);
  PENSIEVE_RETURN_IF_ERROR(fields.status());
  if (!(limit >= 1.0) || limit > static_cast<double>(kContextRange.max)) return int64_t{0};
  return static_cast<int64_t>(limit);
}

Status ReadLimit(const fs::path& directory, HfModel& model) {
  std::string path;
  PENSIEVE_TRY(const Json settings, ReadTransformerSettings(directory, path));
  ConfigFields fields(path, settings);
  model.lowercases = fields.Bool("do_lower_case", false);
  model.config.embed_context_max = fields.Int("max_seq_length", 0, kContextRange);
  PENSIEVE_RETURN_IF_ERROR(fields.status());
  if (model.config.embed_context_max > 0) return OkStatus();
  // Releases from 5.4 on leave the limit to the tokenizer, and so does a model that they did not save.
  PENSIEVE_TRY(model.config.embed_context_max, ReadTokenizerLimit(directory));
  return OkStatus();
}

// --- prompts
// ----------------------------------------------------------------------------------------------------------

Status ReadPrompts(const fs::path& directory, ModelConfig& config) {
  constexpr size_t kPromptsMax = 1000;
  const std::string path = (directory / "config_sentence_transformers.json").string();
  if (!Exists(path)) return OkStatus();
  PENSIEVE_TRY(const Json json, formats::ReadJsonObject(path, kRecipeBytesMax));
  ConfigFields fields(path, json);
  ConfigFields prompts = fields.Object("prompts");
  if (prompts.json().size() > kPromptsMax) return fields.Error("prompts", "names too many prompts");
  for (const auto& [name, value] : prompts.json().items()) {
    if (!value.is_null()) config.prompts[name] = prompts.String(name, "");
  }
  config.default_prompt = fields.String("default_prompt_name", "");
  fields.Absorb(prompts);
  PENSIEVE_RETURN_IF_ERROR(fields.status());
  if (!config.default_prompt.empty() && !config.prompts.contains(config.default_prompt)) {
    return fields.Error("default_prompt_name",
                        fmt::format("is \"{}\", which prompts does not hold", config.default_prompt));
  }
  return OkStatus();
}

// --- classifiers
// ------------------------------------------------------------------------------------------------------

// Cross-encoders and classifiers score pairs of texts; the vectors of the network below their head mean nothing.
Status RefuseClassifiers(const fs::path& directory, const Json& config, const ModelConfig& model) {
  if (model.recipe_source == "modules.json") return OkStatus();
  ConfigFields fields((directory / "config.json").string(), config);
  const auto architectures = fields.Strings("architectures", 16);
  PENSIEVE_RETURN_IF_ERROR(fields.status());
  if (architectures.empty() || !architectures.front().ends_with("ForSequenceClassification")) return OkStatus();
  return NotSupported(fields, "architectures",
                      fmt::format("is \"{}\", a model that scores texts (a reranker or a "
                                  "classifier), which is not supported",
                                  architectures.front()));
}

// Families by a part of their name. All normalize.
struct FamilyRule {
  std::string_view name;
  backend::Pooling pooling;
};

constexpr std::array kFamilies = std::to_array<FamilyRule>({
    {"bge", backend::Pooling::kCls},
    {"gte-modernbert", backend::Pooling::kCls},
    {"arctic-embed", backend::Pooling::kCls},
    {"mxbai-embed", backend::Pooling::kCls},
    {"minilm", backend::Pooling::kMean},
    {"e5", backend::Pooling::kMean},
    {"gte", backend::Pooling::kMean},
    {"nomic-embed", backend::Pooling::kMean},
    {"modernbert-embed", backend::Pooling::kMean},
    {"mpnet", backend::Pooling::kMean},
    {"jina-embeddings", backend::Pooling::kMean},
});

}  // namespace

Status ReadEmbeddingRecipe(const std::string& directory, const Json& config, HfModel& model) {
  const fs::path base(directory);
  const std::string path = (base / "modules.json").string();
  if (Exists(path)) {
    model.has_modules = true;
    PENSIEVE_RETURN_IF_ERROR(ReadModules(path, base, model));
  }
  PENSIEVE_RETURN_IF_ERROR(RefuseClassifiers(base, config, model.config));
  PENSIEVE_RETURN_IF_ERROR(ReadPrompts(base, model.config));
  return ReadLimit(base, model);
}

void ApplyFamilyRule(ModelConfig& config, std::vector<std::string>& warnings) {
  if (!config.is_embedding || !config.recipe_source.empty()) return;
  std::string name = config.name;
  std::transform(name.begin(), name.end(), name.begin(), [](unsigned char c) { return std::tolower(c); });
  for (const FamilyRule& family : kFamilies) {
    if (name.find(family.name) == std::string::npos) continue;
    config.pooling = family.pooling;
    config.recipe_source = fmt::format("the rule of the {} family", family.name);
    return;
  }
  config.recipe_source = "nothing in the model's files";
  warnings.push_back(
      fmt::format("{}: no file says how its vectors are made (modules.json, pooling_type); the mean of all "
                  "tokens is taken and normalized",
                  config.name));
}

}  // namespace pensieve::model
