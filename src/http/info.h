// The routes that only tell how the server is: all answered at once, without a model's lock. Private to http/.
#pragma once

#include <string>

#include "api/reply.h"
#include "http/request.h"
#include "observe/metrics.h"
#include "service/service.h"

namespace pensieve::http {

api::HttpReply RootReply(const std::string& version);
// 200 when every configured model is usable, also while the server loads them or drains; else 503: no model, or one
// whose file was truncated while in use, which the body names.
api::HttpReply HealthReply(const service::Service& service, const std::string& version);
// 200 when new work is welcome; else 503, while models load with the progress.
api::HttpReply ReadyReply(const service::Service& service, bool stopping);
// Prometheus text, or JSON when the Accept header asks for it.
api::HttpReply MetricsReply(const Request& request, Metrics& metrics);

}  // namespace pensieve::http
