#include "base/processors.h"

#include <algorithm>
#include <cmath>
#include <thread>

#include "base/control_group.h"

#ifdef __linux__
#include <sched.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>
#elif defined(__APPLE__)
#include <pthread/qos.h>
#endif

namespace pensieve {

std::optional<int> ProcessorQuota(const std::string& root) {
  const auto cpus = ReadControlGroupLimits(root).cpus;
  if (!cpus) return std::nullopt;
  return static_cast<int>(std::clamp(std::floor(*cpus), 1.0, 1e6));
}

int UsableProcessors() {
  int count = std::max(1, static_cast<int>(std::thread::hardware_concurrency()));
#ifdef __linux__
  cpu_set_t allowed;
  if (::sched_getaffinity(0, sizeof(allowed), &allowed) == 0) count = std::max(1, CPU_COUNT(&allowed));
#endif
  return std::min(count, ProcessorQuota().value_or(count));
}

void LowerThreadPriority() {
#ifdef __linux__
  constexpr int kNice = 7;
  // On Linux a niceness belongs to a thread. Somebody who runs everything at a higher one keeps that.
  const auto thread = static_cast<id_t>(::syscall(SYS_gettid));
  if (::getpriority(PRIO_PROCESS, thread) < kNice) ::setpriority(PRIO_PROCESS, thread, kNice);
#elif defined(__APPLE__)
  ::pthread_set_qos_class_self_np(QOS_CLASS_UTILITY, 0);
#endif
}

}  // namespace pensieve
