#include "hub/part_file.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <numeric>

#include "base/json.h"
#include "base/mapped_file.h"

namespace pensieve::hub {
namespace {

constexpr int64_t kSegmentsMax = 16'384;  // a terabyte in pieces of 64 MiB
constexpr size_t kStateBytesMax = size_t{4} << 20;

// The size may be a lie: it buys no more than so many segments.
std::vector<Segment> Cut(int64_t bytes, int64_t segment_bytes) {
  segment_bytes = std::max(segment_bytes, bytes / kSegmentsMax + 1);
  std::vector<Segment> segments;
  if (bytes < 2 * segment_bytes) return {{0, bytes, 0, false}};
  for (int64_t begin = 0; begin < bytes; begin += segment_bytes) {
    segments.push_back({begin, begin + std::min(segment_bytes, bytes - begin), 0, false});
  }
  return segments;
}

// [begin, end, done] of each segment; empty unless they follow on each other and end at the file's end.
std::vector<Segment> ReadSegments(const Json& list, int64_t bytes) {
  std::vector<Segment> segments;
  int64_t at = 0;
  for (const auto& item : list) {
    const bool numbers = item.is_array() && item.size() == 3 &&
                         std::all_of(item.begin(), item.end(), [](const Json& n) { return n.is_number_integer(); });
    if (!numbers) return {};
    const Segment segment{item[0].get<int64_t>(), item[1].get<int64_t>(), item[2].get<int64_t>(), false};
    const bool open = segment.end < 0 && bytes < 0;
    if (segment.begin != at || segment.done < 0 || (!open && segment.end < segment.begin)) return {};
    if (!open && segment.done > segment.end - segment.begin) return {};
    at = segment.end;
    segments.push_back(segment);
  }
  // A size that only the server's answer told is the end of the one segment.
  const bool whole = bytes < 0 ? segments.size() == 1 : at == bytes;
  return whole ? segments : std::vector<Segment>();
}

}  // namespace

Status FileError(const std::string& path, const char* doing, int error_number) {
  std::string message = fmt::format("{}: cannot {}: {}", path, doing, std::strerror(error_number));
  switch (error_number) {
    case ENOSPC:
    case EDQUOT:
    case EFBIG: return ResourceExhausted(std::move(message));
    case EACCES:
    case EPERM:
    case EROFS: return {StatusCode::kPermissionDenied, std::move(message)};
    default: return Internal(std::move(message));
  }
}

PartFile::PartFile(PartFile&& other) noexcept
    : request_(std::move(other.request_)),
      fd_(std::exchange(other.fd_, -1)),
      etag_(std::move(other.etag_)),
      segments_(std::move(other.segments_)),
      resumed_(other.resumed_) {}

PartFile::~PartFile() { Close(); }

void PartFile::Close() {
  if (fd_ >= 0) ::close(fd_);
  fd_ = -1;
}

int64_t PartFile::done_bytes() const {
  return std::accumulate(segments_.begin(), segments_.end(), int64_t{0},
                         [](int64_t sum, const Segment& segment) { return sum + segment.done; });
}

bool PartFile::complete() const {
  return !segments_.empty() &&
         std::all_of(segments_.begin(), segments_.end(), [](const Segment& s) { return s.complete(); });
}

Status PartFile::Open(int64_t segment_bytes) {
  resumed_ = LoadState();
  if (!resumed_) {
    etag_.clear();
    segments_ = Cut(request_.bytes, segment_bytes);
  }
  // No link is followed: the bytes go into this directory or nowhere.
  fd_ = ::open(path().c_str(), O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW | (resumed_ ? 0 : O_TRUNC), 0644);
  return fd_ >= 0 ? OkStatus() : FileError(path(), "write", errno);
}

bool PartFile::LoadState() {
  const auto text = ReadFile(state_path(), kStateBytesMax);
  if (!text.has_value()) return false;
  const auto state = ParseJson(*text, kFileJson);
  if (!state.has_value() || !state->is_object()) return false;
  if (state->value("url", Json()) != Json(PublicUrl(request_.url)) ||
      state->value("bytes", Json()) != Json(request_.bytes))
    return false;
  if (state->value("sha256", Json()) != Json(request_.sha256)) return false;
  const auto etag = state->find("etag");
  const auto list = state->find("segments");
  if (etag == state->end() || !etag->is_string() || list == state->end() || !list->is_array()) return false;
  auto segments = ReadSegments(*list, request_.bytes);
  int64_t size_min = 0;
  int64_t done = 0;
  for (const auto& segment : segments) {
    if (segment.done > 0) size_min = segment.begin + segment.done;
    done += segment.done;
  }
  struct stat info {};
  if (done == 0 || ::lstat(path().c_str(), &info) != 0 || !S_ISREG(info.st_mode) || info.st_size < size_min)
    return false;
  etag_ = etag->get<std::string>();
  segments_ = std::move(segments);
  return true;
}

void PartFile::Restart() {
  etag_.clear();
  segments_ = {{0, request_.bytes, 0, false}};
  resumed_ = false;
}

Status PartFile::Write(int64_t offset, std::string_view bytes) const {
  while (!bytes.empty()) {
    const ssize_t n = ::pwrite(fd_, bytes.data(), bytes.size(), offset);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return FileError(path(), "write", errno);
    bytes.remove_prefix(static_cast<size_t>(n));
    offset += n;
  }
  return OkStatus();
}

void PartFile::SaveState() const {
  if (fd_ < 0) return;
  Json list = Json::array();
  for (const auto& segment : segments_) list.push_back({segment.begin, segment.end, segment.done});
  const std::string text = DumpJson({{"url", PublicUrl(request_.url)},
                                     {"bytes", request_.bytes},
                                     {"sha256", request_.sha256},
                                     {"etag", etag_},
                                     {"segments", std::move(list)}});
  const std::string fresh = state_path() + ".new";
  const int fd = ::open(fresh.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0644);
  if (fd < 0) return;
  const bool whole = ::write(fd, text.data(), text.size()) == static_cast<ssize_t>(text.size());
  ::close(fd);
  if (!whole || ::rename(fresh.c_str(), state_path().c_str()) != 0) ::unlink(fresh.c_str());
}

Status PartFile::Finish(const StopCheck& stopped) {
  const int64_t bytes = done_bytes();
  // Leftovers of a longer earlier attempt, and then the disk itself: a name stands for bytes that are really there.
  if (::ftruncate(fd_, bytes) != 0 || ::fsync(fd_) != 0) return FileError(path(), "write", errno);
  const bool sha256 = !request_.sha256.empty();
  const std::string& wanted = sha256 ? request_.sha256 : request_.git_sha1;
  if (!wanted.empty()) {
    PENSIEVE_TRY(const auto digest, sha256 ? Sha256OfFile(path(), stopped) : GitBlobSha1OfFile(path(), stopped));
    if (digest != wanted) {
      Remove();
      return DataLoss(fmt::format("{}: {} is {}, expected {}", PublicUrl(request_.url),
                                  sha256 ? "SHA-256" : "git SHA-1", digest, wanted));
    }
  }
  if (::rename(path().c_str(), request_.destination.c_str()) != 0) return FileError(path(), "rename", errno);
  ::unlink(state_path().c_str());
  Close();
  return OkStatus();
}

void PartFile::Remove() {
  Close();
  ::unlink(path().c_str());
  ::unlink(state_path().c_str());
}

}  // namespace pensieve::hub
