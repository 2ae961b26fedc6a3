// Counts requests that are being rendered and tokenized: nobody else knows of them before the engine has them.
#pragma once

#include <chrono>
#include <cstdint>

#include "base/mutex.h"

namespace pensieve::service {

// Thread-safe.
class Preparing {
 public:
  // One request, for as long as it lives.
  class Scope {
   public:
    explicit Scope(Preparing& owner) : owner_(owner) {
      const MutexLock lock(owner_.mutex_);
      ++owner_.count_;
    }
    ~Scope() {
      const MutexLock lock(owner_.mutex_);
      if (--owner_.count_ == 0) owner_.none_.notify_all();
    }
    Scope(const Scope&) = delete;
    Scope& operator=(const Scope&) = delete;

   private:
    Preparing& owner_;
  };

  // False when some are left at the deadline.
  bool WaitForNone(std::chrono::steady_clock::time_point deadline) {
    MutexLock lock(mutex_);
    return none_.wait_until(lock, deadline, [this]() PENSIEVE_REQUIRES(mutex_) { return count_ == 0; });
  }

 private:
  Mutex mutex_;
  Condition none_;
  int64_t count_ PENSIEVE_GUARDED_BY(mutex_) = 0;
};

}  // namespace pensieve::service
