// When a full engine is likely to have a place again: what refused clients are told to wait.
#pragma once

#include <atomic>
#include <cstdint>
#include <span>

namespace pensieve::engine {

// The engine thread measures and publishes, any thread asks.
class PlaceEstimate {
 public:
  // Engine thread. `seconds`: what a step took that computed something.
  void AddStep(double seconds);
  // Engine thread. `steps_left`: for each running request, the steps it needs at most. Every step gives each of them
  // one row of its answer, so the shortest is the next to leave.
  void Publish(std::span<const int64_t> steps_left);
  // Engine thread: a request is over, so whoever was told to wait for it can come.
  void OnEnd() { refused_.store(0, std::memory_order_relaxed); }

  // Any thread, once for each refusal: the first refused client waits for the first place, the next one for the place
  // after that. 100 ms to 10 minutes; half a second while nothing was measured.
  int64_t NextWaitMs();

 private:
  double step_s_ = 0;  // engine thread: of recent steps
  std::atomic<int64_t> first_ms_{0};
  std::atomic<int64_t> between_ms_{0};
  std::atomic<int64_t> refused_{0};  // since the last end
};

}  // namespace pensieve::engine
