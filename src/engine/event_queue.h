// The bounded queue of events of one request: the engine pushes, one consumer takes.
//
// It never refuses: the engine asks full() before it computes what it would have to push, and pauses the sequence
// instead. The terminal event has a place of its own, so that a request can always end. Thread-safe; no callback runs
// under the lock.
#pragma once

#include <condition_variable>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <thread>
#include <vector>

#include "engine/engine.h"

namespace pensieve::engine {

// Wakes the engine thread. Shared with every stream, for they may outlive the engine. Thread-safe.
class WakeSignal {
 public:
  void Raise();
  // Waits until raised since the last Wait, and lowers it.
  void Wait();

 private:
  std::mutex mutex_;
  std::condition_variable condition_;
  bool raised_ = false;  // guarded by mutex_
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

  std::optional<Event> PopLocked(bool& made_room);
  // Appends, unlocks, and tells the consumer.
  void PushAndWake(std::unique_lock<std::mutex> lock, Event event);

  const std::shared_ptr<WakeSignal> drained_;
  mutable std::mutex mutex_;
  std::condition_variable ready_;
  std::condition_variable waker_idle_;
  // All below is guarded by mutex_.
  std::vector<Event> ring_;  // depth_max + 1 places
  size_t head_ = 0;
  size_t size_ = 0;
  bool ended_ = false;  // the terminal event was pushed
  bool over_ = false;   // ... and taken
  Waker waker_;
  std::thread::id waking_thread_;  // the thread that runs the waker just now
};

}  // namespace pensieve::engine
