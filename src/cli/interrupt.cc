#include "cli/interrupt.h"

#include <atomic>

namespace pensieve::cli {
namespace {

std::atomic<bool> g_interrupted{false};  // the one thing a signal handler may set

std::atomic<bool> g_active{false};

void OnSignal(int) { g_interrupted = true; }

}  // namespace

InterruptGuard::InterruptGuard() {
  g_interrupted = false;
  g_active = true;
  struct sigaction action {};
  action.sa_handler = &OnSignal;
  sigemptyset(&action.sa_mask);
  ::sigaction(SIGINT, &action, &old_int_);
  ::sigaction(SIGTERM, &action, &old_term_);
}

InterruptGuard::~InterruptGuard() {
  g_active = false;
  ::sigaction(SIGINT, &old_int_, nullptr);
  ::sigaction(SIGTERM, &old_term_, nullptr);
}

bool InterruptGuard::interrupted() { return g_interrupted; }
bool InterruptGuard::active() { return g_active; }
void InterruptGuard::Interrupt() { g_interrupted = true; }

}  // namespace pensieve::cli
