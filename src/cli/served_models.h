// From the settings of a server to its loaded models: which, under what names, and with how much memory.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "backend/devices.h"
#include "base/status.h"
#include "cli/models.h"
#include "config/server_config.h"
#include "model/loader.h"
#include "observe/log.h"
#include "service/service.h"

namespace pensieve::cli {

// What is served, in order. A model that is named twice, by names or paths, comes once and answers to each name.
// Fetches what is in no cache, and tells `loading` about it.
Result<std::vector<ResolvedModel>> ChooseModels(const config::ServerConfig& config, service::LoadProgress& progress,
                                                const std::function<void(const service::LoadProgress&)>& show);

// Merges models of one path and gives those of one name longer ones, from the folders above: "a/model", "b/model".
// `identity` gives one text for all paths of a model.
std::vector<ResolvedModel> WithDistinctNames(std::vector<ResolvedModel> models,
                                             const std::function<std::string(const std::string&)>& identity);

// KV memory of each model that needs some: what was asked for, else a quarter of what the weights leave of
// `available_bytes`, shared out. At least a small pool, so that a server on a tight machine answers short requests.
// `available_bytes`: before the weights were loaded; nothing when the system does not tell.
int64_t KvBytesPerModel(int64_t asked_bytes, std::optional<int64_t> available_bytes, int64_t weight_bytes,
                        int64_t num_models_with_kv);

// Loads all of them, then gives them to the service.
Status LoadModels(const config::ServerConfig& config, const std::vector<ResolvedModel>& choices,
                  const backend::ChosenDevice& chosen, Logger& logger, service::Service& service);

}  // namespace pensieve::cli
