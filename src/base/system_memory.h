// How much memory this process may still take.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

namespace pensieve {

// The smaller of what the machine has available without swapping (MemAvailable in /proc/meminfo; macOS: free, inactive
// and purgeable pages) and what the process's control groups leave. Pages of files that this process has mapped and
// read, as those of a model's weights, count as used on Linux. Nothing where the system does not tell.
// `root` as of ReadControlGroupLimits.
std::optional<int64_t> AvailableMemoryBytes(const std::string& root = "");

// "12.3 GB", for messages.
std::string FormatBytes(int64_t bytes);

}  // namespace pensieve
