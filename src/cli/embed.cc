// pensieve embed: texts to vectors on the command line.
#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <cmath>
#include <future>
#include <sstream>

#include "base/json.h"
#include "cli/commands.h"
#include "cli/local_service.h"
#include "cli/terminal.h"

namespace pensieve::cli {
namespace {

struct Options {
  ModelOptions model;
  std::vector<std::string> texts;
  std::string file;
  std::string pooling;
  int64_t dimensions = 0;
  bool no_normalize = false;
  bool json = false;
};

// Texts embedded by one request: bounds the memory of one pass over a large file.
constexpr size_t kTextsPerRequest = 256;

Result<service::PoolingChoice> ParsePooling(const std::string& text) {
  if (text.empty()) return service::PoolingChoice::kModelDefault;
  if (text == "mean") return service::PoolingChoice::kMean;
  if (text == "cls") return service::PoolingChoice::kCls;
  if (text == "last") return service::PoolingChoice::kLast;
  if (text == "max") return service::PoolingChoice::kMax;
  return InvalidArgument(fmt::format("pooling: \"{}\" is none of mean, cls, last, max", text));
}

Result<std::vector<std::string>> ReadTexts(const Options& options) {
  if (!options.texts.empty()) return options.texts;
  PENSIEVE_TRY(const auto all, ReadTextArgument(options.file.empty() ? "-" : options.file));
  std::vector<std::string> texts;
  std::istringstream lines(all);
  for (std::string line; std::getline(lines, line);) texts.push_back(std::move(line));
  if (texts.empty()) return InvalidArgument("no text: give one as an argument, or one a line on standard input");
  return texts;
}

Result<service::EmbedResult> EmbedTexts(service::Service& service, const Options& options,
                                        std::vector<std::string> texts) {
  service::EmbedRequest request;
  request.id = "embed";
  request.texts = std::move(texts);
  PENSIEVE_TRY(request.pooling, ParsePooling(options.pooling));
  if (options.no_normalize) request.normalize = false;
  request.dimensions = options.dimensions;
  std::promise<Result<service::EmbedResult>> promise;
  auto future = promise.get_future();
  service.Embed(std::move(request), [&](Result<service::EmbedResult> result) { promise.set_value(std::move(result)); });
  return future.get();
}

void PrintPlain(const std::string& text, const std::vector<float>& vector) {
  double norm = 0;
  for (const float value : vector) norm += static_cast<double>(value) * value;
  fmt::print("{}\n  {} dimensions, norm {:.6f}: [{:.6f}", Styled(Style::kBold, text), vector.size(), std::sqrt(norm),
             vector[0]);
  for (size_t i = 1; i < std::min<size_t>(6, vector.size()); ++i) fmt::print(", {:.6f}", vector[i]);
  fmt::print("{}\n", vector.size() > 6 ? ", ...]" : "]");
}

int Embed(const Options& options) {
  const auto texts = ReadTexts(options);
  if (!texts.has_value()) return Fail(texts.error());
  auto service = OpenLocalService(options.model, DefaultModel::kEmbedder);
  if (!service.has_value()) return Fail(service.error());
  for (size_t at = 0; at < texts->size(); at += kTextsPerRequest) {
    const size_t end = std::min(at + kTextsPerRequest, texts->size());
    const auto result = EmbedTexts(
        **service, options,
        {texts->begin() + static_cast<std::ptrdiff_t>(at), texts->begin() + static_cast<std::ptrdiff_t>(end)});
    if (!result.has_value()) return Fail(result.error());
    for (size_t i = at; i < end; ++i) {
      const auto& vector = result->embeddings[i - at];
      if (options.json) {
        fmt::print("{}\n", DumpJson({{"text", (*texts)[i]}, {"embedding", vector}}));
      } else {
        PrintPlain((*texts)[i], vector);
      }
    }
  }
  return 0;
}

}  // namespace

void AddEmbed(CLI::App& app, Action& action) {
  auto* command = app.add_subcommand("embed", "Turn texts into vectors");
  auto options = std::make_shared<Options>();
  command->add_option("TEXT", options->texts, "Texts; one a line of standard input when absent");
  AddModelOptions(*command, options->model, false);
  command->add_option("-f,--file", options->file, "Read one text a line from a file");
  command->add_option("--pooling", options->pooling, "mean, cls, last or max (default: the model's recipe)")
      ->check(CLI::IsMember({"mean", "cls", "last", "max"}));
  command->add_option("--dimensions", options->dimensions, "Keep only the first N dimensions (Matryoshka models)")
      ->check(CLI::PositiveNumber);
  command->add_flag("--no-normalize", options->no_normalize, "Leave vectors at their own length");
  command->add_flag("--json", options->json, "Print one JSON object a text, with the whole vector");
  command->callback([&action, options] { action = [options] { return Embed(*options); }; });
}

}  // namespace pensieve::cli
