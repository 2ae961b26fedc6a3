#include "hub/download.h"

#include <fmt/format.h>
#include <sys/statvfs.h>

#include <atomic>
#include <chrono>
#include <filesystem>
#include <optional>
#include <set>
#include <thread>

#include "base/mutex.h"
#include "hub/http_get.h"
#include "hub/part_file.h"

namespace pensieve::hub {
namespace {

namespace fs = std::filesystem;
using Clock = std::chrono::steady_clock;

// Weak ETags say that documents mean the same, not that their bytes are the same.
std::string StrongEtag(const std::string& etag) { return etag.starts_with("W/") ? "" : etag; }

double InGiB(int64_t bytes) { return static_cast<double>(bytes) / (1 << 30); }

// A file and how far the work on it is. Guarded by Downloader::mutex_, but for the bytes on disk.
struct Job {
  explicit Job(FileRequest request) : file(std::move(request)) {}

  PartFile file;
  // One segment goes first and finds out whether the server serves ranges of the very file that is wanted.
  bool probed = false;
  int running = 0;
  bool checking = false;
  bool finished = false;
  bool started_over = false;  // a checksum of resumed bytes was wrong once
  bool discard = false;       // its bytes are known to be wrong
};

struct Work {
  Job* job = nullptr;
  size_t index = 0;    // of the segment
  bool check = false;  // all bytes are there: the checksum, the name

  Segment& segment() const { return job->file.segments()[index]; }
};

class Downloader {
 public:
  Downloader(std::vector<FileRequest> files, const DownloadOptions& options) : options_(options) {
    for (auto& file : files) jobs_.push_back(std::make_unique<Job>(std::move(file)));
  }

  Status Run() {
    PENSIEVE_RETURN_IF_ERROR(OpenAll());
    PENSIEVE_RETURN_IF_ERROR(CheckDisk());
    {
      const MutexLock lock(mutex_);
      if (options_.progress && !options_.progress(ProgressLocked())) return Cancelled("stopped");
    }
    {
      size_t segments = 0;
      for (const auto& job : jobs_) segments += job->file.segments().size();
      const size_t num_workers = std::min(static_cast<size_t>(options_.connections), segments);
      std::vector<std::jthread> workers;
      for (size_t i = 0; i < num_workers; ++i) workers.emplace_back([this]() noexcept { WorkUntilDone(); });
      Watch();
    }
    const MutexLock lock(mutex_);
    for (const auto& job : jobs_) {
      if (job->discard) {
        job->file.Remove();
      } else if (!job->finished) {
        job->file.SaveState();
      }
    }
    if (failure_.ok() && options_.progress) options_.progress(ProgressLocked());
    return failure_;
  }

 private:
  Status OpenAll();
  Status CheckDisk() const;
  void Watch();
  DownloadProgress ProgressLocked() const PENSIEVE_REQUIRES(mutex_);
  void WorkUntilDone();
  std::optional<Work> NextWork();
  std::optional<Work> FindWorkLocked() PENSIEVE_REQUIRES(mutex_);
  void FinishWork(const Work& work, const Status& status);
  Status FetchSegment(HttpSession& session, Work& work);
  Status TransferSegment(HttpSession& session, Work& work);
  HttpRequest RequestFor(const Work& work);
  Status AcceptHead(Work& work, bool asked_for_range, const HttpReply& reply);
  Status AcceptBytes(const Work& work, std::string_view bytes);
  static void StartOverLocked(Work& work);
  bool RestartLocked(Job& job) PENSIEVE_REQUIRES(mutex_);
  bool stopped() const { return stop_.load(std::memory_order_relaxed); }

