// Ctrl-C during long work that can be stopped well.
#pragma once

#include <csignal>

namespace pensieve::cli {

// While one lives, SIGINT and SIGTERM are only noted. Handlers of before come back with its end. One at a time.
class InterruptGuard {
 public:
  InterruptGuard();
  ~InterruptGuard();
  InterruptGuard(const InterruptGuard&) = delete;
  InterruptGuard& operator=(const InterruptGuard&) = delete;

  static bool interrupted();
  // Whether one lives now. Any thread.
  static bool active();
  // As a signal would; for who takes signals in another way. Any thread.
  static void Interrupt();

 private:
  struct sigaction old_int_ {};
  struct sigaction old_term_ {};
};

}  // namespace pensieve::cli
