#include "service/memory_gate.h"

#include <fmt/format.h>

#include <fstream>

#ifdef __APPLE__
#include <mach/mach.h>
#include <unistd.h>
#endif

namespace pensieve::service {
namespace {

constexpr auto kReadInterval = std::chrono::milliseconds(100);

}  // namespace

#ifdef __APPLE__
std::optional<double> ReadAvailableMemoryGb() {
  vm_statistics64_data_t pages;
  mach_msg_type_number_t count = HOST_VM_INFO64_COUNT;
  const auto result = host_statistics64(mach_host_self(), HOST_VM_INFO64, reinterpret_cast<host_info64_t>(&pages), &count);
  if (result != KERN_SUCCESS) return std::nullopt;
  const double available = static_cast<double>(pages.free_count) + pages.inactive_count + pages.purgeable_count;
  return available * static_cast<double>(sysconf(_SC_PAGESIZE)) / 0x1p30;
}
#else
std::optional<double> ReadAvailableMemoryGb() {
  std::ifstream file("/proc/meminfo");
  std::string key;
  std::string unit;
  int64_t kib = 0;
  while (file >> key >> kib) {
    std::getline(file, unit);
    if (key == "MemAvailable:") return static_cast<double>(kib) / 0x1p20;
  }
  return std::nullopt;
}
#endif

MemoryState MemoryGate::State() {
  std::optional<double> available;
  {
    const std::lock_guard lock(mutex_);
    const auto now = std::chrono::steady_clock::now();
    if (read_at_ == std::chrono::steady_clock::time_point() || now - read_at_ > kReadInterval) {
      available_gb_ = ReadAvailableMemoryGb();
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
  return Unavailable(fmt::format("the server is under {} memory pressure: {:.2f} GB available", state.level, state.available_gb))
      .WithReason(ErrorReason::kMemoryPressure)
      .WithRetryAfterMs(2000);
}

}  // namespace pensieve::service
