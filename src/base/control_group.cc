#include "base/control_group.h"

#include <fmt/format.h>

#include <algorithm>
#include <fstream>
#include <map>
#include <sstream>
#include <string_view>
#include <vector>

namespace pensieve {
namespace {

// v1 says "no limit" by a number of about 2^63.
constexpr int64_t kUnlimitedFrom = int64_t{1} << 60;
constexpr int kDepthMax = 128;

// A mounted hierarchy: where it is, and which of its groups is visible there as the top.
struct Mount {
  bool v2 = false;
  std::string point;
  std::string top;
};

// The group of this process in a hierarchy.
struct Group {
  const Mount* mount = nullptr;
  std::string path;  // below the mount point, without a slash at its end
};

std::vector<std::string> Split(const std::string& text, char separator) {
  std::vector<std::string> parts;
  std::stringstream stream(text);
  for (std::string part; std::getline(stream, part, separator);) parts.push_back(part);
  return parts;
}

bool Holds(const std::string& comma_list, std::string_view word) {
  const auto words = Split(comma_list, ',');
  return std::find(words.begin(), words.end(), word) != words.end();
}

// "\040" is a blank: mountinfo escapes blanks, tabs, line ends and backslashes so.
std::string Unescape(const std::string& text) {
  std::string out;
  for (size_t at = 0; at < text.size(); ++at) {
    const bool escape =
        text[at] == '\\' && at + 3 < text.size() && text.find_first_not_of("01234567", at + 1) >= at + 4;
    if (!escape) {
      out += text[at];
      continue;
    }
    out += static_cast<char>((text[at + 1] - '0') * 64 + (text[at + 2] - '0') * 8 + (text[at + 3] - '0'));
    at += 3;
  }
  return out;
}

// "31 23 0:28 / /sys/fs/cgroup rw,relatime shared:1 - cgroup2 cgroup2 rw", where fields before the dash vary in number.
std::vector<Mount> ReadMounts(const std::string& root, std::string_view controller) {
  std::vector<Mount> mounts;
  std::ifstream file(root + "/proc/self/mountinfo");
  for (std::string line; std::getline(file, line);) {
    const size_t dash = line.find(" - ");
    if (dash == std::string::npos) continue;
    const auto place = Split(line.substr(0, dash), ' ');
    const auto kind = Split(line.substr(dash + 3), ' ');
    if (place.size() < 5 || kind.size() < 3) continue;
    const bool v2 = kind[0] == "cgroup2";
    if (!v2 && (kind[0] != "cgroup" || !Holds(kind[2], controller))) continue;
    mounts.push_back({.v2 = v2, .point = Unescape(place[4]), .top = Unescape(place[3])});
  }
  return mounts;
}

// `path` of /proc/self/cgroup as it is below the mount point. In a container without a namespace of its own the mount
// shows the container's group as its top; a path that lies elsewhere says nothing, and the top itself is left.
std::string BelowTop(const std::string& path, const std::string& top) {
  std::string below = path;
  if (top != "/") {
    const bool inside = path.starts_with(top) && (path.size() == top.size() || path[top.size()] == '/');
    below = inside ? path.substr(top.size()) : "";
  }
  while (below.ends_with('/')) below.pop_back();
  for (const auto& part : Split(below, '/')) {
    if (part == "..") return "";
  }
  return below;
}

// The groups of the process that may limit `controller`. Lines are "ID:CONTROLLERS:PATH", v2's "0::PATH".
std::vector<Group> FindGroups(const std::string& root, const std::vector<Mount>& mounts, std::string_view controller) {
  std::vector<Group> groups;
  std::ifstream file(root + "/proc/self/cgroup");
  for (std::string line; std::getline(file, line);) {
    const size_t first = line.find(':');
    const size_t second = first == std::string::npos ? first : line.find(':', first + 1);
    if (second == std::string::npos) continue;
    const std::string controllers = line.substr(first + 1, second - first - 1);
    const bool v2 = controllers.empty();
    if (!v2 && !Holds(controllers, controller)) continue;
    for (const Mount& mount : mounts) {
      if (mount.v2 == v2) groups.push_back({&mount, BelowTop(line.substr(second + 1), mount.top)});
    }
  }
  return groups;
}

// Calls `read` with the directory of the group and of each of its ancestors.
template <typename Read>
void ForEachLevel(const std::string& root, const Group& group, const Read& read) {
  std::string path = group.path;
  for (int depth = 0; depth < kDepthMax; ++depth) {
    read(root + group.mount->point + path);
    if (path.empty()) return;
    path.resize(path.rfind('/'));
  }
}

std::optional<int64_t> ReadNumber(const std::string& path) {
  std::ifstream file(path);
  int64_t number = 0;
  if (file >> number) return number;
  return std::nullopt;  // also for "max"
}

std::map<std::string, int64_t> ReadTable(const std::string& path) {
  std::map<std::string, int64_t> table;
  std::ifstream file(path);
  std::string key;
  for (int64_t value = 0; file >> key >> value;) table[key] = value;
  return table;
}

template <typename T>
void KeepSmaller(std::optional<T>& kept, T value) {
  kept = kept ? std::min(*kept, value) : value;
}

void ReadMemory(const std::string& directory, bool v2, ControlGroupLimits& limits) {
  const auto limit = ReadNumber(directory + (v2 ? "/memory.max" : "/memory.limit_in_bytes"));
  const auto used = ReadNumber(directory + (v2 ? "/memory.current" : "/memory.usage_in_bytes"));
  if (!limit || *limit >= kUnlimitedFrom) return;
  KeepSmaller(limits.memory_limit_bytes, *limit);
  if (!used) return;
  // v1's plain lines are of the group without its children, but children count for the limit.
  const auto stat = ReadTable(directory + "/memory.stat");
  const auto value = [&](const char* key) {
    const auto found = stat.find(v2 ? key : fmt::format("total_{}", key));
    return found == stat.end() ? 0 : found->second;
  };
  // The lists of files are without shared memory, which cannot be dropped.
  const int64_t files = value("inactive_file") + value("active_file");
  const int64_t mapped = value(v2 ? "file_mapped" : "mapped_file");
  const int64_t droppable = std::max<int64_t>(files - mapped, 0) + (v2 ? value("slab_reclaimable") : 0);
  KeepSmaller(limits.memory_available_bytes, std::max<int64_t>(*limit - *used + droppable, 0));
}

void ReadCpu(const std::string& directory, bool v2, ControlGroupLimits& limits) {
  std::optional<int64_t> quota;
  std::optional<int64_t> period;
  if (v2) {
    std::ifstream file(directory + "/cpu.max");  // "max 100000", "250000 100000"
    int64_t first = 0;
    int64_t second = 0;
    if (file >> first >> second) {
      quota = first;
      period = second;
    }
  } else {
    quota = ReadNumber(directory + "/cpu.cfs_quota_us");  // -1: none
    period = ReadNumber(directory + "/cpu.cfs_period_us");
  }
  if (!quota || !period || *quota <= 0 || *period <= 0) return;
  KeepSmaller(limits.cpus, static_cast<double>(*quota) / static_cast<double>(*period));
}

}  // namespace

ControlGroupLimits ReadControlGroupLimits(const std::string& root) {
  ControlGroupLimits limits;
  const auto memory_mounts = ReadMounts(root, "memory");
  for (const Group& group : FindGroups(root, memory_mounts, "memory")) {
    ForEachLevel(root, group, [&](const std::string& directory) { ReadMemory(directory, group.mount->v2, limits); });
  }
  const auto cpu_mounts = ReadMounts(root, "cpu");
  for (const Group& group : FindGroups(root, cpu_mounts, "cpu")) {
    ForEachLevel(root, group, [&](const std::string& directory) { ReadCpu(directory, group.mount->v2, limits); });
  }
  return limits;
}

}  // namespace pensieve
