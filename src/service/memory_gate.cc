#include "service/memory_gate.h"

#include <fmt/format.h>

#include "base/system_memory.h"

namespace pensieve::service {
namespace {

constexpr auto kReadInterval = std::chrono::milliseconds(100);

}  // namespace

MemoryState MemoryGate::State() {
  std::optional<double> available;
  {
    const MutexLock lock(mutex_);
    const auto now = std::chrono::steady_clock::now();
    if (read_at_ == std::chrono::steady_clock::time_point() || now - read_at_ > kReadInterval) {
      const auto bytes = AvailableMemoryBytes();
      available_gb_ = bytes ? std::optional(static_cast<double>(*bytes) / 0x1p30) : std::nullopt;
      read_at_ = now;
    }
    available = available_gb_;
  }
  if (!available) return {"unknown", 0};
  const char* level = *available < limits_.emergency_gb      ? "emergency"
                      : *available < limits_.critical_gb     ? "critical"
                      : *available < 2 * limits_.critical_gb ? "warning"
                                                             : "safe";
  return {level, *available};
}

Status MemoryGate::Check() {
  if (!limits_.enabled) return OkStatus();
  const MemoryState state = State();
  if (state.level != "critical" && state.level != "emergency") return OkStatus();
  return Unavailable(fmt::format("the server is under {} memory pressure: {:.2f} GB available", state.level,
                                 state.available_gb))
      .WithReason(ErrorReason::kMemoryPressure)
      .WithRetryAfterMs(2000);
}

}  // namespace pensieve::service