  const DownloadOptions& options_;
  std::vector<std::unique_ptr<Job>> jobs_;
  Mutex mutex_;
  Condition changed_;
  std::atomic<bool> stop_{false};
  Status failure_ PENSIEVE_GUARDED_BY(mutex_);  // the first one
};

Status Downloader::OpenAll() {
  for (const auto& job : jobs_) { PENSIEVE_RETURN_IF_ERROR(job->file.Open(options_.segment_bytes)); }
  return OkStatus();
}

// Asks before the first byte whether there is room, so that a full disk is not found out after hours.
Status Downloader::CheckDisk() const {
  int64_t total = 0;
  for (const auto& job : jobs_) {
    const int64_t bytes = job->file.request().bytes;
    if (bytes >= 0) total += std::max<int64_t>(0, bytes - job->file.done_bytes());
  }
  if (jobs_.empty() || total == 0) return OkStatus();
  const std::string directory = fs::path(jobs_.front()->file.request().destination).parent_path();
  struct statvfs disk {};
  if (::statvfs(directory.c_str(), &disk) != 0) return OkStatus();
  const auto available = static_cast<int64_t>(disk.f_bavail) * static_cast<int64_t>(disk.f_frsize);
  if (total <= available) return OkStatus();
  for (const auto& job : jobs_) {
    if (job->file.done_bytes() == 0) job->file.Remove();
  }
  return ResourceExhausted(fmt::format("{}: {:.1f} GiB are to be downloaded, but the disk has only {:.1f} GiB left",
                                       directory, InGiB(total), InGiB(available)));
}

DownloadProgress Downloader::ProgressLocked() const {
  DownloadProgress progress;
  bool all_there = true;
  for (const auto& job : jobs_) {
    progress.total_bytes += std::max<int64_t>(job->file.segments().back().end, 0);
    progress.done_bytes += job->file.done_bytes();
    all_there = all_there && (job->finished || job->checking);
  }
  progress.checking = all_there;
  return progress;
}

// The caller's thread: shows progress, notes now and then what is there, and waits for the end.
void Downloader::Watch() {
  auto noted = Clock::now();
  MutexLock lock(mutex_);
  const auto over = [&] {
    return stopped() || std::all_of(jobs_.begin(), jobs_.end(), [](const auto& job) { return job->finished; });
  };
  while (!over()) {
    changed_.wait_for(lock, std::chrono::milliseconds(100));
    if (Clock::now() - noted > std::chrono::seconds(1)) {
      for (const auto& job : jobs_) {
        if (job->running > 0) job->file.SaveState();
      }
      noted = Clock::now();
    }
    const DownloadProgress progress = ProgressLocked();
    if (!options_.progress) continue;
    lock.unlock();
    const bool go_on = options_.progress(progress);
    lock.lock();
    if (go_on || !failure_.ok()) continue;
    failure_ = Cancelled("stopped");
    stop_ = true;
  }
  changed_.notify_all();
}

void Downloader::WorkUntilDone() {
  HttpSession session;
  while (auto work = NextWork()) {
    const Status status =
        work->check ? work->job->file.Finish([this] { return stopped(); }) : FetchSegment(session, *work);
    FinishWork(*work, status);
  }
}

std::optional<Work> Downloader::NextWork() {
  MutexLock lock(mutex_);
  while (!stopped()) {
    if (auto work = FindWorkLocked()) return work;
    if (std::all_of(jobs_.begin(), jobs_.end(), [](const auto& job) { return job->finished; })) return std::nullopt;
    changed_.wait(lock);
  }
  return std::nullopt;
}

std::optional<Work> Downloader::FindWorkLocked() {
  for (const auto& job : jobs_) {
    if (job->finished || job->checking) continue;
    if (job->file.complete() && job->running == 0) {
      job->checking = true;
      return Work{job.get(), 0, true};
    }
    if (!job->probed && job->running > 0) continue;
    auto& segments = job->file.segments();
    for (size_t i = 0; i < segments.size(); ++i) {
      if (segments[i].running || segments[i].complete()) continue;
      segments[i].running = true;
      ++job->running;
      return Work{job.get(), i, false};
    }
  }
  return std::nullopt;
}

// Bytes of an earlier run that turn out to be wrong are worth one fresh start.
bool Downloader::RestartLocked(Job& job) {
  if (!job.file.resumed() || job.started_over) return false;
  if (!job.file.Open(options_.segment_bytes).ok()) return false;
  job.started_over = true;
  job.probed = false;
  return true;
}

void Downloader::FinishWork(const Work& work, const Status& status) {
  const MutexLock lock(mutex_);
  Job& job = *work.job;
  if (work.check) {
    job.checking = false;
    job.finished = status.ok();
  } else {
    --job.running;
    work.segment().running = false;
  }
  const bool again = work.check && status.code() == StatusCode::kDataLoss && RestartLocked(job);
  if (!status.ok() && !again && failure_.ok()) {
    failure_ = status;
    job.discard = status.code() == StatusCode::kDataLoss;
    stop_ = true;
  }
  changed_.notify_all();
}

Status Downloader::FetchSegment(HttpSession& session, Work& work) {
  int64_t most = 0;  // bytes of the segment that were ever there: only more of them count as progress
  for (int attempt = 1;; ++attempt) {
    const Status status = TransferSegment(session, work);
    if (status.ok() || stopped() || status.code() != StatusCode::kUnavailable) return status;
    {
      const MutexLock lock(mutex_);
      if (work.segment().done > most) attempt = 1;
      most = std::max(most, work.segment().done);
    }
    if (attempt >= options_.attempts) return status;
    if (!WaitBeforeRetry(attempt, status.retry_after_ms(), [this] { return stopped(); })) return Cancelled("stopped");
  }
}

HttpRequest Downloader::RequestFor(const Work& work) {
  const MutexLock lock(mutex_);
  const PartFile& file = work.job->file;
  HttpRequest request{.url = file.request().url,
                      .bearer_token = options_.bearer_token,
                      .credentials = options_.credentials,
                      .if_range = ""};
  const Segment& segment = work.segment();
  if (segment.done == 0 && file.segments().size() == 1) return request;
  request.range_begin = segment.begin + segment.done;
  if (segment.end >= 0) request.range_end = segment.end - 1;
  request.if_range = file.etag();
  return request;
}

Status Downloader::TransferSegment(HttpSession& session, Work& work) {
  const HttpRequest request = RequestFor(work);
  HttpReply reply;
  const Status status =
      session.Get(request,
                  {.on_head = [&](const HttpReply& head) { return AcceptHead(work, request.range_begin >= 0, head); },
                   .on_bytes = [&](std::string_view bytes) { return AcceptBytes(work, bytes); },
                   .stopped = [this] { return stopped(); }},
                  reply);
  const MutexLock lock(mutex_);
  Segment& segment = work.segment();
  if (status.code() == StatusCode::kOutOfRange) {
    if (work.job->probed) {
      return DataLoss(fmt::format("{}: ends after {} of the {} bytes that were announced", PublicUrl(request.url),
                                  segment.begin + segment.done, segment.end));
    }
    // What an earlier run left does not continue the server's file.
    StartOverLocked(work);
    return Unavailable(status.message());
  }
  PENSIEVE_RETURN_IF_ERROR(status);
  if (segment.end < 0) segment.end = segment.begin + segment.done;
  if (!segment.complete()) {
    return Unavailable(fmt::format("{}: ended after {} of {} bytes", PublicUrl(request.url),
                                   segment.begin + segment.done, segment.end));
  }
  work.job->file.SaveState();
  return OkStatus();
}

// Only while no other segment of the file is being worked on.
void Downloader::StartOverLocked(Work& work) {
  work.job->file.Restart();
  work.job->probed = false;
  work.index = 0;
  work.segment().running = true;
}

// Is this the file that was announced, and the part of it that was asked for?
Status Downloader::AcceptHead(Work& work, bool asked_for_range, const HttpReply& reply) {
  const MutexLock lock(mutex_);
  Job& job = *work.job;
  PartFile& file = job.file;
  const FileRequest& request = file.request();
  const bool partial = reply.status == 206;
  const int64_t declared = partial ? reply.range_total : reply.content_length;
  if (request.bytes >= 0 && declared >= 0 && declared != request.bytes) {
    return DataLoss(fmt::format("{}: the server sends {} bytes, but the file has {}", PublicUrl(request.url), declared,
                                request.bytes));
  }
  if (request.bytes < 0 && declared > request.undeclared_bytes_max) {
    return DataLoss(fmt::format("{}: {} bytes are more than the {} that are allowed", PublicUrl(request.url), declared,
                                request.undeclared_bytes_max));
  }
  if (partial && (!asked_for_range || reply.range_begin != work.segment().begin + work.segment().done)) {
    return DataLoss(fmt::format("{}: the server sends another range than was asked for", PublicUrl(request.url)));
  }
  const std::string etag = StrongEtag(reply.etag);
  const bool same_file = etag.empty() || file.etag().empty() || etag == file.etag();
  if (!partial || !same_file) {
    // The whole file instead of a part: the server knows no ranges, or the file is another one by now.
    if (job.probed && file.segments().size() > 1) {
      return DataLoss(fmt::format("{}: the file changed while it was downloaded", PublicUrl(request.url)));
    }
    StartOverLocked(work);
    if (partial) return Unavailable(fmt::format("{}: the file has changed", PublicUrl(request.url)));
  }
  if (work.segment().end < 0) work.segment().end = declared;
  file.set_etag(etag);
  job.probed = true;
  changed_.notify_all();
  return OkStatus();
}

Status Downloader::AcceptBytes(const Work& work, std::string_view bytes) {
  int64_t offset = 0;
  {
    const MutexLock lock(mutex_);
    const FileRequest& request = work.job->file.request();
    const Segment& segment = work.segment();
    offset = segment.begin + segment.done;
    const int64_t limit = segment.end >= 0 ? segment.end : request.undeclared_bytes_max;
    if (offset + static_cast<int64_t>(bytes.size()) > limit) {
      return DataLoss(fmt::format("{}: more than the {} bytes expected", PublicUrl(request.url), limit));
    }
  }
  PENSIEVE_RETURN_IF_ERROR(work.job->file.Write(offset, bytes));
  const MutexLock lock(mutex_);
  work.segment().done += static_cast<int64_t>(bytes.size());
  return OkStatus();
}

}  // namespace

Status Download(std::vector<FileRequest> files, const DownloadOptions& options) {
  if (files.empty()) return OkStatus();
  return Downloader(std::move(files), options).Run();
}

}  // namespace pensieve::hub
