// One process at a time, by a lock file. The system frees it when the process ends, however that happens.
#pragma once

#include <functional>
#include <string>

#include "base/status.h"

namespace pensieve::hub {

class FileLock {
 public:
  // Waits for the lock; `waiting` is called about five times a second meanwhile, and false gives up (Cancelled). The
  // directory must exist; the file stays when the lock is freed.
  static Result<FileLock> Acquire(const std::string& path, const std::function<bool()>& waiting);

  FileLock(FileLock&& other) noexcept;
  FileLock(const FileLock&) = delete;
  FileLock& operator=(const FileLock&) = delete;
  FileLock& operator=(FileLock&&) = delete;
  ~FileLock();

 private:
  explicit FileLock(int fd) : fd_(fd) {}
  int fd_;
};

}  // namespace pensieve::hub
