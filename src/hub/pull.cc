#include "hub/pull.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <filesystem>
#include <set>

#include "base/json.h"
#include "base/mapped_file.h"
#include "hub/download.h"
#include "hub/file_lock.h"
#include "hub/hugging_face.h"
#include "hub/part_file.h"

namespace pensieve::hub {
namespace {

namespace fs = std::filesystem;

constexpr const char* kNote = ".pensieve.json";
constexpr size_t kNoteBytesMax = size_t{16} << 20;

Status CreateDirectories(const fs::path& directory) {
  std::error_code error;
  fs::create_directories(directory, error);
  return error ? FileError(directory.string(), "create", error.value()) : OkStatus();
}

// What tells two versions of a file apart; its commit when the hub gives no checksum.
std::string Fingerprint(const RepoFile& file, const std::string& commit) {
  return !file.sha256.empty() ? file.sha256 : !file.git_sha1.empty() ? file.git_sha1 : "commit " + commit;
}

bool HasSize(const fs::path& path, int64_t bytes) {
  std::error_code error;
  const auto size = fs::file_size(path, error);
  return !error && (bytes < 0 || static_cast<int64_t>(size) == bytes);
}

// The note beside a model: where its files are from. {"repo":..., "files":{NAME:{"bytes":..., "version":...}}}
Json ReadNote(const fs::path& directory) {
  const auto text = ReadFile((directory / kNote).string(), kNoteBytesMax);
  if (!text.has_value()) return Json::object();
  const auto json = ParseJson(*text, kFileJson);
  if (!json.has_value() || !json->is_object() || !json->contains("files") || !(*json)["files"].is_object())
    return Json::object();
  return *json;
}

Status WriteNote(const fs::path& directory, const Json& note) {
  const std::string path = (directory / kNote).string();
  const std::string fresh = path + ".new";
  const std::string text = DumpJson(note);
  const int fd = ::open(fresh.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0644);
  if (fd < 0) return FileError(fresh, "write", errno);
  const ssize_t written = ::write(fd, text.data(), text.size());
  const int write_error = errno;
  ::close(fd);
  if (written != static_cast<ssize_t>(text.size()))
    return FileError(fresh, "write", written < 0 ? write_error : ENOSPC);
  return ::rename(fresh.c_str(), path.c_str()) == 0 ? OkStatus() : FileError(path, "write", errno);
}

// One pull of one repo, under its lock.
class Puller {
 public:
  Puller(const HubSettings& settings, const ModelName& name, const FetchProgress& progress)
      : settings_(settings), name_(name), progress_(progress), target_(RepoDirectory(settings, name)) {}

  Result<PulledModel> Run();

 private:
  bool stopped() const { return progress_ && !progress_({"asking " + settings_.endpoint, 0, 0}); }
  bool UpToDate() const;
  std::optional<CachedModel> InHuggingFaceCache() const;
  Status Fetch();
  void ReuseOldFiles() const;
  Status DownloadInto();
  Status Install();
  Status InstallDirectory();
  Status InstallGguf();
  Json NoteOf(Json note) const;
  void RemoveOldDownloads(bool also_this) const;
  bool is_gguf() const { return files_.front().name.ends_with(".gguf"); }

