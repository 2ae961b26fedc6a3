// How much memory this process may still take.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

namespace pensieve {

// The smaller of what the machine has available without swapping (MemAvailable of /proc/meminfo; on macOS free, inactive and
// purgeable pages) and what the process's control group leaves. Nothing where the system does not tell.
std::optional<int64_t> AvailableMemoryBytes();

// "12.3 GB", for messages.
std::string FormatBytes(int64_t bytes);

}  // namespace pensieve
