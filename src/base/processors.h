// How many processors this process may use, and threads that give way to others.
#pragma once

#include <optional>
#include <string>

namespace pensieve {

// The whole processors that the quotas of the control groups allow, at least 1; nothing without a quota. Threads that
// wait for each other should be no more: what exceeds the quota is stopped by the kernel in the middle of a step.
// `root` as of ReadControlGroupLimits.
std::optional<int> ProcessorQuota(const std::string& root = "");

// Processors that the scheduler may give to this process (affinity), within the quota; at least 1.
int UsableProcessors();

// From now on the calling thread gets a processor after threads of ordinary priority, of this process and of others:
// under full load about a fifth of one (Linux: nice 7; macOS: the utility class). It can hardly be undone.
void LowerThreadPriority();

}  // namespace pensieve
