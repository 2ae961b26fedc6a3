// Wakes a waiting coroutine from any thread. Private to http/.
#pragma once

#include <atomic>
#include <boost/asio/any_io_executor.hpp>
#include <boost/asio/awaitable.hpp>
#include <boost/asio/steady_timer.hpp>
#include <chrono>
#include <functional>
#include <memory>

#include "base/mutex.h"

namespace pensieve::http {

using Clock = std::chrono::steady_clock;

// Lives and is used on one strand. What happened before a Notify is seen after the WaitUntil that it ends.
class Signal : public std::enable_shared_from_this<Signal> {
 public:
  explicit Signal(const boost::asio::any_io_executor& strand) : strand_(strand), timer_(strand) {}

  void Notify();
  // Returns at once when notified since the last return; else on the next Notify, or at `deadline`.
  boost::asio::awaitable<void> WaitUntil(Clock::time_point deadline);
  const boost::asio::any_io_executor& strand() const { return strand_; }

 private:
  boost::asio::any_io_executor strand_;
  boost::asio::steady_timer timer_;
  bool notified_ = false;
};

// The end of a Signal that other threads hold. It may be called and destroyed at any time, also long after the strand
// and its io_context are gone, provided that Detach was called before they went.
class Waker : public std::enable_shared_from_this<Waker> {
 public:
  explicit Waker(std::shared_ptr<Signal> signal) : signal_(std::move(signal)) {}

  // Any thread. Never waits for I/O and never throws.
  void Wake();
  // On the strand. Later calls of Wake do nothing.
  void Detach();

 private:
  Mutex mutex_;
  std::shared_ptr<Signal> signal_ PENSIEVE_GUARDED_BY(mutex_);  // null once detached
  std::atomic<bool> posted_ = false;
};

// Detaches at the end of a scope.
class WakerScope {
 public:
  explicit WakerScope(std::shared_ptr<Signal> signal) : waker_(std::make_shared<Waker>(std::move(signal))) {}
  ~WakerScope() { waker_->Detach(); }
  WakerScope(const WakerScope&) = delete;
  WakerScope& operator=(const WakerScope&) = delete;

  const std::shared_ptr<Waker>& waker() const { return waker_; }

 private:
  std::shared_ptr<Waker> waker_;
};

}  // namespace pensieve::http
