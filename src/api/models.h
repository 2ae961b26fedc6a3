// GET /v1/models and /v1/models/{id}: one path that clients of both vendors call, so each entry carries both shapes.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "api/dialect.h"
#include "base/json.h"
#include "base/status.h"
#include "service/service.h"

namespace pensieve::api {

// Query parameters as they came, percent-decoded.
struct ModelsQuery {
  std::optional<std::string> limit = {};
  std::optional<std::string> before_id = {};
  std::optional<std::string> after_id = {};
};

Json ToModel(const service::ModelDescription& model);

// One page of `models`, in their order. InvalidArgument for a limit that is no number from 1 to 1000.
Result<Json> ToModelList(const std::vector<service::ModelDescription>& models, const ModelsQuery& query);

// The two routes, as rows of both dialects have them.
Result<HttpReply> AnswerModels(const RouteCall& call);
Result<HttpReply> AnswerModel(const RouteCall& call);

// RFC 3339 in UTC with seconds: "2026-11-01T00:00:00Z".
std::string ToTimestamp(int64_t unix_s);

}  // namespace pensieve::api
