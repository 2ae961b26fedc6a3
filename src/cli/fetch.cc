#include <fmt/format.h>

#include <CLI/CLI.hpp>

#include "cli/commands.h"
#include "cli/model_options.h"
#include "cli/terminal.h"
#include "hub/catalog.h"

namespace pensieve::cli {
namespace {

int Fetch(bool list) {
  const auto cache_dir = CacheDirectory();
  if (!cache_dir.has_value()) return Fail(cache_dir.error());
  if (!list) {
    if (const auto status = FetchDefaultModels(*cache_dir); !status.ok()) return Fail(status);
  }
  for (const auto& model : hub::DefaultModels()) {
    fmt::print("{:24} {}\n", model.name, hub::IsInstalled(*cache_dir, model) ? hub::ModelPath(*cache_dir, model) : "(not fetched)");
  }
  return 0;
}

}  // namespace

void AddFetch(CLI::App& app, Action& action) {
  auto* command = app.add_subcommand("fetch", "Download the default models that are missing, and say where they are");
  auto list = std::make_shared<bool>(false);
  command->add_flag("--list", *list, "Only say what is there");
  command->callback([&action, list] { action = [list] { return Fetch(*list); }; });
}

}  // namespace pensieve::cli
