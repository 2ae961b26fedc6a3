#include "engine/event_queue.h"

#include <utility>

#include "base/guarded.h"

namespace pensieve::engine {

void WakeSignal::Raise() {
  {
    const MutexLock lock(mutex_);
    raised_ = true;
  }
  condition_.notify_one();
}

void WakeSignal::Wait() {
  MutexLock lock(mutex_);
  condition_.wait(lock, [this]() PENSIEVE_REQUIRES(mutex_) { return raised_; });
  raised_ = false;
}

EventQueue::EventQueue(int64_t depth_max, std::shared_ptr<WakeSignal> drained)
    : drained_(std::move(drained)), ring_(static_cast<size_t>(depth_max) + 1) {}

bool EventQueue::full() const {
  const MutexLock lock(mutex_);
  return size_ + 1 >= ring_.size();
}

void EventQueue::Push(Event event) {
  MutexLock lock(mutex_);
  PENSIEVE_CHECK(!ended_ && !event.terminal() && size_ + 1 < ring_.size());
  PushAndWake(lock, std::move(event));
}

void EventQueue::PushIfEmpty(Event event) {
  MutexLock lock(mutex_);
  PENSIEVE_CHECK(!ended_ && !event.terminal());
  if (size_ == 0) PushAndWake(lock, std::move(event));
}

void EventQueue::PushTerminal(Event event) {
  MutexLock lock(mutex_);
  PENSIEVE_CHECK(!ended_ && event.terminal());
  ended_ = true;
  PushAndWake(lock, std::move(event));
}

void EventQueue::PushAndWake(MutexLock& lock, Event event) {
  ring_[(head_ + size_) % ring_.size()] = std::move(event);
  const bool was_empty = size_++ == 0;
  const Waker waker = was_empty ? waker_ : nullptr;
  if (waker != nullptr) waking_thread_ = std::this_thread::get_id();
  lock.unlock();
  ready_.notify_all();
  if (waker == nullptr) return;
  // A waker that fails may not end the engine's thread. The consumer misses one call and sees the event with the next.
  (void)Guarded(*waker).ok();
  lock.lock();
  waking_thread_ = {};
  // Under the lock: a consumer that sees the waker idle may destroy the queue.
  waker_idle_.notify_all();
}

std::optional<Event> EventQueue::PopLocked(bool& made_room) {
  if (size_ == 0) return std::nullopt;
  made_room = size_ + 1 >= ring_.size() && !ended_;
  std::optional<Event> event(std::exchange(ring_[head_], Event()));
  head_ = (head_ + 1) % ring_.size();
  --size_;
  over_ = event->terminal();
  return event;
}

std::optional<Event> EventQueue::TryNext() {
  bool made_room = false;
  std::optional<Event> event;
  {
    const MutexLock lock(mutex_);
    event = PopLocked(made_room);
  }
  if (made_room) drained_->Raise();
  return event;
}

std::optional<Event> EventQueue::Next() {
  bool made_room = false;
  std::optional<Event> event;
  {
    MutexLock lock(mutex_);
    ready_.wait(lock, [this]() PENSIEVE_REQUIRES(mutex_) { return size_ > 0 || over_; });
    event = PopLocked(made_room);
  }
  if (made_room) drained_->Raise();
  return event;
}

void EventQueue::SetWaker(std::function<void()> wake) {
  const Waker waker = wake ? std::make_shared<const std::function<void()>>(std::move(wake)) : nullptr;
  bool wake_now = false;
  {
    MutexLock lock(mutex_);
    waker_ = waker;
    waker_idle_.wait(lock, [this]() PENSIEVE_REQUIRES(mutex_) {
      return waking_thread_ == std::thread::id() || waking_thread_ == std::this_thread::get_id();
    });
    wake_now = size_ > 0;
  }
  if (wake_now && waker != nullptr) (void)Guarded(*waker).ok();
}

}  // namespace pensieve::engine
