// Waits for embed requests inside engines, with one thread for any number of them, and reports their results.
#pragma once

#include <functional>
#include <memory>
#include <thread>
#include <unordered_map>
#include <vector>

#include "base/mutex.h"
#include "engine/engine.h"

namespace pensieve::service {

// Thread-safe.
class EmbedWorker {
 public:
  // Called once with the terminal event, on the worker's thread.
  using Done = std::function<void(engine::Event)>;

  EmbedWorker();
  // Waits until every request has ended: their engines must still be alive, and have been told to cancel or finish.
  ~EmbedWorker();

  // Takes over `stream`. The returned function cancels the request; it may be called at any time.
  std::function<void()> Watch(std::unique_ptr<engine::EventStream> stream, Done done);

 private:
  struct Request {
    std::shared_ptr<engine::EventStream> stream;
    Done done;
  };

  void Run() noexcept;
  void Wake(int64_t number);
  void Serve(int64_t number);
  // Waits for requests that may have an event and looks at each. `ready` is scratch. False: there will be no more.
  bool ServeReady(std::vector<int64_t>& ready);

  Mutex mutex_;
  Condition woken_;
  std::unordered_map<int64_t, Request> requests_ PENSIEVE_GUARDED_BY(mutex_);
  std::vector<int64_t> ready_ PENSIEVE_GUARDED_BY(mutex_);  // requests that may have an event
  bool look_at_all_ PENSIEVE_GUARDED_BY(mutex_) = false;    // a wake had no room in ready_
  int64_t last_number_ PENSIEVE_GUARDED_BY(mutex_) = 0;
  bool stopping_ PENSIEVE_GUARDED_BY(mutex_) = false;
  std::thread thread_;  // started last
};

}  // namespace pensieve::service
