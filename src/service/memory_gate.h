// Refuses new work while the machine is short of memory. Thread-safe.
#pragma once

#include <chrono>
#include <optional>
#include <string>

#include "base/mutex.h"
#include "base/status.h"

namespace pensieve::service {

struct MemoryState {
  // "safe", "warning" (below twice the critical mark), "critical", "emergency"; "unknown" where the system does not tell.
  std::string level;
  double available_gb = 0;  // of the whole system, in 2^30 bytes
};

struct MemoryLimits {
  bool enabled = true;
  double critical_gb = 1.0;
  double emergency_gb = 0.5;
};

class MemoryGate {
 public:
  explicit MemoryGate(const MemoryLimits& limits) : limits_(limits) {}

  // Unavailable (kMemoryPressure) at the critical level and beyond; OK when disabled or unknown.
  Status Check();
  // Read at most every 100 ms.
  MemoryState State();

 private:
  const MemoryLimits limits_;
  Mutex mutex_;
  std::chrono::steady_clock::time_point read_at_ PENSIEVE_GUARDED_BY(mutex_);
  std::optional<double> available_gb_ PENSIEVE_GUARDED_BY(mutex_);
};

}  // namespace pensieve::service
