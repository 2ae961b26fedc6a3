// The embedding routes: request bodies to neutral calls, results to answers. Private to http/.
#pragma once

#include <functional>

#include "api/reply.h"
#include "base/status.h"
#include "http/request.h"
#include "http/routes.h"
#include "service/service.h"

namespace pensieve::http {

struct PreparedEmbedding {
  service::EmbedRequest call;
  size_t texts = 0;
  // Formats the result: up to a hundred milliseconds for thousands of vectors, so for a worker thread.
  std::function<api::HttpReply(const service::EmbedResult&)> format;
};

// The route must be kEmbeddings or kEmbed. For a worker thread.
Result<PreparedEmbedding> PrepareEmbedding(const Request& request, RouteId route);

}  // namespace pensieve::http
