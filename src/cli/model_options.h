// Options that every command with a model shares, and how a name becomes a path and a loaded model.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/status.h"
#include "model/loader.h"

namespace CLI {
class App;
}

namespace pensieve::cli {

struct ModelOptions {
  std::string model;               // path, or a name from the catalogue; "" for the default
  std::string activations = "int8";
  std::string longrope = "auto";
  int threads = 0;
  int64_t context_max = 0;
  std::string chat_template_file;
  bool reference = false;
  std::string quantize = "none";     // or bits
  std::string quantize_group = "64";
};

enum class DefaultModel { kGenerator, kEmbedder, kNone };

// --model and the options of how it computes. `positional`: the model may also be given as a bare argument.
void AddModelOptions(CLI::App& command, ModelOptions& options, bool positional);
// Only --model, for commands that read no weights.
void AddModelOption(CLI::App& command, ModelOptions& options, bool positional);

// ~/.cache/pensieve, or what ./config.toml or the environment says. InvalidArgument when these hold a bad setting.
Result<std::string> CacheDirectory();

// Path of `name`: an existing path as it is; a default model by name, fetched first if it is missing; "" the default
// of that kind. NotFound says what is possible.
Result<std::string> ResolveModel(const std::string& name, DefaultModel fallback, const std::string& cache_dir);
// The same with CacheDirectory().
Result<std::string> ResolveModel(const std::string& name, DefaultModel fallback);

// Fetches the default models that are missing into the cache, with a progress bar on stderr. Says nothing when none is.
Status FetchDefaultModels(const std::string& cache_dir);

// --quantize and --quantize-group, which AddModelOptions adds, too.
void AddQuantizeOptions(CLI::App& command, ModelOptions& options);
// Nothing for "none". The texts have been checked.
std::optional<formats::AffineFormat> ParseQuantize(const std::string& bits, const std::string& group);

Result<backend::ActivationMode> ParseActivations(const std::string& text);
Result<model::LongropeChoice> ParseLongrope(const std::string& text);
Result<std::unique_ptr<model::LoadedModel>> LoadModel(const ModelOptions& options, DefaultModel fallback);

// All of a file, or of standard input for "-".
Result<std::string> ReadTextArgument(const std::string& path);

}  // namespace pensieve::cli
