#include "service/embed_worker.h"

#include <pthread.h>

#include "base/guarded.h"

namespace pensieve::service {

EmbedWorker::EmbedWorker() : thread_([this]() noexcept { Run(); }) {}

EmbedWorker::~EmbedWorker() {
  {
    const MutexLock lock(mutex_);
    stopping_ = true;
  }
  woken_.notify_all();
  thread_.join();
}

std::function<void()> EmbedWorker::Watch(std::unique_ptr<engine::EventStream> stream, Done done) {
  const std::shared_ptr<engine::EventStream> shared = std::move(stream);
  int64_t number = 0;
  {
    const MutexLock lock(mutex_);
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
    const MutexLock lock(mutex_);
    std::vector<int64_t>* const ready = &ready_;  // guarded here, as clang cannot see inside
    if (!Guarded([&] { ready->push_back(number); }).ok()) look_at_all_ = true;
  }
  woken_.notify_one();
}

void EmbedWorker::Serve(int64_t number) {
  std::shared_ptr<engine::EventStream> stream;
  {
    const MutexLock lock(mutex_);
    const auto it = requests_.find(number);
    if (it == requests_.end()) return;  // woken twice
    stream = it->second.stream;
  }
  while (auto event = stream->TryNext()) {
    if (!event->terminal()) continue;
    Done done;
    {
      const MutexLock lock(mutex_);
      const auto it = requests_.find(number);
      done = std::move(it->second.done);
      requests_.erase(it);
    }
    // The waker reaches into this object: it is gone before the request counts as over.
    stream->SetWaker(nullptr);
    // Whoever waits for it ends its own exceptions. This one may not end the thread, on which all others wait.
    (void)Guarded([&] { done(std::move(*event)); }).ok();
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
  bool over = false;
  while (!over) {
    const Status status = Guarded([&] { over = !ServeReady(ready); });
    if (status.ok()) continue;
    const MutexLock lock(mutex_);
    look_at_all_ = true;  // nobody knows which of them were served
  }
}

bool EmbedWorker::ServeReady(std::vector<int64_t>& ready) {
  ready.clear();
  {
    MutexLock lock(mutex_);
    woken_.wait(lock, [this]() PENSIEVE_REQUIRES(mutex_) {
      return !ready_.empty() || look_at_all_ || (stopping_ && requests_.empty());
    });
    if (stopping_ && requests_.empty()) return false;
    ready.swap(ready_);
    if (look_at_all_) {
      for (const auto& [number, request] : requests_) ready.push_back(number);
    }
    look_at_all_ = false;
  }
  for (const int64_t number : ready) Serve(number);
  return true;
}

}  // namespace pensieve::service
