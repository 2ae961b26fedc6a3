// The bounded queue of events of one request: the engine pushes, one consumer takes.
//
// It never refuses: the engine asks full() before it computes what it would have to push, and pauses the sequence
// instead. The terminal event has a place of its own, so that a request can always end. Thread-safe; no callback runs
// under the lock.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <thread>
#include <vector>

#include "base/mutex.h"
#include "engine/engine.h"

namespace pensieve::engine {

// Wakes the engine thread. Shared with every stream, for they may outlive the engine. Thread-safe.
class WakeSignal {
 public:
  void Raise();
  // Waits until raised since the last Wait, and lowers it.
  void Wait();

 private:
  Mutex mutex_;
  Condition condition_;
  bool raised_ PENSIEVE_GUARDED_BY(mutex_) = false;
};

class EventQueue {
 public:
  // Holds `depth_max` >= 1 events beside the terminal one. `drained` is raised when a full queue gets room again.
  EventQueue(int64_t depth_max, std::shared_ptr<WakeSignal> drained);

  // --- engine thread ---
  bool full() const;
  // The queue is not full, and no terminal event was pushed.
  void Push(Event event);
  // For news that only matter when nothing else waits: dropped unless the queue is empty.
  void PushIfEmpty(Event event);
  // Once.
  void PushTerminal(Event event);

  // --- consumer ---
  std::optional<Event> TryNext();
  std::optional<Event> Next();
  // When this returns the previous waker is not running and will not be called again (unless the caller is that waker).
  void SetWaker(std::function<void()> wake);

 private:
  using Waker = std::shared_ptr<const std::function<void()>>;

  std::optional<Event> PopLocked(bool& made_room) PENSIEVE_REQUIRES(mutex_);
  // Appends and tells the consumer, with the lock given up meanwhile. Not analyzed: the lock is the caller's.
  void PushAndWake(MutexLock& lock, Event event) PENSIEVE_REQUIRES(mutex_) PENSIEVE_NOT_ANALYZED;

  const std::shared_ptr<WakeSignal> drained_;
  mutable Mutex mutex_;
  Condition ready_;
  Condition waker_idle_;
  std::vector<Event> ring_ PENSIEVE_GUARDED_BY(mutex_);  // depth_max + 1 places
  size_t head_ PENSIEVE_GUARDED_BY(mutex_) = 0;
  size_t size_ PENSIEVE_GUARDED_BY(mutex_) = 0;
  bool ended_ PENSIEVE_GUARDED_BY(mutex_) = false;  // the terminal event was pushed
  bool over_ PENSIEVE_GUARDED_BY(mutex_) = false;   // ... and taken
  Waker waker_ PENSIEVE_GUARDED_BY(mutex_);
  std::thread::id waking_thread_ PENSIEVE_GUARDED_BY(mutex_);  // the thread that runs the waker just now
};

}  // namespace pensieve::engine
