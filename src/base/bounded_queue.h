// A bounded queue between threads. Full means refusal (TryPush) and never growth; Close ends both sides.
// Thread-safe. No callback runs under its lock.
#pragma once

#include <chrono>
#include <deque>
#include <optional>

#include "base/mutex.h"

namespace pensieve {

template <typename T>
class BoundedQueue {
 public:
  explicit BoundedQueue(size_t capacity) : capacity_(capacity) {}

  // False when full or closed; `value` is then untouched.
  bool TryPush(T&& value) {
    {
      const MutexLock lock(mutex_);
      if (closed_ || items_.size() >= capacity_) return false;
      items_.push_back(std::move(value));
    }
    ready_.notify_one();
    return true;
  }

  // The oldest item if there is one.
  std::optional<T> TryPop() {
    const MutexLock lock(mutex_);
    return PopLocked();
  }

  // Waits up to `timeout` for an item. Nothing on timeout, or when closed and drained.
  std::optional<T> PopFor(std::chrono::milliseconds timeout) {
    MutexLock lock(mutex_);
    ready_.wait_for(lock, timeout, [this]() PENSIEVE_REQUIRES(mutex_) { return closed_ || !items_.empty(); });
    return PopLocked();
  }

  // Waits until there is an item or the queue is closed and drained (nothing then).
  std::optional<T> Pop() {
    MutexLock lock(mutex_);
    ready_.wait(lock, [this]() PENSIEVE_REQUIRES(mutex_) { return closed_ || !items_.empty(); });
    return PopLocked();
  }

  // Refuses all later pushes and wakes every waiting consumer. Items already in are still handed out.
  void Close() {
    {
      const MutexLock lock(mutex_);
      closed_ = true;
    }
    ready_.notify_all();
  }

  size_t size() const {
    const MutexLock lock(mutex_);
    return items_.size();
  }
  size_t capacity() const { return capacity_; }

 private:
  std::optional<T> PopLocked() PENSIEVE_REQUIRES(mutex_) {
    if (items_.empty()) return std::nullopt;
    std::optional<T> item(std::move(items_.front()));
    items_.pop_front();
    return item;
  }

  const size_t capacity_;
  mutable Mutex mutex_;
  Condition ready_;
  std::deque<T> items_ PENSIEVE_GUARDED_BY(mutex_);
  bool closed_ PENSIEVE_GUARDED_BY(mutex_) = false;
};

}  // namespace pensieve
