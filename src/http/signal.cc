#include "http/signal.h"

#include <boost/asio/as_tuple.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/use_awaitable.hpp>

#include "base/guarded.h"

namespace pensieve::http {

namespace asio = boost::asio;

void Signal::Notify() {
  notified_ = true;
  timer_.cancel();
}

asio::awaitable<void> Signal::WaitUntil(Clock::time_point deadline) {
  if (!notified_) {
    timer_.expires_at(deadline);
    co_await timer_.async_wait(asio::as_tuple(asio::use_awaitable));
  }
  notified_ = false;
}

void Waker::Wake() {
  // One post under way is enough: whatever is ready before it runs is seen by the coroutine it wakes.
  if (posted_.exchange(true)) return;
  const MutexLock lock(mutex_);
  if (signal_ == nullptr) return;
  const std::shared_ptr<Signal> signal = signal_;
  const Status posted = Guarded([&] {
    asio::post(signal->strand(), [self = shared_from_this(), signal] {
      self->posted_ = false;
      signal->Notify();
    });
  });
  // Without memory for it, the next call tries again.
  if (!posted.ok()) posted_ = false;
}

void Waker::Detach() {
  const MutexLock lock(mutex_);
  signal_.reset();
}

}  // namespace pensieve::http
