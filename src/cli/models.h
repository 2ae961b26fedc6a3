// From what the user calls a model to where it lies: paths, default models, names on a hub, caches of other programs.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "base/status.h"
#include "hub/pull.h"
#include "hub/settings.h"

namespace pensieve::cli {

enum class DefaultModel { kGenerator, kEmbedder, kNone };

struct ResolvedModel {
  std::string path;
  std::string name;                  // as a server calls it: as the user did, or the file or directory of a path
  std::vector<std::string> aliases;  // other names that mean it
  bool embeds = false;               // named as the embedding model
};

// ~/.cache/pensieve, or what the environment says. Only `serve` reads a settings file.
std::string CacheDirectory();
// The hub's settings from the process's environment; `cache_dir` "" stands for CacheDirectory().
Result<hub::HubSettings> ReadHubSettings(const std::string& cache_dir = "");

// What `name` means, in this order: an existing path; "" the default of that kind; a default model; a short name; a
// model of a hub, ORG/REPO and more (hub/model_name.h). A model that is in no cache is fetched, with progress on
// stderr. NotFound says what was tried.
struct ResolveOptions {
  std::string cache_dir;                                // "" stands for CacheDirectory()
  std::function<void(const hub::FetchStep&)> on_fetch;  // told about a download, often; may be empty
};
Result<ResolvedModel> ResolveModel(const std::string& name, DefaultModel fallback, const ResolveOptions& options = {});

// Whether `name` means a model without asking a hub: a path, a default model, a short name, a model of a cache.
bool IsKnownModel(const std::string& name);

// Fetches the newest version of a default model, a short name or a model of a hub, with progress on stderr.
Result<hub::PulledModel> PullModel(const std::string& name, const hub::HubSettings& settings);

// Fetches the default models that are missing into the cache, with progress on stderr. Says nothing when none is.
Status FetchDefaultModels(const hub::HubSettings& settings);

// "smollm2-135m-instruct, all-minilm-l6-v2, ...": every name without a slash.
std::string KnownNames();

}  // namespace pensieve::cli
