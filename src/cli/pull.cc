// pensieve pull: models into the cache, from a hub or, without a name, the two default ones.
#include <fmt/format.h>

#include <CLI/CLI.hpp>

#include "cli/commands.h"
#include "cli/models.h"
#include "cli/terminal.h"
#include "hub/catalog.h"

namespace pensieve::cli {
namespace {

int Pull(std::vector<std::string> names) {
  const auto settings = ReadHubSettings();
  if (!settings.has_value()) return Fail(settings.error());
  if (names.empty()) {
    for (const auto& model : hub::DefaultModels()) names.push_back(model.name);
  }
  for (const auto& name : names) {
    const auto pulled = PullModel(name, *settings);
    if (!pulled.has_value()) return Fail(pulled.error());
    if (!pulled->fetched) {
      const char* cache = pulled->model.owner == hub::CacheOwner::kHuggingFace ? " in Hugging Face's cache"
                          : pulled->model.owner == hub::CacheOwner::kAkidb     ? " in AkiDB's cache"
                                                                               : "";
      PrintNote(fmt::format("{} is there already{}\n", name, cache));
    }
    fmt::print("{:24} {}\n", name, pulled->model.path);
    FlushOutput();
  }
  return 0;
}

}  // namespace

void AddPull(CLI::App& app, Action& action) {
  auto* command = app.add_subcommand("pull", "Download models, or go on with a download that was cut short");
  command->alias("fetch");
  auto names = std::make_shared<std::vector<std::string>>();
  command->add_option("NAME", *names,
                      "ORG/REPO, ORG/REPO:Q4_K_M, ORG/REPO/FILE.gguf, each with @REVISION if wanted, or one of " +
                          KnownNames() + "; without a name the first two");
  command->footer(
      "The models come from huggingface.co, or from the server that HF_ENDPOINT names; HF_TOKEN opens gated and "
      "private ones.\n"
      "Each name is printed with the path of its model.");
  command->callback([&action, names] { action = [names] { return Pull(*names); }; });
}

}  // namespace pensieve::cli
