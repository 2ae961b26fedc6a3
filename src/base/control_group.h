// What the control groups of this process (Linux: containers, systemd units, batch jobs) allow it to take.
//
// Both versions are read, v1 and v2, and each group up to the root of what is mounted: a limit of any ancestor binds.
// Sources: Documentation/admin-guide/cgroup-v2.rst and cgroup-v1/memory.rst of the kernel.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

namespace pensieve {

struct ControlGroupLimits {
  // The smallest of limit - use over all groups, where page cache that nobody has mapped counts as unused: the kernel
  // drops that first. Files that are mapped, as a model's weights, count as used. Nothing where no group has a limit.
  std::optional<int64_t> memory_available_bytes;
  // The smallest limit itself.
  std::optional<int64_t> memory_limit_bytes;
  // Processors, as 2.5 for a quota of 250 ms every 100 ms: the smallest over all groups.
  std::optional<double> cpus;
};

// `root` stands for "/" (tests lay out a tree of their own). A system without control groups gives no limits.
ControlGroupLimits ReadControlGroupLimits(const std::string& root = "");

}  // namespace pensieve
