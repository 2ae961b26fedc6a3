#include "engine/place_estimate.h"

#include <algorithm>
#include <cmath>

namespace pensieve::engine {
namespace {

constexpr int64_t kUnknownMs = 500;
constexpr int64_t kShortestMs = 100;
constexpr int64_t kLongestMs = 600'000;
constexpr double kNewest = 0.1;  // weight of the newest step in the mean

int64_t ToMs(double seconds) {
  return static_cast<int64_t>(std::ceil(std::min(seconds * 1000, static_cast<double>(kLongestMs))));
}

}  // namespace

void PlaceEstimate::AddStep(double seconds) {
  step_s_ = step_s_ == 0 ? seconds : step_s_ + kNewest * (seconds - step_s_);
}

void PlaceEstimate::Publish(std::span<const int64_t> steps_left) {
  if (steps_left.empty() || step_s_ == 0) return;
  double sum = 0;
  for (const int64_t steps : steps_left) sum += static_cast<double>(steps);
  const auto shortest = static_cast<double>(*std::min_element(steps_left.begin(), steps_left.end()));
  const auto count = static_cast<double>(steps_left.size());
  first_ms_.store(ToMs(shortest * step_s_), std::memory_order_relaxed);
  // As many requests as run end in the time that one of them takes on average.
  between_ms_.store(ToMs(sum / count * step_s_ / count), std::memory_order_relaxed);
}

int64_t PlaceEstimate::NextWaitMs() {
  const int64_t earlier = refused_.fetch_add(1, std::memory_order_relaxed);
  const int64_t first = first_ms_.load(std::memory_order_relaxed);
  if (first == 0) return kUnknownMs;
  const int64_t between = between_ms_.load(std::memory_order_relaxed);
  // The product cannot overflow: both are small before they are multiplied.
  return std::clamp(first + std::min(earlier, kLongestMs) * between, kShortestMs, kLongestMs);
}

}  // namespace pensieve::engine
