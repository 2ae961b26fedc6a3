// Counts requests that are being rendered and tokenized: nobody else knows of them before the engine has them.
#pragma once

#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <mutex>

namespace pensieve::service {

// Thread-safe.
class Preparing {
 public:
  // One request, for as long as it lives.
  class Scope {
   public:
    explicit Scope(Preparing& owner) : owner_(owner) {
      const std::lock_guard lock(owner_.mutex_);
      ++owner_.count_;
    }
    ~Scope() {
      const std::lock_guard lock(owner_.mutex_);
      if (--owner_.count_ == 0) owner_.none_.notify_all();
    }
    Scope(const Scope&) = delete;
    Scope& operator=(const Scope&) = delete;

   private:
    Preparing& owner_;
  };

  // False when some are left at the deadline.
  bool WaitForNone(std::chrono::steady_clock::time_point deadline) {
    std::unique_lock lock(mutex_);
    return none_.wait_until(lock, deadline, [this] { return count_ == 0; });
  }

 private:
  std::mutex mutex_;
  std::condition_variable none_;
  int64_t count_ = 0;  // guarded by mutex_
};

}  // namespace pensieve::service
