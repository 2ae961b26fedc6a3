#include "cli/models.h"

#include <fmt/format.h>

#include <algorithm>
#include <filesystem>

#include "cli/interrupt.h"
#include "cli/terminal.h"
#include "config/server_config.h"
#include "hub/cache.h"
#include "hub/catalog.h"
#include "hub/model_name.h"

namespace pensieve::cli {
namespace {

// Runs one fetch with a bar on stderr; Ctrl-C stops it well.
template <typename Fetcher>
auto WithProgress(const std::string& title, Fetcher fetch) {
  const InterruptGuard guard;
  ProgressBar bar(title);
  auto outcome = fetch([&](const hub::FetchStep& step) {
    bar.Update(step.what, step.done_bytes, step.total_bytes);
    return !InterruptGuard::interrupted();
  });
  const Status status = [&] {
    if constexpr (std::is_same_v<decltype(outcome), Status>) return outcome;
    else return outcome.status();
  }();
  if (status.ok()) {
    bar.Finish(fmt::format("done, {} in {}", HumanBytes(bar.bytes()), HumanDuration(bar.seconds() + 0.5)));
  } else if (status.code() == StatusCode::kCancelled) {
    bar.Finish("stopped; the next time it goes on from here");
  } else {
    bar.Finish("failed");
  }
  return outcome;
}

Status FetchDefault(const hub::HubSettings& settings, const hub::CatalogModel& model) {
  const auto status =
      WithProgress(fmt::format("Fetching {} ({})", model.title, model.licence),
                   [&](const hub::FetchProgress& progress) { return hub::Fetch(settings, model, progress); });
  return status.code() == StatusCode::kCancelled ? status
                                                 : status.WithContext(fmt::format("cannot fetch {}", model.name));
}

Result<hub::PulledModel> PullFromHub(const hub::HubSettings& settings, const hub::ModelName& name) {
  return WithProgress(name.ToString(),
                      [&](const hub::FetchProgress& progress) { return hub::Pull(settings, name, progress); });
}

// The name a model is served under that was given as a path: that of its file or directory.
std::string NameOfPath(const std::string& path) {
  auto file = std::filesystem::path(path).lexically_normal();
  if (!file.has_filename()) file = file.parent_path();
  if (file.empty() || file == "." || file == "..") {
    std::error_code error;
    file = std::filesystem::canonical(path, error);
  }
  return file.extension() == ".gguf" ? file.stem().string() : file.filename().string();
}

ResolvedModel Resolved(const std::string& path, const std::string& name, const std::string& repo_id) {
  ResolvedModel model{path, name, {}};
  if (!repo_id.empty() && repo_id != name) model.aliases.push_back(repo_id);
  const hub::Alias* alias = hub::FindAlias(repo_id);
  if (alias != nullptr && alias->name != name) model.aliases.push_back(alias->name);
  return model;
}

Result<ResolvedModel> ResolveDefault(const hub::HubSettings& settings, const hub::CatalogModel& model) {
  if (!hub::IsInstalled(settings.cache_dir, model)) PENSIEVE_RETURN_IF_ERROR(FetchDefault(settings, model));
  return ResolvedModel{hub::ModelPath(settings.cache_dir, model), model.name, model.aliases};
}

Result<ResolvedModel> ResolveOnHub(const hub::HubSettings& settings, const std::string& name) {
  const hub::Alias* alias = hub::FindAlias(name);
  const auto parsed = hub::ParseModelName(alias != nullptr ? alias->repo_id : name);
  if (!parsed.has_value()) {
    return NotFound(fmt::format(
        "{}: no such file or directory, and no name of a model either: {}. Names are ORG/REPO on {}, and {}", name,
        parsed.error().message(), settings.endpoint, KnownNames()));
  }
  if (const auto cached = hub::FindCached(settings, *parsed)) return Resolved(cached->path, name, parsed->repo_id());
  const auto pulled = PullFromHub(settings, *parsed);
  if (!pulled.has_value()) {
    if (pulled.error().code() != StatusCode::kNotFound) return pulled.error();
    return NotFound(
        fmt::format("{}: no such file or directory; and as the name of a model: {}", name, pulled.error().message()));
  }
  return Resolved(pulled->model.path, name, parsed->repo_id());
}

}  // namespace

std::string KnownNames() {
  std::string names;
  for (const auto& model : hub::DefaultModels()) names += (names.empty() ? "" : ", ") + model.name;
  for (const auto& alias : hub::Aliases()) names += ", " + alias.name;
  return names;
}

Result<std::string> CacheDirectory() {
  PENSIEVE_TRY(const auto loaded,
               config::LoadConfig({.flags = {}, .file = "", .environment = config::ProcessEnvironment()}));
  return loaded.config.cache_dir;
}

Result<hub::HubSettings> ReadHubSettings(const std::string& cache_dir) {
  if (!cache_dir.empty()) return hub::ReadHubSettings(config::ProcessEnvironment(), cache_dir);
  PENSIEVE_TRY(const auto own, CacheDirectory());
  return hub::ReadHubSettings(config::ProcessEnvironment(), own);
}

Result<ResolvedModel> ResolveModel(const std::string& name, DefaultModel fallback, const std::string& cache_dir) {
  std::error_code error;
  if (!name.empty() && std::filesystem::exists(name, error)) return ResolvedModel{name, NameOfPath(name), {}};
  if (name.empty() && fallback == DefaultModel::kNone) return NotFound("no model given: use --model PATH");
  PENSIEVE_TRY(const auto settings, ReadHubSettings(cache_dir));
  if (name.empty()) return ResolveDefault(settings, hub::DefaultModels()[fallback == DefaultModel::kGenerator ? 0 : 1]);
  if (const auto* model = hub::FindModel(name)) return ResolveDefault(settings, *model);
  if (const auto cached = hub::FindCachedByShortName(settings, name))
    return Resolved(cached->path, name, cached->repo_id);
  return ResolveOnHub(settings, name);
}

Result<hub::PulledModel> PullModel(const std::string& name, const hub::HubSettings& settings) {
  if (const auto* model = hub::FindModel(name)) {
    const bool there = hub::IsInstalled(settings.cache_dir, *model);
    PENSIEVE_TRY(const auto resolved, ResolveDefault(settings, *model));
    hub::CachedModel cached;
    cached.name = model->name;
    cached.path = resolved.path;
    return hub::PulledModel{std::move(cached), !there};
  }
  const hub::Alias* alias = hub::FindAlias(name);
  PENSIEVE_TRY(const auto parsed, hub::ParseModelName(alias != nullptr ? alias->repo_id : name));
  return PullFromHub(settings, parsed);
}

Status FetchDefaultModels(const hub::HubSettings& settings) {
  for (const auto& model : hub::DefaultModels()) {
    if (!hub::IsInstalled(settings.cache_dir, model)) PENSIEVE_RETURN_IF_ERROR(FetchDefault(settings, model));
  }
  return OkStatus();
}

}  // namespace pensieve::cli
