#include "cli/model_options.h"

#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <cerrno>
#include <cstdlib>
#include <cstring>

#include "base/mapped_file.h"
#include "cli/terminal.h"
#include "config/server_config.h"

namespace pensieve::cli {
namespace {

constexpr size_t kTextBytesMax = size_t{64} << 20;

}  // namespace

void AddModelOption(CLI::App& command, ModelOptions& options, bool positional) {
  command.add_option(positional ? "MODEL,-m,--model" : "-m,--model", options.model,
                     "GGUF file, model directory (MLX or Hugging Face), or a name: ORG/REPO on a hub, " + KnownNames());
  command
      .add_option("--chat-template", options.chat_template_file,
                  "Jinja file to use instead of the model's own template")
      ->check(CLI::ExistingFile);
}

void AddModelOptions(CLI::App& command, ModelOptions& options, bool positional) {
  AddModelOption(command, options, positional);
  AddDeviceOption(command, options);
  command.add_option("--activations", options.activations, "int8 (fast, default), int16 (near exact) or f32 (exact)")
      ->check(CLI::IsMember({"int8", "int16", "f32"}));
  command
      .add_option("--longrope", options.longrope,
                  "Phi-3's factors: auto (by each sequence's length), short, long or mlx (as mlx-lm: long)")
      ->check(CLI::IsMember({"auto", "short", "long", "mlx"}));
  command.add_option("--threads", options.threads, "Worker threads (default: one per core)")
      ->check(CLI::Range(0, 1024));
  command.add_option("--context", options.context_max, "Longest sequence in tokens (default: the model's own)");
  AddQuantizeOptions(command, options);
  command.add_flag("--reference", options.reference, "Use the slow scalar reference kernels (for comparisons)");
}

void AddDeviceOption(CLI::App& command, ModelOptions& options) {
  command.add_option("--device", options.device,
                     "What to compute on: auto (default), cpu, cuda or mlx; cuda:1 is the second card");
}

void AddQuantizeOptions(CLI::App& command, ModelOptions& options) {
  command
      .add_option("--quantize", options.quantize,
                  "Bits to quantize a float model to while loading: none (default), 4 or 8")
      ->check(CLI::IsMember({"none", "4", "8"}));
  command
      .add_option("--quantize-group", options.quantize_group,
                  "Weights that share one scale then: 32, 64 (default) or 128")
      ->check(CLI::IsMember({"32", "64", "128"}));
}

Result<backend::InputPrecision> ParseActivations(const std::string& text) {
  if (text == "int8") return backend::InputPrecision::kInt8;
  if (text == "int16") return backend::InputPrecision::kInt16;
  if (text == "f32") return backend::InputPrecision::kF32;
  return InvalidArgument(fmt::format("activations: \"{}\" is none of int8, int16, f32", text));
}

Result<model::LongropeChoice> ParseLongrope(const std::string& text) {
  if (text == "auto") return model::LongropeChoice::kAuto;
  if (text == "short") return model::LongropeChoice::kShort;
  if (text == "long" || text == "mlx") return model::LongropeChoice::kLong;
  return InvalidArgument(fmt::format("longrope: \"{}\" is none of auto, short, long, mlx", text));
}

std::optional<formats::AffineFormat> ParseQuantize(const std::string& bits, const std::string& group) {
  if (bits == "none") return std::nullopt;
  return formats::AffineFormat{.bits = std::atoi(bits.c_str()), .group = std::atoi(group.c_str())};
}

Result<backend::ChosenDevice> OpenDevice(const ModelOptions& options) {
  if (options.reference) return backend::ChosenDevice{backend::NewReferenceDevice(), "asked for"};
  return backend::OpenDevice(
      options.device, {.cpu = {.threads = options.threads, .isa = config::ForcedIsa(config::ProcessEnvironment())}});
}

Result<std::unique_ptr<model::LoadedModel>> LoadModel(const ModelOptions& options, DefaultModel fallback,
                                                      std::shared_ptr<backend::Device> device) {
  PENSIEVE_TRY(const auto resolved, ResolveModel(options.model, fallback));
  model::LoadOptions load;
  PENSIEVE_TRY(load.compute.activations, ParseActivations(options.activations));
  load.device = std::move(device);
  if (load.device == nullptr) {
    PENSIEVE_TRY(auto chosen, OpenDevice(options));
    load.device = std::move(chosen.device);
  }
  PENSIEVE_TRY(load.longrope, ParseLongrope(options.longrope));
  load.embeds = fallback == DefaultModel::kEmbedder;
  load.context_max = options.context_max;
  load.chat_template_file = options.chat_template_file;
  load.quantize = ParseQuantize(options.quantize, options.quantize_group);
  PENSIEVE_TRY(auto loaded, model::Load(resolved.path, load));
  PrintWarnings(loaded->warnings);
  return loaded;
}

Result<std::string> ReadTextArgument(const std::string& path) {
  if (path != "-") return ReadFile(path, kTextBytesMax);
  return ReadStandardInput();
}

Result<std::string> ReadStandardInput() {
  std::string text;
  std::vector<char> piece(1 << 16);
  while (true) {
    const ssize_t length = ::read(STDIN_FILENO, piece.data(), piece.size());
    if (length < 0 && errno == EINTR) return Cancelled("stopped");
    if (length < 0) return Internal(fmt::format("cannot read standard input: {}", std::strerror(errno)));
    if (length == 0) return text;
    text.append(piece.data(), static_cast<size_t>(length));
    if (text.size() > kTextBytesMax)
      return InvalidArgument(fmt::format("standard input is longer than {} bytes", kTextBytesMax));
  }
}

bool StdinIsPiped() {
  struct stat info {};
  if (::fstat(STDIN_FILENO, &info) != 0) return false;
  return S_ISFIFO(info.st_mode) || S_ISREG(info.st_mode) || S_ISSOCK(info.st_mode);
}

}  // namespace pensieve::cli
