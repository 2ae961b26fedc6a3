#include "service/embed_worker.h"

#include <pthread.h>

namespace pensieve::service {

EmbedWorker::EmbedWorker() : thread_([this]() noexcept { Run(); }) {}

EmbedWorker::~EmbedWorker() {
  {
    const std::lock_guard lock(mutex_);
    stopping_ = true;
  }
  woken_.notify_all();
  thread_.join();
}

std::function<void()> EmbedWorker::Watch(std::unique_ptr<engine::EventStream> stream, Done done) {
  const std::shared_ptr<engine::EventStream> shared = std::move(stream);
  int64_t number = 0;
  {
    const std::lock_guard lock(mutex_);
    number = ++last_number_;
    requests_.emplace(number, Request{shared, std::move(done)});
  }
  // Outside the lock: the waker runs at once when the event is there already.
  shared->SetWaker([this, number] { Wake(number); });
  return [weak = std::weak_ptr(shared)] {
    if (const auto still_running = weak.lock()) still_running->Cancel();
  };
}

void EmbedWorker::Wake(int64_t number) {
  {
    const std::lock_guard lock(mutex_);
    ready_.push_back(number);
  }
  woken_.notify_one();
}

void EmbedWorker::Serve(int64_t number) {
  std::shared_ptr<engine::EventStream> stream;
  {
    const std::lock_guard lock(mutex_);
    const auto it = requests_.find(number);
    if (it == requests_.end()) return;  // woken twice
    stream = it->second.stream;
  }
  while (auto event = stream->TryNext()) {
    if (!event->terminal()) continue;
    Done done;
    {
      const std::lock_guard lock(mutex_);
      const auto it = requests_.find(number);
      done = std::move(it->second.done);
      requests_.erase(it);
    }
    // The waker reaches into this object: it is gone before the request counts as over.
    stream->SetWaker(nullptr);
    done(std::move(*event));
    return;
  }
}

void EmbedWorker::Run() noexcept {
#ifdef __APPLE__
  pthread_setname_np("embed-results");
#else
  pthread_setname_np(pthread_self(), "embed-results");
#endif
  std::vector<int64_t> ready;
  for (;;) {
    {
      std::unique_lock lock(mutex_);
      woken_.wait(lock, [this] { return !ready_.empty() || (stopping_ && requests_.empty()); });
      if (ready_.empty()) return;
      ready.swap(ready_);
    }
    for (const int64_t number : ready) Serve(number);
    ready.clear();
  }
}

}  // namespace pensieve::service
