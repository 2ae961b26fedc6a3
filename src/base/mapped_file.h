// A file mapped read-only. Owns the mapping; spans into bytes() are valid for the MappedFile's life.
// Thread-safe once made.
//
// Files are expected to be replaced by rename, which keeps the old bytes alive. One that is truncated while mapped
// reads as zeros from there on, and Check tells it (base/lost_pages.h). One that is written over in place without a
// change of its size reads as whatever is written.
#pragma once

#include <cstddef>
#include <span>
#include <string>

#include "base/lost_pages.h"
#include "base/status.h"

namespace pensieve {

class MappedFile {
 public:
  // NotFound when the path does not exist, InvalidArgument for what is no regular file, Internal for other system errors.
  static Result<MappedFile> Open(const std::string& path);

  MappedFile(MappedFile&& other) noexcept;
  MappedFile& operator=(MappedFile&& other) noexcept;
  MappedFile(const MappedFile&) = delete;
  MappedFile& operator=(const MappedFile&) = delete;
  ~MappedFile();

  std::span<const std::byte> bytes() const { return {static_cast<const std::byte*>(address_), size_}; }
  const std::string& path() const { return path_; }

  // DataLoss, naming the file, when bytes() are no longer what they were: a read met a page that is gone, or it has
  // another size by now. Costs a system call unless `quick`: that tells only what a read has met.
  Status Check(bool quick = false) const;

  // Tells the kernel that the whole file will be read soon, so that it reads ahead.
  void AdviseWillNeed() const;
  // Gives back the pages of a range that has been copied elsewhere; it can still be read, at the price of a fault.
  void AdviseDone(std::span<const std::byte> range) const;

 private:
  MappedFile(void* address, size_t size, int fd, std::string path);

  void* address_ = nullptr;
  size_t size_ = 0;
  int fd_ = -1;  // open for Check: the path may be another file's by now
  std::string path_;
  LostPagesGuard guard_;
};

// The whole file as a string; InvalidArgument when it is larger than `bytes_max`.
Result<std::string> ReadFile(const std::string& path, size_t bytes_max);

}  // namespace pensieve
