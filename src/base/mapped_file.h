// A file mapped read-only. Owns the mapping; spans into bytes() are valid for the MappedFile's life.
// Thread-safe once made. A file that is truncated by somebody else while mapped raises SIGBUS on access, as with
// every mmap: models are expected to be replaced by rename, which keeps the old bytes alive.
#pragma once

#include <cstddef>
#include <span>
#include <string>

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

  // Tells the kernel that the whole file will be read soon, so that it reads ahead.
  void AdviseWillNeed() const;
  // Gives back the pages of a range that has been copied elsewhere; it can still be read, at the price of a fault.
  void AdviseDone(std::span<const std::byte> range) const;

 private:
  MappedFile(void* address, size_t size, std::string path) : address_(address), size_(size), path_(std::move(path)) {}

  void* address_ = nullptr;
  size_t size_ = 0;
  std::string path_;
};

// The whole file as a string; InvalidArgument when it is larger than `bytes_max`.
Result<std::string> ReadFile(const std::string& path, size_t bytes_max);

}  // namespace pensieve
