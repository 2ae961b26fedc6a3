// Options that every command with a model shares, and how they become a loaded model.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "backend/devices.h"
#include "base/status.h"
#include "cli/models.h"
#include "model/loader.h"

namespace CLI {
class App;
}

namespace pensieve::cli {

struct ModelOptions {
  std::string model;  // path or name, see ResolveModel; "" for the default
  std::string device = "auto";
  std::string activations = "int8";
  std::string longrope = "auto";
  int threads = 0;
  int64_t context_max = 0;
  std::string chat_template_file;
  bool reference = false;
  std::string quantize = "none";  // or bits
  std::string quantize_group = "64";
};

// --model and the options of how it computes. `positional`: the model may also be given as a bare argument.
void AddModelOptions(CLI::App& command, ModelOptions& options, bool positional);
// Only --model, for commands that read no weights.
void AddModelOption(CLI::App& command, ModelOptions& options, bool positional);

// --quantize and --quantize-group, which AddModelOptions adds, too.
void AddQuantizeOptions(CLI::App& command, ModelOptions& options);
// Nothing for "none". The texts have been checked.
std::optional<formats::AffineFormat> ParseQuantize(const std::string& bits, const std::string& group);

Result<backend::InputPrecision> ParseActivations(const std::string& text);
Result<model::LongropeChoice> ParseLongrope(const std::string& text);
// Without `device` on the one that the options name. Warnings go to stderr.
Result<std::unique_ptr<model::LoadedModel>> LoadModel(const ModelOptions& options, DefaultModel fallback,
                                                      std::shared_ptr<backend::Device> device = nullptr);
// --device alone, for commands that read no weights.
void AddDeviceOption(CLI::App& command, ModelOptions& options);
Result<backend::ChosenDevice> OpenDevice(const ModelOptions& options);

// All of a file, or of standard input for "-".
Result<std::string> ReadTextArgument(const std::string& path);
// All of it, up to 64 MiB. Cancelled when a signal that has a handler comes.
Result<std::string> ReadStandardInput();
// Whether standard input is a file, a pipe or a socket: neither a person nor /dev/null.
bool StdinIsPiped();

}  // namespace pensieve::cli
