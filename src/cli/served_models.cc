#include "cli/served_models.h"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <filesystem>
#include <map>
#include <set>

#include "cli/model_options.h"
#include "hub/catalog.h"

namespace pensieve::cli {
namespace {

using Clock = std::chrono::steady_clock;

constexpr int64_t kUnknownMemoryBytes = int64_t{4} << 30;
constexpr int64_t kKvBytesMin = int64_t{32} << 20;

void AddAlias(ResolvedModel& model, const std::string& alias) {
  const bool there = std::find(model.aliases.begin(), model.aliases.end(), alias) != model.aliases.end();
  if (alias != model.name && !there) model.aliases.push_back(alias);
}

// The last `count` folders above a model's file or directory, and its name: "b/model" of /a/b/model.gguf.
std::string LongerName(const ResolvedModel& model, size_t count) {
  std::error_code error;
  auto folder = std::filesystem::absolute(model.path, error).lexically_normal();
  if (!folder.has_filename()) folder = folder.parent_path();
  std::string name = model.name;
  for (size_t i = 0; i < count; ++i) {
    folder = folder.parent_path();
    if (!folder.has_filename()) break;
    name = folder.filename().string() + "/" + name;
  }
  return name;
}

std::vector<ResolvedModel> Merge(std::vector<ResolvedModel> models,
                                 const std::function<std::string(const std::string&)>& identity) {
  std::vector<ResolvedModel> merged;
  std::map<std::string, size_t> seen;  // identity -> place
  for (auto& model : models) {
    const auto [at, fresh] = seen.emplace(identity(model.path), merged.size());
    if (fresh) {
      merged.push_back(std::move(model));
      continue;
    }
    ResolvedModel& first = merged[at->second];
    AddAlias(first, model.name);
    for (const auto& alias : model.aliases) AddAlias(first, alias);
    first.embeds |= model.embeds;
  }
  return merged;
}

Result<std::unique_ptr<model::LoadedModel>> LoadOne(const config::ServerConfig& config, const ResolvedModel& choice,
                                                    const std::shared_ptr<backend::Device>& device,
                                                    int64_t memory_bytes_max) {
  model::LoadOptions load;
  PENSIEVE_TRY(load.compute.activations, ParseActivations(config.activations));
  load.device = device;
  load.rows_max = config.step_rows_max;
  load.outputs_max = config.sequences_max;
  load.context_max = config.context_max;
  load.chat_template_file = config.chat_template_file;
  load.quantize = ParseQuantize(config.quantize, config.quantize_group);
  load.memory_bytes_max = memory_bytes_max;
  PENSIEVE_TRY(load.longrope, ParseLongrope(config.longrope));
  load.embeds = choice.embeds;
  return model::Load(choice.path, load);
}

LogFields Facts(const ResolvedModel& choice, const model::LoadedModel& model, const std::string& device_reason,
                Clock::time_point start) {
  const auto device = model.backend->Describe();
  LogFields fields = {{"model", choice.name},
                      {"architecture", model.config.architecture},
                      {"quantization", model.config.quantization},
                      {"device", device.name},
                      {"device_reason", device_reason},
                      {"threads", device.threads},
                      {"weights_gb", static_cast<double>(model.weight_bytes / 10'000'000) / 100},
                      {"fingerprint", model.fingerprint}};
  if (model.config.is_embedding) {
    fields.emplace_back("pooling", model::PoolingName(model.config.pooling));
    fields.emplace_back("normalized", model.config.normalize);
    fields.emplace_back("embed_tokens_max", model.config.embed_context_max);
    fields.emplace_back("recipe", model.config.recipe_source);
  }
  fields.emplace_back("seconds", std::chrono::duration<double>(Clock::now() - start).count());
  return fields;
}

}  // namespace

std::vector<ResolvedModel> WithDistinctNames(std::vector<ResolvedModel> models,
                                             const std::function<std::string(const std::string&)>& identity) {
  std::vector<ResolvedModel> merged = Merge(std::move(models), identity);
  constexpr size_t kFoldersMax = 8;
  std::map<std::string, std::vector<size_t>> by_name;
  for (size_t i = 0; i < merged.size(); ++i) by_name[merged[i].name].push_back(i);
  for (const auto& [name, places] : by_name) {
    if (places.size() == 1) continue;
    size_t folders = 1;
    const auto distinct = [&] {
      std::set<std::string> names;
      for (const size_t i : places) names.insert(LongerName(merged[i], folders));
      return names.size() == places.size();
    };
    while (folders < kFoldersMax && !distinct()) ++folders;
    for (const size_t i : places) merged[i].name = LongerName(merged[i], folders);
  }
  return merged;
}

Result<std::vector<ResolvedModel>> ChooseModels(const config::ServerConfig& config, service::LoadProgress& progress,
                                                const std::function<void(const service::LoadProgress&)>& show) {
  std::vector<std::string> names = config.models;
  if (names.empty()) {
    for (const auto& model : hub::DefaultModels()) names.push_back(model.name);
  }
  // The embedding model that is named comes first among those that embed, and so is the default.
  if (!config.embedding_model.empty()) names.insert(names.begin(), config.embedding_model);
  progress.models_total = static_cast<int64_t>(names.size());
  std::vector<ResolvedModel> choices;
  for (const auto& name : names) {
    progress.model = name;
    progress.step = "finding";
    show(progress);
    PENSIEVE_TRY(auto model, ResolveModel(name, DefaultModel::kNone,
                                          {.cache_dir = config.cache_dir, .on_fetch = [&](const hub::FetchStep& step) {
                                             progress.step = "downloading";
                                             progress.done_bytes = step.done_bytes;
                                             progress.total_bytes = step.total_bytes;
                                             show(progress);
                                           }}));
    progress.done_bytes = progress.total_bytes = 0;
    // A path to a model of the cache means the same model, under the name that it has there.
    for (const auto& known : hub::DefaultModels()) {
      if (hub::ModelPath(config.cache_dir, known) == model.path) model.name = known.name;
    }
    choices.push_back(std::move(model));
  }
  if (!config.embedding_model.empty()) choices.front().embeds = true;
  choices = WithDistinctNames(std::move(choices), &model::CanonicalPath);
  progress.models_total = static_cast<int64_t>(choices.size());
  return choices;
}

int64_t KvBytesPerModel(int64_t asked_bytes, std::optional<int64_t> available_bytes, int64_t weight_bytes,
                        int64_t num_models_with_kv) {
  const int64_t models = std::max<int64_t>(num_models_with_kv, 1);
  if (asked_bytes > 0) return std::max<int64_t>(asked_bytes / models, 1);
  const int64_t left = available_bytes ? *available_bytes - weight_bytes : kUnknownMemoryBytes;
  return std::max(left / 4 / models, kKvBytesMin);
}

Status LoadModels(const config::ServerConfig& config, const std::vector<ResolvedModel>& choices,
                  const backend::ChosenDevice& chosen, Logger& logger, service::Service& service) {
  const int64_t device_bytes = chosen.device->AvailableBytes();
  const std::optional<int64_t> available = device_bytes > 0 ? std::optional(device_bytes) : std::nullopt;
  service::LoadProgress progress{.model = "", .step = "loading", .models_total = static_cast<int64_t>(choices.size())};
  std::vector<std::unique_ptr<model::LoadedModel>> loaded;
  int64_t weight_bytes = 0;
  int64_t with_kv = 0;
  for (const auto& choice : choices) {
    progress.model = choice.name;
    service.SetLoading(progress);
    const auto start = Clock::now();
    // Pages of a mapped file are taken when they are first read, so those of the models before may be missing in what
    // the system says now.
    const int64_t left = available ? std::max<int64_t>(*available - weight_bytes, 1) : 0;
    PENSIEVE_TRY(auto model, LoadOne(config, choice, chosen.device, left));
    for (const auto& warning : model->warnings) logger.Warn(warning, {{"model", choice.name}});
    logger.Info("model loaded", Facts(choice, *model, chosen.reason, start));
    weight_bytes += model->weight_bytes;
    with_kv += model->config.is_encoder ? 0 : 1;
    ++progress.models_loaded;
    loaded.push_back(std::move(model));
  }
  const int64_t kv_bytes = KvBytesPerModel(config.kv_bytes_max, available, weight_bytes, with_kv);
  service.SetKvBytesMax(kv_bytes);
  for (size_t i = 0; i < choices.size(); ++i) {
    PENSIEVE_RETURN_IF_ERROR(service.AddModel(choices[i].name, choices[i].aliases, std::move(loaded[i])));
  }
  if (with_kv == 0) return OkStatus();
  LogFields fields = {{"bytes_per_model", kv_bytes}, {"weight_bytes", weight_bytes}};
  if (available) fields.emplace_back("available_bytes", *available);
  if (available && config.kv_bytes_max > *available - weight_bytes) {
    logger.Warn("engine.kv_bytes_max is more than the weights leave of the memory", fields);
  } else {
    logger.Info("KV memory", fields);
  }
  return OkStatus();
}

}  // namespace pensieve::cli
