// How much memory this process may still take.
#pragma once

#include <cstdint>
#include <string>

namespace pensieve::model {

// The smaller of what the machine has available and what the process's control group leaves; 0 when neither is known.
int64_t AvailableMemoryBytes();

// "12.3 GB", for messages.
std::string FormatBytes(int64_t bytes);

}  // namespace pensieve::model
