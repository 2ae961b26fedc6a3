#include "base/system_memory.h"

#include <fmt/format.h>

#include <algorithm>
#include <fstream>
#include <sstream>
#include <string_view>

#include "base/control_group.h"

#ifdef __APPLE__
#include <mach/mach.h>
#include <unistd.h>
#endif

namespace pensieve {
namespace {

#ifdef __APPLE__
std::optional<int64_t> MachineAvailable(const std::string&) {
  vm_statistics64_data_t pages;
  mach_msg_type_number_t count = HOST_VM_INFO64_COUNT;
  const auto result =
      host_statistics64(mach_host_self(), HOST_VM_INFO64, reinterpret_cast<host_info64_t>(&pages), &count);
  if (result != KERN_SUCCESS) return std::nullopt;
  const auto available = static_cast<int64_t>(pages.free_count) + pages.inactive_count + pages.purgeable_count;
  return available * static_cast<int64_t>(::sysconf(_SC_PAGESIZE));
}
#else
// The number of "KEY: NUMBER kB" in a file of such lines, in bytes.
std::optional<int64_t> ReadKilobytes(const std::string& path, std::string_view key) {
  std::ifstream file(path);
  for (std::string line; std::getline(file, line);) {
    if (line.size() <= key.size() || !line.starts_with(key) || line[key.size()] != ':') continue;
    int64_t kilobytes = 0;
    if (std::istringstream(line.substr(key.size() + 1)) >> kilobytes) return kilobytes * 1024;
  }
  return std::nullopt;
}

// The kernel counts cached pages as available, also those that this process has mapped and needs for every token.
std::optional<int64_t> MachineAvailable(const std::string& root) {
  const auto available = ReadKilobytes(root + "/proc/meminfo", "MemAvailable");
  if (!available) return std::nullopt;
  const int64_t mapped = ReadKilobytes(root + "/proc/self/status", "RssFile").value_or(0);
  return std::max<int64_t>(*available - mapped, 0);
}
#endif

}  // namespace

std::optional<int64_t> AvailableMemoryBytes(const std::string& root) {
  const auto machine = MachineAvailable(root);
  const auto group = ReadControlGroupLimits(root).memory_available_bytes;
  if (machine && group) return std::min(*machine, *group);
  return machine ? machine : group;
}

std::string FormatBytes(int64_t bytes) {
  if (bytes >= 1'000'000'000) return fmt::format("{:.1f} GB", static_cast<double>(bytes) / 1e9);
  return fmt::format("{:.1f} MB", static_cast<double>(bytes) / 1e6);
}

}  // namespace pensieve