  const HubSettings& settings_;
  const ModelName& name_;
  const FetchProgress& progress_;
  const fs::path target_;
  std::string key_;   // ORG--REPO: of the lock and the downloads
  fs::path staging_;  // files are complete here before any is visible
  RepoListing listing_;
  std::vector<RepoFile> files_;
};

Result<PulledModel> Puller::Run() {
  if (stopped()) return Cancelled("stopped");
  PENSIEVE_TRY(listing_, ListRepo(settings_, name_, [this] { return stopped(); }));
  PENSIEVE_TRY(files_, SelectFiles(listing_, name_));
  if (const auto cached = InHuggingFaceCache()) return PulledModel{*cached, false};
  bool fetched = false;
  if (!UpToDate()) {
    const fs::path downloads = fs::path(settings_.cache_dir) / "downloads";
    PENSIEVE_RETURN_IF_ERROR(CreateDirectories(downloads));
    key_ = fmt::format("{}--{}", name_.org, name_.repo);
    PENSIEVE_TRY(const auto lock, FileLock::Acquire((downloads / (key_ + ".lock")).string(), [this] {
                   return !progress_ || progress_({"waiting for another pensieve", 0, 0});
                 }));
    // The other one may have done all the work.
    if (!UpToDate()) {
      staging_ = downloads / fmt::format("{}@{}{}", key_, listing_.commit, is_gguf() ? ".gguf" : "");
      PENSIEVE_RETURN_IF_ERROR(Fetch());
      fetched = true;
    }
  }
  auto model = FindCached(settings_, name_);
  if (!model)
    return Internal(fmt::format("{}: was pulled to {} and is not found there", name_.repo_id(), target_.string()));
  return PulledModel{std::move(*model), fetched};
}

bool Puller::UpToDate() const {
  const Json note = ReadNote(target_);
  if (note.empty()) return false;
  return std::all_of(files_.begin(), files_.end(), [&](const RepoFile& file) {
    const auto entry = note["files"].find(file.name);
    return entry != note["files"].end() && entry->is_object() && HasSize(target_ / file.name, file.bytes) &&
           entry->value("version", Json()) == Json(Fingerprint(file, listing_.commit));
  });
}

// The very commit that is wanted, whole, as the hub's own tools left it.
std::optional<CachedModel> Puller::InHuggingFaceCache() const {
  ModelName exact = name_;
  exact.revision = listing_.commit;
  HubSettings only = settings_;
  only.cache_dir = only.akidb_models = "/nonexistent";
  auto model = FindCached(only, exact);
  if (!model) return std::nullopt;
  const fs::path snapshot = fs::path(model->root) / "snapshots" / listing_.commit;
  const bool whole = std::all_of(files_.begin(), files_.end(),
                                 [&](const RepoFile& file) { return HasSize(snapshot / file.name, file.bytes); });
  // It must also be what a later look by the plain name finds.
  const auto found = FindCached(settings_, name_);
  if (!whole || !found || found->path != model->path) return std::nullopt;
  return found;
}

Status Puller::Fetch() {
  RemoveOldDownloads(false);
  for (const auto& file : files_) PENSIEVE_RETURN_IF_ERROR(CreateDirectories((staging_ / file.name).parent_path()));
  if (!is_gguf()) ReuseOldFiles();
  PENSIEVE_RETURN_IF_ERROR(DownloadInto());
  if (!is_gguf() && !IsWholeModelDirectory(staging_.string())) {
    std::error_code error;
    fs::remove_all(staging_, error);
    return DataLoss(fmt::format("{} holds no whole model: its index or its shards speak of files that it has not",
                                name_.repo_id()));
  }
  PENSIEVE_RETURN_IF_ERROR(Install());
  RemoveOldDownloads(true);
  return OkStatus();
}

// Files of an older version that have not changed are linked, not fetched.
void Puller::ReuseOldFiles() const {
  const Json note = ReadNote(target_);
  if (note.empty()) return;
  for (const auto& file : files_) {
    const auto entry = note["files"].find(file.name);
    const bool same = entry != note["files"].end() && entry->is_object() && HasSize(target_ / file.name, file.bytes) &&
                      entry->value("version", Json()) == Json(Fingerprint(file, listing_.commit));
    std::error_code error;
    if (same) fs::create_hard_link(target_ / file.name, staging_ / file.name, error);
  }
}

Status Puller::DownloadInto() {
  constexpr int64_t kUndeclaredBytesMax = int64_t{64} << 20;
  std::vector<FileRequest> requests;
  int64_t there = 0;
  for (const auto& file : files_) {
    const fs::path destination = staging_ / file.name;
    std::error_code error;
    if (HasSize(destination, file.bytes)) {  // checked before it got this name
      there += static_cast<int64_t>(fs::file_size(destination, error));
      continue;
    }
    requests.push_back({.url = ResolveUrl(settings_.endpoint, name_.repo_id(), listing_.commit, file.name),
                        .destination = destination.string(),
                        .bytes = file.bytes,
                        .sha256 = file.sha256,
                        .git_sha1 = file.git_sha1,
                        .undeclared_bytes_max = kUndeclaredBytesMax});
  }
  const std::string what = fmt::format("{} {}", files_.size(), files_.size() == 1 ? "file" : "files");
  DownloadOptions options;
  options.bearer_token = settings_.token;
  options.credentials = settings_.endpoint_credentials;
  options.progress = [&](const DownloadProgress& now) {
    return !progress_ || progress_({now.checking ? "checking" : what, there + now.done_bytes, there + now.total_bytes});
  };
  return Download(std::move(requests), options);
}

Json Puller::NoteOf(Json note) const {
  note["repo"] = name_.repo_id();
  note["revision"] = name_.revision_or_main();
  note["commit"] = listing_.commit;
  if (!note.contains("files")) note["files"] = Json::object();
  for (const auto& file : files_) {
    note["files"][file.name] = {{"bytes", file.bytes}, {"version", Fingerprint(file, listing_.commit)}};
  }
  return note;
}

Status Puller::Install() { return is_gguf() ? InstallGguf() : InstallDirectory(); }

// The directory takes its place in one rename. GGUF files of the same repo move along.
Status Puller::InstallDirectory() {
  std::error_code error;
  Json note = NoteOf(Json::object());
  const Json old_note = ReadNote(target_);
  std::vector<fs::path> ggufs;
  for (const auto& item : fs::recursive_directory_iterator(target_, error)) {
    if (item.path().extension() == ".gguf") ggufs.push_back(item.path());
  }
  for (const auto& path : ggufs) {
    const auto relative = path.lexically_relative(target_);
    PENSIEVE_RETURN_IF_ERROR(CreateDirectories((staging_ / relative).parent_path()));
    fs::rename(path, staging_ / relative, error);
    if (old_note.contains("files") && old_note["files"].contains(relative.string())) {
      note["files"][relative.string()] = old_note["files"][relative.string()];
    }
  }
  PENSIEVE_RETURN_IF_ERROR(WriteNote(staging_, note));
  PENSIEVE_RETURN_IF_ERROR(CreateDirectories(target_.parent_path()));
  const fs::path old = fs::path(settings_.cache_dir) / "downloads" / (key_ + "@old");
  fs::remove_all(old, error);
  if (fs::exists(target_, error)) {
    fs::rename(target_, old, error);
    if (error) return FileError(target_.string(), "replace", error.value());
  }
  fs::rename(staging_, target_, error);
  return error ? FileError(target_.string(), "create", error.value()) : OkStatus();
}

// The first part comes last: without it there is no model.
Status Puller::InstallGguf() {
  std::vector<std::string> names;
  for (const auto& file : files_) names.push_back(file.name);
  std::sort(names.rbegin(), names.rend());
  for (const auto& file : names) {
    PENSIEVE_RETURN_IF_ERROR(CreateDirectories((target_ / file).parent_path()));
    std::error_code error;
    fs::rename(staging_ / file, target_ / file, error);
    if (error) return FileError((target_ / file).string(), "create", error.value());
  }
  return WriteNote(target_, NoteOf(ReadNote(target_)));
}

// What earlier pulls of this repo left when they were cut short; this commit's only when it is done.
void Puller::RemoveOldDownloads(bool also_this) const {
  std::error_code error;
  std::vector<fs::path> old;
  for (const auto& item : fs::directory_iterator(staging_.parent_path(), error)) {
    const std::string file = item.path().filename().string();
    const bool this_commit = file.starts_with(fmt::format("{}@{}", key_, listing_.commit));
    if (file.starts_with(key_ + "@") && (also_this ? item.path() == staging_ || !this_commit : !this_commit))
      old.push_back(item.path());
  }
  for (const auto& path : old) fs::remove_all(path, error);
}

}  // namespace

Result<PulledModel> Pull(const HubSettings& settings, const ModelName& name, const FetchProgress& progress) {
  if (settings.offline) {
    if (auto model = FindCached(settings, name)) return PulledModel{std::move(*model), false};
    return NotFound(fmt::format("{} is in no cache, and HF_HUB_OFFLINE forbids to fetch it", name.ToString()));
  }
  return Puller(settings, name, progress).Run();
}

}  // namespace pensieve::hub
