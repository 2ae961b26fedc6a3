// SIGINT and SIGTERM in a server: each ends it at any moment, at once while it loads, with grace while it serves.
#pragma once

#include <chrono>
#include <functional>
#include <memory>

namespace pensieve::cli {

// One per process, made before any other thread: the signals are blocked in all threads and taken by one of its own.
//
// Before Serve: a download that is under way is told to stop (InterruptGuard) and has a moment to note what is there;
// anything else ends where it is. In both cases the process exits with 128 + the signal's number.
// From Serve on: WaitForStop returns at the first signal. The process then has the time that Serve was given to end; a
// second signal, or the end of that time (a thread may be tokenizing a text that takes longer), ends it where it is.
class Lifecycle {
 public:
  // `last_words` is called before the process ends where it is, from the signal thread; it must not block for long.
  explicit Lifecycle(std::function<void(bool out_of_time)> last_words);
  // Signals do nothing from here on but to end the process.
  ~Lifecycle();
  Lifecycle(const Lifecycle&) = delete;
  Lifecycle& operator=(const Lifecycle&) = delete;

  void Serve(std::chrono::milliseconds time_to_stop);
  void WaitForStop();

 private:
  struct State;
  std::shared_ptr<State> state_;
};

}  // namespace pensieve::cli
