// pensieve list and pensieve rm: the models on this machine.
#include <fmt/format.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <filesystem>
#include <iostream>

#include "base/json.h"
#include "cli/commands.h"
#include "cli/models.h"
#include "cli/terminal.h"
#include "hub/cache.h"
#include "hub/model_name.h"

namespace pensieve::cli {
namespace {

void PrintJson(const std::vector<hub::CachedModel>& models) {
  Json list = Json::array();
  for (const auto& model : models) {
    list.push_back({{"name", model.name},
                    {"format", model.format},
                    {"quantization", model.quantization},
                    {"bytes", model.bytes},
                    {"cache", hub::CacheOwnerName(model.owner)},
                    {"path", model.path}});
  }
  fmt::print("{}\n", list.dump(2, ' ', false, Json::error_handler_t::replace));
}

int List(bool json) {
  const auto settings = ReadHubSettings();
  if (!settings.has_value()) return Fail(settings.error());
  const auto models = hub::ListCached(*settings);
  if (json) {
    PrintJson(models);
    return 0;
  }
  if (models.empty()) {
    fmt::print("no models yet; pensieve pull fetches two small ones, pensieve pull ORG/REPO any other\n");
    return 0;
  }
  size_t width = 4;
  for (const auto& model : models) width = std::max(width, model.name.size());
  fmt::print("{}\n", Styled(Style::kDim, fmt::format("{:{}}  {:11}  {:12}  {:>10}  {}", "name", width, "format",
                                                     "quantization", "size", "cache")));
  for (const auto& model : models) {
    fmt::print("{}  {:11}  {:12}  {:>10}  {}\n", Styled(Style::kBold, fmt::format("{:{}}", model.name, width)),
               model.format, model.quantization.empty() ? "-" : model.quantization, HumanBytes(model.bytes),
               hub::CacheOwnerName(model.owner));
  }
  return 0;
}

struct RemoveOptions {
  std::vector<std::string> names;
  std::string cache;
  bool yes = false;
};

// Exactly one model by its listed name, else every model of a repo, or those of one quantization. Nothing is made into
// a path: what can be removed is what the list holds.
std::vector<hub::CachedModel> Matches(const std::vector<hub::CachedModel>& models, const std::string& name) {
  std::vector<hub::CachedModel> exact;
  std::vector<hub::CachedModel> of_repo;
  const hub::Alias* alias = hub::FindAlias(name);
  const auto parsed = hub::ParseModelName(alias != nullptr ? alias->repo_id : name);
  for (const auto& model : models) {
    if (hub::SameIgnoringCase(model.name, name)) exact.push_back(model);
    if (!parsed.has_value() || !parsed->file.empty() || !hub::SameIgnoringCase(model.repo_id, parsed->repo_id()))
      continue;
    const bool right_quant = parsed->quant.empty() || hub::SameIgnoringCase(model.quantization, parsed->quant);
    const auto listed = hub::ParseModelName(model.name);
    const bool right_revision =
        parsed->revision.empty() || (listed.has_value() && listed->revision == parsed->revision);
    if (right_quant && right_revision) of_repo.push_back(model);
  }
  return exact.empty() ? of_repo : exact;
}

Status CheckMatches(const std::string& name, const RemoveOptions& options, std::vector<hub::CachedModel>& matches) {
  if (matches.empty()) {
    std::error_code error;
    const bool path = std::filesystem::exists(name, error);
    return NotFound(fmt::format("{}: no model of that name; pensieve list shows the names{}", name,
                                path ? ", and files of your own are yours to remove" : ""));
  }
  const std::string cache = options.cache.empty() ? "pensieve" : options.cache;
  const std::string elsewhere = hub::CacheOwnerName(matches.front().owner);
  std::erase_if(matches, [&](const hub::CachedModel& model) { return hub::CacheOwnerName(model.owner) != cache; });
  if (!matches.empty()) return OkStatus();
  return FailedPrecondition(
      fmt::format("{}: lies in the cache of {}, which other programs use too; --from {} removes it there", name,
                  elsewhere, elsewhere));
}

bool Confirm(const hub::CachedModel& model) {
  PrintNote(fmt::format("Remove {} ({}), {}? [y/N] ", model.name, HumanBytes(model.bytes), hub::RemovalTarget(model)));
  std::fflush(stderr);
  std::string answer;
  std::getline(std::cin, answer);
  return answer == "y" || answer == "Y" || answer == "yes";
}

int Remove(const RemoveOptions& options) {
  const auto settings = ReadHubSettings();
  if (!settings.has_value()) return Fail(settings.error());
  const bool ask = !options.yes;
  if (ask && (::isatty(STDIN_FILENO) != 1 || !StderrIsTerminal())) {
    return Fail(InvalidArgument(
        "rm asks before it removes anything, and there is no terminal to ask on; --yes says that it is meant"));
  }
  for (const auto& name : options.names) {
    auto matches = Matches(hub::ListCached(*settings), name);
    if (const auto status = CheckMatches(name, options, matches); !status.ok()) return Fail(status);
    for (const auto& model : matches) {
      if (ask && !Confirm(model)) {
        fmt::print("kept {}\n", model.name);
        continue;
      }
      if (const auto status = hub::RemoveCached(*settings, model); !status.ok()) return Fail(status);
      fmt::print("removed {} ({})\n", model.name, HumanBytes(model.bytes));
    }
  }
  return 0;
}

}  // namespace

void AddList(CLI::App& app, Action& action) {
  auto* command = app.add_subcommand("list", "Show the models on this machine, with those of other programs' caches");
  command->alias("ls");
  auto json = std::make_shared<bool>(false);
  command->add_flag("--json", *json, "Print a JSON array, with paths");
  command->callback([&action, json] { action = [json] { return List(*json); }; });
}

void AddRemove(CLI::App& app, Action& action) {
  auto* command = app.add_subcommand("rm", "Remove models from the cache");
  auto options = std::make_shared<RemoveOptions>();
  command->add_option("NAME", options->names, "Names as pensieve list shows them, or ORG/REPO for all models of a repo")
      ->required();
  command->add_flag("-y,--yes", options->yes, "Do not ask");
  command->add_option("--from", options->cache, "Remove from another program's cache instead of Pensieve's own")
      ->check(CLI::IsMember({"pensieve", "huggingface", "akidb"}));
  command->callback([&action, options] { action = [options] { return Remove(*options); }; });
}

}  // namespace pensieve::cli
