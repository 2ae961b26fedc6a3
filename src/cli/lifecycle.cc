#include "cli/lifecycle.h"

#include <csignal>
#include <cstdlib>
#include <ctime>
#include <optional>
#include <thread>

#include "base/mutex.h"
#include "cli/interrupt.h"

namespace pensieve::cli {
namespace {

// For a download to note what it has.
constexpr auto kDownloadGrace = std::chrono::seconds(2);

}  // namespace

// Shared with the signal thread, which may outlive the object.
struct Lifecycle::State {
  explicit State(std::function<void(bool)> words) : last_words(std::move(words)) {
    sigemptyset(&signals);
    sigaddset(&signals, SIGINT);
    sigaddset(&signals, SIGTERM);
  }

  // Nothing when `deadline` passes first.
  std::optional<int> TakeSignal(std::optional<std::chrono::steady_clock::time_point> deadline) const {
    while (true) {
      int signal = 0;
      if (!deadline) {
        if (sigwait(&signals, &signal) == 0) return signal;
        continue;
      }
      // In short waits: not every system has sigtimedwait.
      sigset_t pending;
      if (sigpending(&pending) == 0 && (sigismember(&pending, SIGINT) == 1 || sigismember(&pending, SIGTERM) == 1)) {
        if (sigwait(&signals, &signal) == 0) return signal;
      }
      if (std::chrono::steady_clock::now() >= *deadline) return std::nullopt;
      std::this_thread::sleep_for(std::chrono::milliseconds(20));
    }
  }

  void Run() {
    const int first = *TakeSignal(std::nullopt);
    MutexLock lock(mutex);
    if (!serving) {
      // A download ends well by itself, and with it the process.
      const bool downloading = InterruptGuard::active();
      InterruptGuard::Interrupt();
      if (downloading && changed.wait_for(lock, kDownloadGrace, [this]() PENSIEVE_REQUIRES(mutex) { return over; }))
        return;
      End(128 + first, false);
    }
    stop = true;
    changed.notify_all();
    const auto deadline = std::chrono::steady_clock::now() + time_to_stop;
    lock.unlock();
    const auto second = TakeSignal(deadline);
    lock.lock();
    End(second ? 128 + *second : 0, !second);
  }

  // Without destructors: they would wait for the very threads that are too slow.
  [[noreturn]] void End(int code, bool out_of_time) const PENSIEVE_REQUIRES(mutex) {
    if (!over && last_words) last_words(out_of_time);
    std::_Exit(code);
  }

  const std::function<void(bool)> last_words;
  sigset_t signals;
  Mutex mutex;
  Condition changed;
  bool serving PENSIEVE_GUARDED_BY(mutex) = false;
  bool stop PENSIEVE_GUARDED_BY(mutex) = false;
  bool over PENSIEVE_GUARDED_BY(mutex) = false;  // last_words may be gone
  std::chrono::milliseconds time_to_stop PENSIEVE_GUARDED_BY(mutex){0};
};

Lifecycle::Lifecycle(std::function<void(bool)> last_words) : state_(std::make_shared<State>(std::move(last_words))) {
  pthread_sigmask(SIG_BLOCK, &state_->signals, nullptr);
  std::thread([state = state_]() noexcept { state->Run(); }).detach();
}

Lifecycle::~Lifecycle() {
  const MutexLock lock(state_->mutex);
  state_->over = true;
  state_->changed.notify_all();
}

void Lifecycle::Serve(std::chrono::milliseconds time_to_stop) {
  const MutexLock lock(state_->mutex);
  state_->serving = true;
  state_->time_to_stop = time_to_stop;
}

void Lifecycle::WaitForStop() {
  MutexLock lock(state_->mutex);
  state_->changed.wait(lock, [this]() PENSIEVE_REQUIRES(state_->mutex) { return state_->stop; });
}

}  // namespace pensieve::cli
