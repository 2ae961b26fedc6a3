#include "base/mapped_file.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <utility>

namespace pensieve {
namespace {

Status ErrnoStatus(const std::string& path, const char* what) {
  const int error = errno;
  auto message = fmt::format("{}: {}: {}", path, what, std::strerror(error));
  if (error == ENOENT || error == ENOTDIR) return NotFound(std::move(message));
  if (error == EACCES || error == EPERM) return {StatusCode::kPermissionDenied, std::move(message)};
  return Internal(std::move(message));
}

// A descriptor that closes itself.
class Descriptor {
 public:
  explicit Descriptor(int fd) : fd_(fd) {}
  Descriptor(const Descriptor&) = delete;
  Descriptor& operator=(const Descriptor&) = delete;
  ~Descriptor() {
    if (fd_ >= 0) ::close(fd_);
  }
  int get() const { return fd_; }
  int Release() { return std::exchange(fd_, -1); }

 private:
  int fd_;
};

Result<size_t> RegularFileSize(int fd, const std::string& path) {
  struct stat info {};
  if (::fstat(fd, &info) != 0) return ErrnoStatus(path, "cannot stat");
  if (S_ISDIR(info.st_mode)) return InvalidArgument(fmt::format("{}: is a directory, but a file is needed", path));
  if (!S_ISREG(info.st_mode)) return InvalidArgument(fmt::format("{}: not a regular file", path));
  return static_cast<size_t>(info.st_size);
}

}  // namespace

Result<MappedFile> MappedFile::Open(const std::string& path) {
  Descriptor fd(::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK));
  if (fd.get() < 0) return ErrnoStatus(path, "cannot open");
  PENSIEVE_TRY(const size_t size, RegularFileSize(fd.get(), path));
  if (size == 0) return MappedFile(nullptr, 0, fd.Release(), path);
  void* address = ::mmap(nullptr, size, PROT_READ, MAP_SHARED, fd.get(), 0);
  if (address == MAP_FAILED) return ErrnoStatus(path, "cannot map");
  return MappedFile(address, size, fd.Release(), path);
}

MappedFile::MappedFile(void* address, size_t size, int fd, std::string path)
    : address_(address), size_(size), fd_(fd), path_(std::move(path)), guard_(address, size) {}

MappedFile::MappedFile(MappedFile&& other) noexcept
    : address_(std::exchange(other.address_, nullptr)),
      size_(std::exchange(other.size_, 0)),
      fd_(std::exchange(other.fd_, -1)),
      path_(std::move(other.path_)),
      guard_(std::move(other.guard_)) {}

MappedFile& MappedFile::operator=(MappedFile&& other) noexcept {
  std::swap(address_, other.address_);
  std::swap(size_, other.size_);
  std::swap(fd_, other.fd_);
  std::swap(guard_, other.guard_);
  std::swap(path_, other.path_);
  return *this;
}

MappedFile::~MappedFile() {
  guard_ = LostPagesGuard();  // before another mapping can take the addresses
  if (address_ != nullptr) ::munmap(address_, size_);
  if (fd_ >= 0) ::close(fd_);
}

Status MappedFile::Check(bool quick) const {
  if (guard_.lost())
    return DataLoss(fmt::format("{}: the file was truncated or became unreadable while it was in use", path_));
  if (quick || fd_ < 0) return OkStatus();
  struct stat info {};
  if (::fstat(fd_, &info) != 0) return ErrnoStatus(path_, "cannot stat");
  if (static_cast<size_t>(info.st_size) == size_) return OkStatus();
  return DataLoss(fmt::format("{}: it had {} bytes when it was opened and has {} now", path_, size_, info.st_size));
}

void MappedFile::AdviseWillNeed() const {
  if (address_ != nullptr) ::madvise(address_, size_, MADV_WILLNEED);
}

void MappedFile::AdviseDone(std::span<const std::byte> range) const {
  // Only whole pages inside the range: neighbours may still be in use.
  const auto page = static_cast<uintptr_t>(::sysconf(_SC_PAGESIZE));
  const auto begin = (reinterpret_cast<uintptr_t>(range.data()) + page - 1) / page * page;
  const auto end = (reinterpret_cast<uintptr_t>(range.data()) + range.size()) / page * page;
  if (begin < end) ::madvise(reinterpret_cast<void*>(begin), end - begin, MADV_DONTNEED);
}

Result<std::string> ReadFile(const std::string& path, size_t bytes_max) {
  const Descriptor fd(::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK));
  if (fd.get() < 0) return ErrnoStatus(path, "cannot open");
  PENSIEVE_TRY(const size_t size, RegularFileSize(fd.get(), path));
  if (size > bytes_max) {
    return InvalidArgument(fmt::format("{}: {} bytes, more than the {} allowed here", path, size, bytes_max));
  }
  std::string text(size, '\0');
  size_t filled = 0;
  while (filled < size) {
    const ssize_t n = ::read(fd.get(), text.data() + filled, size - filled);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return ErrnoStatus(path, "cannot read");
    if (n == 0) break;
    filled += static_cast<size_t>(n);
  }
  text.resize(filled);
  return text;
}

}  // namespace pensieve
