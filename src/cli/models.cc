#include "cli/models.h"

#include <fmt/format.h>

#include <algorithm>
#include <filesystem>

#include "cli/interrupt.h"
#include "cli/spelling.h"
#include "cli/terminal.h"
#include "config/server_config.h"
#include "hub/cache.h"
#include "hub/catalog.h"
#include "hub/model_name.h"

namespace pensieve::cli {
namespace {

using OnFetch = std::function<void(const hub::FetchStep&)>;

// Runs one fetch with a bar on stderr; Ctrl-C stops it well.
template <typename Fetcher>
auto WithProgress(const std::string& title, const OnFetch& on_fetch, Fetcher fetch) {
  const InterruptGuard guard;
  ProgressBar bar(title);
  auto outcome = fetch([&](const hub::FetchStep& step) {
    bar.Update(step.what, step.done_bytes, step.total_bytes);
    if (on_fetch) on_fetch(step);
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

Status FetchDefault(const hub::HubSettings& settings, const hub::CatalogModel& model, const OnFetch& on_fetch) {
  const auto status =
      WithProgress(fmt::format("Fetching {} ({})", model.title, model.licence), on_fetch,
                   [&](const hub::FetchProgress& progress) { return hub::Fetch(settings, model, progress); });
  return status.code() == StatusCode::kCancelled ? status
                                                 : status.WithContext(fmt::format("cannot fetch {}", model.name));
}

Result<hub::PulledModel> PullFromHub(const hub::HubSettings& settings, const hub::ModelName& name,
                                     const OnFetch& on_fetch) {
  return WithProgress(name.ToString(), on_fetch,
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

Result<ResolvedModel> ResolveDefault(const hub::HubSettings& settings, const hub::CatalogModel& model,
                                     const OnFetch& on_fetch) {
  if (!hub::IsInstalled(settings.cache_dir, model)) PENSIEVE_RETURN_IF_ERROR(FetchDefault(settings, model, on_fetch));
  return ResolvedModel{hub::ModelPath(settings.cache_dir, model), model.name, model.aliases};
}

// "; did you mean smollm2-135m-instruct?"
std::string Suggestion(const std::string& name) {
  std::vector<std::string> known;
  for (const auto& model : hub::DefaultModels()) known.push_back(model.name);
  for (const auto& alias : hub::Aliases()) known.push_back(alias.name);
  const std::string nearest = NearestWord(name, known);
  return nearest.empty() ? "" : fmt::format("; did you mean {}?", nearest);
}

Result<ResolvedModel> ResolveOnHub(const hub::HubSettings& settings, const std::string& name, const OnFetch& on_fetch) {
  const hub::Alias* alias = hub::FindAlias(name);
  const auto parsed = hub::ParseModelName(alias != nullptr ? alias->repo_id : name);
  if (!parsed.has_value()) {
    return NotFound(fmt::format(
        "{}: no such file or directory, and no name of a model either: {}. Names are ORG/REPO on {}, and {}{}", name,
        parsed.error().message(), settings.endpoint, KnownNames(), Suggestion(name)));
  }
  if (const auto cached = hub::FindCached(settings, *parsed)) return Resolved(cached->path, name, parsed->repo_id());
  const auto pulled = PullFromHub(settings, *parsed, on_fetch);
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

std::string CacheDirectory() { return config::CacheDirectory(config::ProcessEnvironment()); }

Result<hub::HubSettings> ReadHubSettings(const std::string& cache_dir) {
  return hub::ReadHubSettings(config::ProcessEnvironment(), cache_dir.empty() ? CacheDirectory() : cache_dir);
}

Result<ResolvedModel> ResolveModel(const std::string& name, DefaultModel fallback, const ResolveOptions& options) {
  std::error_code error;
  if (!name.empty() && std::filesystem::exists(name, error)) return ResolvedModel{name, NameOfPath(name), {}};
  if (name.empty() && fallback == DefaultModel::kNone) return NotFound("no model given: use --model PATH");
  PENSIEVE_TRY(const auto settings, ReadHubSettings(options.cache_dir));
  const OnFetch& on_fetch = options.on_fetch;
  if (name.empty())
    return ResolveDefault(settings, hub::DefaultModels()[fallback == DefaultModel::kGenerator ? 0 : 1], on_fetch);
  if (const auto* model = hub::FindModel(name)) return ResolveDefault(settings, *model, on_fetch);
  if (const auto cached = hub::FindCachedByShortName(settings, name))
    return Resolved(cached->path, name, cached->repo_id);
  return ResolveOnHub(settings, name, on_fetch);
}

bool IsKnownModel(const std::string& name) {
  std::error_code error;
  if (std::filesystem::exists(name, error)) return true;
  if (hub::FindModel(name) != nullptr || hub::FindAlias(name) != nullptr) return true;
  const auto settings = ReadHubSettings();
  return settings.has_value() && hub::FindCachedByShortName(*settings, name).has_value();
}

Result<hub::PulledModel> PullModel(const std::string& name, const hub::HubSettings& settings) {
  if (const auto* model = hub::FindModel(name)) {
    const bool there = hub::IsInstalled(settings.cache_dir, *model);
    PENSIEVE_TRY(const auto resolved, ResolveDefault(settings, *model, {}));
    hub::CachedModel cached;
    cached.name = model->name;
    cached.path = resolved.path;
    return hub::PulledModel{std::move(cached), !there};
  }
  const hub::Alias* alias = hub::FindAlias(name);
  PENSIEVE_TRY(const auto parsed, hub::ParseModelName(alias != nullptr ? alias->repo_id : name));
  return PullFromHub(settings, parsed, {});
}

Status FetchDefaultModels(const hub::HubSettings& settings) {
  for (const auto& model : hub::DefaultModels()) {
    if (!hub::IsInstalled(settings.cache_dir, model)) PENSIEVE_RETURN_IF_ERROR(FetchDefault(settings, model, {}));
  }
  return OkStatus();
}

}  // namespace pensieve::cli
