#include "base/system_memory.h"

#include <fmt/format.h>

#include <algorithm>
#include <fstream>

#ifdef __APPLE__
#include <mach/mach.h>
#include <unistd.h>
#endif

namespace pensieve {
namespace {

#ifdef __APPLE__
std::optional<int64_t> MachineAvailable() {
  vm_statistics64_data_t pages;
  mach_msg_type_number_t count = HOST_VM_INFO64_COUNT;
  const auto result = host_statistics64(mach_host_self(), HOST_VM_INFO64, reinterpret_cast<host_info64_t>(&pages), &count);
  if (result != KERN_SUCCESS) return std::nullopt;
  const auto available = static_cast<int64_t>(pages.free_count) + pages.inactive_count + pages.purgeable_count;
  return available * static_cast<int64_t>(::sysconf(_SC_PAGESIZE));
}
#else
std::optional<int64_t> MachineAvailable() {
  std::ifstream file("/proc/meminfo");
  std::string key;
  int64_t kilobytes = 0;
  std::string unit;
  while (file >> key >> kilobytes) {
    std::getline(file, unit);
    if (key == "MemAvailable:") return kilobytes * 1024;
  }
  return std::nullopt;
}
#endif

std::optional<int64_t> ReadNumber(const std::string& path) {
  std::ifstream file(path);
  int64_t number = 0;
  if (file >> number) return number;
  return std::nullopt;
}

// What the control group still allows; page cache of the group counts as used by the kernel, but is free for us to
// take.
std::optional<int64_t> GroupAvailable() {
  const auto limit = ReadNumber("/sys/fs/cgroup/memory.max");
  const auto used = ReadNumber("/sys/fs/cgroup/memory.current");
  if (!limit || !used) return std::nullopt;
  std::ifstream stat("/sys/fs/cgroup/memory.stat");
  std::string key;
  int64_t value = 0;
  int64_t cached = 0;
  while (stat >> key >> value) {
    if (key == "file") cached = value;
  }
  return *limit - *used + cached;
}

}  // namespace

std::optional<int64_t> AvailableMemoryBytes() {
  const auto machine = MachineAvailable();
  const auto group = GroupAvailable();
  if (machine && group) return std::min(*machine, *group);
  return machine ? machine : group;
}

std::string FormatBytes(int64_t bytes) {
  if (bytes >= 1'000'000'000) return fmt::format("{:.1f} GB", static_cast<double>(bytes) / 1e9);
  return fmt::format("{:.1f} MB", static_cast<double>(bytes) / 1e6);
}

}  // namespace pensieve
