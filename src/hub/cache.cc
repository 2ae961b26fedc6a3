#include "hub/cache.h"

#include <fmt/format.h>

#include <algorithm>
#include <filesystem>
#include <set>

#include "base/json.h"
#include "base/mapped_file.h"
#include "hub/catalog.h"
#include "hub/hugging_face.h"

namespace pensieve::hub {
namespace {

namespace fs = std::filesystem;

constexpr size_t kIndexBytesMax = size_t{64} << 20;
constexpr size_t kConfigBytesMax = size_t{16} << 20;
constexpr size_t kRefBytesMax = 256;
constexpr size_t kEntriesMax = 20'000;  // of one directory tree
constexpr int kDepthMax = 3;

bool IsFile(const fs::path& path) {
  std::error_code error;
  return fs::is_regular_file(path, error);
}

bool IsDirectory(const fs::path& path) {
  std::error_code error;
  return fs::is_directory(path, error);
}

std::vector<fs::path> EntriesOf(const fs::path& directory) {
  std::vector<fs::path> entries;
  std::error_code error;
  for (fs::directory_iterator it(directory, error), end; !error && it != end && entries.size() < kEntriesMax;
       it.increment(error)) {
    entries.push_back(it->path());
  }
  std::sort(entries.begin(), entries.end());
  return entries;
}

// Relative paths of the files below a directory, links to files included.
std::vector<std::string> FilesBelow(const fs::path& directory) {
  std::vector<std::string> files;
  std::error_code error;
  fs::recursive_directory_iterator it(directory, error);
  for (const fs::recursive_directory_iterator end; !error && it != end && files.size() < kEntriesMax;
       it.increment(error)) {
    if (it.depth() >= kDepthMax) it.disable_recursion_pending();
    if (IsFile(it->path())) files.push_back(it->path().lexically_relative(directory).generic_string());
  }
  std::sort(files.begin(), files.end());
  return files;
}

Json ReadObject(const fs::path& path, size_t bytes_max) {
  const auto text = ReadFile(path.string(), bytes_max);
  if (!text.has_value()) return Json::object();
  const auto json = ParseJson(*text, kFileJson);
  return json.has_value() && json->is_object() ? *json : Json::object();
}

// Whether the shards in `names` are all of those that the index, or a shard's own name, speaks of.
bool HasAllShards(const fs::path& directory, const std::vector<std::string>& names) {
  const Json index = ReadObject(directory / "model.safetensors.index.json", kIndexBytesMax);
  const auto map = index.find("weight_map");
  if (map != index.end() && map->is_object()) {
    std::set<std::string> indexed;
    for (const auto& [tensor, file] : map->items()) indexed.insert(file.is_string() ? file.get<std::string>() : "");
    const auto there = [&](const std::string& file) {
      return std::find(names.begin(), names.end(), file) != names.end();
    };
    // An index of which nothing is there is a leftover of another model, as the loader has it too.
    if (std::any_of(indexed.begin(), indexed.end(), there)) return std::all_of(indexed.begin(), indexed.end(), there);
  }
  for (const auto& name : names) {
    const std::string as_gguf = name.substr(0, name.size() - std::string_view(".safetensors").size()) + ".gguf";
    const auto split = ParseSplitName(as_gguf);
    if (!split) continue;
    for (int part = 1; part <= split->parts; ++part) {
      if (!IsFile(directory / fmt::format("{}-{:05d}-of-{:05d}.safetensors", split->stem, part, split->parts)))
        return false;
    }
  }
  return true;
}

std::string TextOf(const Json& object, const char* key) {
  const auto found = object.find(key);
  return found != object.end() && found->is_string() ? found->get<std::string>() : "";
}

void DescribeDirectory(const fs::path& directory, CachedModel& model) {
  const Json config = ReadObject(directory / "config.json", kConfigBytesMax);
  const bool mlx = config.contains("quantization") && config["quantization"].is_object();
  model.format = mlx ? "mlx" : "safetensors";
  const Json quantization = mlx ? config["quantization"] : config.value("quantization_config", Json::object());
  if (quantization.is_object() && quantization.contains("bits") && quantization["bits"].is_number_integer()) {
    const std::string mode = TextOf(quantization, "mode");
    model.quantization = mode.starts_with("mx") || mode.starts_with("nv")
                             ? mode
                             : fmt::format("{}-bit", quantization["bits"].get<int64_t>());
  } else {
    const std::string dtype = TextOf(config, "dtype");
    model.quantization = dtype.empty() ? TextOf(config, "torch_dtype") : dtype;
  }
}

int64_t TotalBytes(const std::vector<std::string>& files) {
  int64_t total = 0;
  for (const auto& file : files) {
    std::error_code error;
    const auto size = fs::file_size(file, error);
    if (!error) total += static_cast<int64_t>(size);
  }
  return total;
}

// `path` was found by ModelPathIn in `directory`.
CachedModel Describe(const fs::path& directory, const std::string& path, std::string name) {
  CachedModel model{.name = std::move(name),
                    .repo_id = "",
                    .path = path,
                    .root = directory.string(),
                    .files = {},
                    .format = "",
                    .quantization = ""};
  if (IsDirectory(path)) {
    for (const auto& file : FilesBelow(directory)) {
      if (!file.ends_with(".gguf")) model.files.push_back((directory / file).string());
    }
    DescribeDirectory(directory, model);
  } else {
    model.format = "gguf";
    model.quantization = QuantOfFileName(path);
    model.files = {path};
    if (const auto split = ParseSplitName(path)) {
      model.files.clear();
      for (int part = 1; part <= split->parts; ++part) {
        model.files.push_back(fmt::format("{}-{:05d}-of-{:05d}.gguf", split->stem, part, split->parts));
      }
    }
  }
  model.bytes = TotalBytes(model.files);
  return model;
}

// The snapshot that a revision means in Hugging Face's layout.
std::optional<fs::path> SnapshotOf(const fs::path& repo, const std::string& revision) {
  const auto text = ReadFile((repo / "refs" / (revision.empty() ? "main" : revision)).string(), kRefBytesMax);
  if (text.has_value()) {
    const std::string commit = text->substr(0, text->find_first_of(" \r\n"));
    if (IsSafeComponent(commit) && IsDirectory(repo / "snapshots" / commit)) return repo / "snapshots" / commit;
    return std::nullopt;
  }
  if (!revision.empty()) {
    if (IsSafeComponent(revision) && IsDirectory(repo / "snapshots" / revision)) return repo / "snapshots" / revision;
    return std::nullopt;
  }
  // A repo of which only one commit was ever fetched, by its number.
  const auto snapshots = EntriesOf(repo / "snapshots");
  return snapshots.size() == 1 ? std::optional(snapshots.front()) : std::nullopt;
}

fs::path HuggingFaceRepo(const HubSettings& settings, const ModelName& name) {
  return fs::path(settings.hf_cache) / fmt::format("models--{}--{}", name.org, name.repo);
}

std::optional<CachedModel> FindIn(const fs::path& directory, const ModelName& name, CacheOwner owner,
                                  const fs::path& root) {
  const auto path = ModelPathIn(directory.string(), name);
  if (!path) return std::nullopt;
  CachedModel model = Describe(directory, *path, name.ToString());
  model.repo_id = name.repo_id();
  model.owner = owner;
  model.root = root.string();
  return model;
}

// A directory of AkiDB's form: it has a note of AkiDB's downloader, or lies in AkiDB's own cache.
std::optional<CachedModel> FindShort(const HubSettings& settings, const fs::path& models, const std::string& name) {
  const fs::path directory = models / name;
  if (!IsSafeComponent(name) || !IsWholeModelDirectory(directory.string())) return std::nullopt;
  CachedModel model = Describe(directory, directory.string(), name);
  const bool akidb = models == fs::path(settings.akidb_models) || IsFile(directory / "akidb_metadata.json");
  const bool ours = FindModel(name) != nullptr && models == fs::path(settings.cache_dir) / "models";
  model.owner = akidb && !ours ? CacheOwner::kAkidb : CacheOwner::kPensieve;
  if (const Alias* alias = FindAlias(name)) model.repo_id = alias->repo_id;
  return model;
}

// The models of a directory that holds a repo's files, each under the name that finds it.
void ListRepoFiles(const fs::path& directory, const ModelName& name, CachedModel common,
                   std::vector<CachedModel>& list) {
  const auto add = [&](const ModelName& which) {
    const auto path = ModelPathIn(directory.string(), which);
    if (!path) return;
    CachedModel model = Describe(directory, *path, which.ToString());
    model.repo_id = name.repo_id();
    model.owner = common.owner;
    model.root = common.root;
    list.push_back(std::move(model));
  };
  if (IsWholeModelDirectory(directory.string())) add(name);
  for (const auto& parts : GgufModels(FilesBelow(directory))) {
    ModelName which = name;
    which.file = parts.front();
    add(which);
  }
}

std::string DecodeRevision(std::string text) {
  for (size_t at = 0; (at = text.find("--", at)) != std::string::npos;) text.replace(at, 2, "/");
  return text;
}

void ListOwn(const HubSettings& settings, std::vector<CachedModel>& list) {
  for (const auto& model : DefaultModels()) {
    if (!IsInstalled(settings.cache_dir, model)) continue;
    const fs::path directory = ModelDirectory(settings.cache_dir, model);
    list.push_back(Describe(directory, ModelPath(settings.cache_dir, model), model.name));
  }
  const fs::path models = fs::path(settings.cache_dir) / "models";
  for (const auto& org : EntriesOf(models)) {
    if (FindModel(org.filename().string()) != nullptr) continue;
    if (auto model = FindShort(settings, models, org.filename().string())) {
      list.push_back(std::move(*model));
      continue;
    }
    for (const auto& repo : EntriesOf(org)) {
      const std::string file = repo.filename().string();
      const size_t at = std::min(file.find('@'), file.size());
      std::string text = fmt::format("{}/{}", org.filename().string(), file.substr(0, at));
      if (at < file.size()) text += "@" + DecodeRevision(file.substr(at + 1));
      const auto name = ParseModelName(text);
      if (!name.has_value() || !IsDirectory(repo)) continue;
      CachedModel common;
      common.root = repo.string();
      ListRepoFiles(repo, *name, common, list);
    }
  }
}

void ListHuggingFace(const HubSettings& settings, std::vector<CachedModel>& list) {
  constexpr std::string_view kPrefix = "models--";
  for (const auto& repo : EntriesOf(settings.hf_cache)) {
    std::string text = repo.filename().string();
    if (!text.starts_with(kPrefix)) continue;
    const auto name = ParseModelName(DecodeRevision(text.substr(kPrefix.size())));
    if (!name.has_value()) continue;
    const auto main = SnapshotOf(repo, "");
    for (const auto& snapshot : EntriesOf(repo / "snapshots")) {
      ModelName which = *name;
      if (!main || snapshot != *main) which.revision = snapshot.filename().string();
      CachedModel common;
      common.owner = CacheOwner::kHuggingFace;
      common.root = repo.string();
      ListRepoFiles(snapshot, which, common, list);
    }
  }
}

void RemoveEmptyParents(const fs::path& directory, const fs::path& stop) {
  std::error_code error;
  for (fs::path at = directory; at != stop && at.has_relative_path(); at = at.parent_path()) {
    if (!fs::remove(at, error) || error) return;
  }
}

}  // namespace

const char* CacheOwnerName(CacheOwner owner) {
  switch (owner) {
    case CacheOwner::kPensieve: return "pensieve";
    case CacheOwner::kHuggingFace: return "huggingface";
    case CacheOwner::kAkidb: return "akidb";
  }
  PENSIEVE_UNREACHABLE();
}

std::string RepoDirectory(const HubSettings& settings, const ModelName& name) {
  std::string revision = name.revision.empty() ? "" : "@" + name.revision;
  for (size_t at = 0; (at = revision.find('/', at)) != std::string::npos;) revision.replace(at, 1, "--");
  return fmt::format("{}/models/{}/{}{}", settings.cache_dir, name.org, name.repo, revision);
}

bool IsWholeModelDirectory(const std::string& directory) {
  const fs::path base(directory);
  const auto is_tokenizer = [&](const char* file) { return IsFile(base / file); };
  const bool tokenizer = is_tokenizer("tokenizer.json") || is_tokenizer("tokenizer.model") || is_tokenizer("vocab.txt");
  if (!tokenizer || !IsFile(base / "config.json")) return false;
  std::vector<std::string> shards;
  for (const auto& entry : EntriesOf(base)) {
    const std::string file = entry.filename().string();
    if (file.starts_with("model") && file.ends_with(".safetensors") && IsFile(entry)) shards.push_back(file);
  }
  return !shards.empty() && HasAllShards(base, shards);
}

std::optional<std::string> ModelPathIn(const std::string& directory, const ModelName& name) {
  if (name.file.empty() && name.quant.empty() && IsWholeModelDirectory(directory)) return directory;
  if (!IsDirectory(directory)) return std::nullopt;
  const auto parts = ChooseGguf(FilesBelow(directory), name);
  if (!parts.has_value()) return std::nullopt;
  return (fs::path(directory) / parts->front()).string();
}

std::optional<CachedModel> FindCached(const HubSettings& settings, const ModelName& name) {
  const fs::path own = RepoDirectory(settings, name);
  if (auto model = FindIn(own, name, CacheOwner::kPensieve, own)) return model;
  const fs::path repo = HuggingFaceRepo(settings, name);
  if (const auto snapshot = SnapshotOf(repo, name.revision)) {
    if (auto model = FindIn(*snapshot, name, CacheOwner::kHuggingFace, repo)) return model;
  }
  const Alias* alias = FindAlias(name.repo_id());
  if (alias == nullptr || !name.revision.empty() || !name.file.empty() || !name.quant.empty()) return std::nullopt;
  for (const auto& models : {fs::path(settings.cache_dir) / "models", fs::path(settings.akidb_models)}) {
    if (auto model = FindShort(settings, models, alias->name)) return model;
  }
  return std::nullopt;
}

std::optional<CachedModel> FindCachedByShortName(const HubSettings& settings, const std::string& name) {
  if (const Alias* alias = FindAlias(name)) {
    const auto parsed = ParseModelName(alias->repo_id);
    PENSIEVE_CHECK(parsed.has_value());
    auto model = FindCached(settings, *parsed);
    if (model) model->name = alias->name;
    return model;
  }
  for (const auto& models : {fs::path(settings.cache_dir) / "models", fs::path(settings.akidb_models)}) {
    if (auto model = FindShort(settings, models, name)) return model;
  }
  return std::nullopt;
}

std::vector<CachedModel> ListCached(const HubSettings& settings) {
  std::vector<CachedModel> list;
  ListOwn(settings, list);
  ListHuggingFace(settings, list);
  const fs::path akidb(settings.akidb_models);
  if (akidb != fs::path(settings.cache_dir) / "models") {
    for (const auto& entry : EntriesOf(akidb)) {
      if (auto model = FindShort(settings, akidb, entry.filename().string())) list.push_back(std::move(*model));
    }
  }
  std::stable_sort(list.begin(), list.end(), [](const CachedModel& a, const CachedModel& b) {
    return a.owner != b.owner ? a.owner < b.owner : a.name < b.name;
  });
  return list;
}

std::string RemovalTarget(const CachedModel& model) {
  if (model.owner == CacheOwner::kHuggingFace) return model.root + " (every revision)";
  return model.format == "gguf" ? fmt::format("{}", fmt::join(model.files, ", ")) : model.root;
}

Status RemoveCached(const HubSettings& settings, const CachedModel& model) {
  const fs::path cache = model.owner == CacheOwner::kHuggingFace ? fs::path(settings.hf_cache)
                         : fs::path(model.root).parent_path() == fs::path(settings.akidb_models)
                             ? fs::path(settings.akidb_models)
                             : fs::path(settings.cache_dir) / "models";
  // A link on the way may lead anywhere: what is deleted must really lie in the cache.
  std::error_code error;
  const fs::path real_cache = fs::canonical(cache, error);
  const fs::path real_parent = error ? fs::path() : fs::canonical(fs::path(model.root).parent_path(), error);
  const auto [end, unused] =
      std::mismatch(real_cache.begin(), real_cache.end(), real_parent.begin(), real_parent.end());
  if (error || end != real_cache.end()) {
    return {StatusCode::kPermissionDenied,
            fmt::format("{}: does not lie in {}; nothing was removed", model.root, cache.string())};
  }
  const bool whole_directory = model.owner != CacheOwner::kPensieve || fs::is_symlink(model.root, error);
  if (whole_directory) {
    fs::remove_all(model.root, error);
    if (!error && model.owner == CacheOwner::kHuggingFace) {
      fs::remove_all(cache / ".locks" / fs::path(model.root).filename(), error);
    }
  } else {
    for (const auto& file : model.files) {
      if (!error) fs::remove(file, error);
    }
    const auto left = FilesBelow(model.root);
    const bool only_note =
        std::all_of(left.begin(), left.end(), [](const auto& file) { return file == ".pensieve.json"; });
    if (!error && only_note) fs::remove_all(model.root, error);
  }
  if (error) return {StatusCode::kPermissionDenied, fmt::format("{}: cannot remove: {}", model.root, error.message())};
  RemoveEmptyParents(fs::path(model.root).parent_path(), cache);
  return OkStatus();
}

}  // namespace pensieve::hub
