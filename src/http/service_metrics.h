// The engine's and the service's numbers as metrics.
#pragma once

#include <vector>

#include "observe/metrics.h"
#include "service/service.h"

namespace pensieve::http {

// For Metrics::Create's collector. Takes no engine lock.
std::vector<CollectedMetric> CollectServiceMetrics(const service::Service& service);

}  // namespace pensieve::http
