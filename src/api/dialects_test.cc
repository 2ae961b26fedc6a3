// The table of dialects, its errors, and what all of them share.
#include "api/dialects.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <set>

#include "api/akidb/dialect.h"
#include "api/anthropic/dialect.h"
#include "api/models.h"
#include "api/openai/dialect.h"

namespace pensieve::api {
namespace {

template <typename Action>
bool IsSet(const Action& action) {
  if constexpr (requires { action.answer; }) return action.answer != nullptr;
  else return action.translate != nullptr;
}

HttpRequest Get(const std::string& path) {
  HttpRequest request;
  request.method = "GET";
  request.path = path;
  return request;
}

TEST(Dialects, RowsAreComplete) {
  std::set<std::string_view> names;
  for (const Dialect* dialect : Dialects()) {
    EXPECT_TRUE(names.insert(dialect->name).second) << dialect->name;
    ASSERT_NE(dialect->claims, nullptr);
    ASSERT_NE(dialect->errors.body, nullptr);
    EXPECT_FALSE(dialect->routes.empty());
    for (const Route& route : dialect->routes) {
      EXPECT_EQ(route.path[0], '/') << route.path;
      EXPECT_FALSE(route.methods.empty()) << route.path;
      EXPECT_TRUE(std::visit([](const auto& action) { return IsSet(action); }, route.action)) << route.path;
    }
  }
}

TEST(Dialects, PathsWithParameters) {
  std::string parameter;
  EXPECT_TRUE(MatchesPath("/v1/models", "/v1/models", parameter));
  EXPECT_FALSE(MatchesPath("/v1/models", "/v1/models/", parameter));
  EXPECT_TRUE(MatchesPath("/v1/models/{id}", "/v1/models/org/tiny", parameter));
  EXPECT_EQ(parameter, "org/tiny");
  EXPECT_FALSE(MatchesPath("/v1/models/{id}", "/v1/models/", parameter));
  EXPECT_TRUE(MatchesPath("/v1/things/{id}/parts", "/v1/things/a/b/parts", parameter));
  EXPECT_EQ(parameter, "a/b");
  for (const char* other : {"/v1/things//parts", "/v1/things/parts", "/v1/things/a/part", "/v1/things/a"})
    EXPECT_FALSE(MatchesPath("/v1/things/{id}/parts", other, parameter)) << other;
}

TEST(Dialects, MethodsOfAPath) {
  EXPECT_TRUE(HasMethod("GET, HEAD", "HEAD"));
  for (const char* wrong : {"", "GE", "GET, HEAD", "POST"}) EXPECT_FALSE(HasMethod("GET, HEAD", wrong)) << wrong;
  const RouteMatch match = MatchIn(openai::kDialect, Get("/v1/chat/completions"));
  EXPECT_EQ(match.dialect, &openai::kDialect);
  EXPECT_EQ(match.route, nullptr);
  EXPECT_EQ(match.allow, "POST");
  EXPECT_EQ(MatchIn(openai::kDialect, Get("/v1/nothing")).dialect, nullptr);
}

TEST(Errors, EachDialectHasItsOwnStatusAndShape) {
  const Status full = ResourceExhausted("the queue is full").WithReason(ErrorReason::kQueueFull).WithRetryAfterMs(250);
  EXPECT_EQ(HttpStatus(full, anthropic::kDialect.errors), 529);
  EXPECT_EQ(HttpStatus(full, openai::kDialect.errors), 429);
  EXPECT_EQ(HttpStatus(full, akidb::kDialect.errors), 503);
  const HttpReply of_akidb = ErrorReply(full, akidb::kDialect.errors, {});
  EXPECT_EQ(
      of_akidb.body,
      R"({"error":"Embedding model is currently processing another request. Please retry with exponential backoff."})");
  EXPECT_THAT(of_akidb.headers, testing::ElementsAre(testing::Pair("retry-after", "1")));
  const HttpReply of_anthropic = ErrorReply(full, anthropic::kDialect.errors, {.request_id = "req_1"});
  EXPECT_EQ(
      of_anthropic.body,
      R"({"type":"error","error":{"type":"overloaded_error","message":"the queue is full"},"request_id":"req_1"})");
  EXPECT_THAT(of_anthropic.headers,
              testing::ElementsAre(testing::Pair("retry-after", "1"), testing::Pair("retry-after-ms", "250")));

  const Status pressure = Unavailable("low memory").WithReason(ErrorReason::kMemoryPressure);
  const HttpReply memory = ErrorReply(pressure, anthropic::kDialect.errors,
                                      {.request_id = "r", .memory_status = "critical", .memory_available_gb = 0.751});
  EXPECT_EQ(memory.status, 503);
  EXPECT_THAT(memory.headers, testing::Contains(testing::Pair("x-memory-status", "critical")));
  EXPECT_THAT(memory.headers, testing::Contains(testing::Pair("x-available-memory-gb", "0.75")));
}

TEST(Errors, TableOfCodes) {
  struct Row {
    Status status;
    int by_anthropic, by_openai, by_akidb;
    const char* type;
  };
  const Row rows[] = {
      {InvalidArgument("x"), 400, 400, 400, "invalid_request_error"},
      {FailedPrecondition("x"), 400, 400, 422, "invalid_request_error"},
      {Unimplemented("x"), 400, 400, 400, "invalid_request_error"},
      {Unauthenticated("x"), 401, 401, 401, "authentication_error"},
      {{StatusCode::kPermissionDenied, "x"}, 403, 403, 403, "permission_error"},
      {NotFound("x"), 404, 404, 404, "not_found_error"},
      {ResourceExhausted("x"), 429, 429, 429, "rate_limit_error"},
      {Internal("x"), 500, 500, 500, "api_error"},
      {DataLoss("x"), 500, 500, 500, "api_error"},
      {Unavailable("x"), 503, 503, 503, "overloaded_error"},
      {DeadlineExceeded("x"), 504, 504, 504, "timeout_error"},
      {InvalidArgument("x").WithReason(ErrorReason::kBodyTooLarge), 413, 413, 413, "request_too_large"},
      {InvalidArgument("x").WithReason(ErrorReason::kUnsupportedMedia), 415, 415, 415, "invalid_request_error"},
      {InvalidArgument("x").WithReason(ErrorReason::kMethodNotAllowed), 405, 405, 405, "invalid_request_error"},
      {Unavailable("x").WithReason(ErrorReason::kShuttingDown), 503, 503, 503, "overloaded_error"},
  };
  for (const Row& row : rows) {
    EXPECT_EQ(HttpStatus(row.status, anthropic::kDialect.errors), row.by_anthropic) << row.status.ToString();
    EXPECT_EQ(HttpStatus(row.status, openai::kDialect.errors), row.by_openai) << row.status.ToString();
    EXPECT_EQ(HttpStatus(row.status, akidb::kDialect.errors), row.by_akidb) << row.status.ToString();
    EXPECT_EQ(ErrorBody(row.status, anthropic::kDialect.errors, "")["error"]["type"], row.type)
        << row.status.ToString();
  }
}

TEST(Models, UnionAndPaging) {
  std::vector<service::ModelDescription> models(3);
  for (size_t i = 0; i < models.size(); ++i) models[i].name = std::string(1, static_cast<char>('a' + i));
  models[0].generates = true;
  models[0].context_max = 2048;
  models[0].created_unix_s = 1793491200;
  const Json all = *ToModelList(models, {});
  EXPECT_EQ(all["object"], "list");
  EXPECT_EQ(all["has_more"], false);
  EXPECT_EQ(all["first_id"], "a");
  EXPECT_EQ(all["last_id"], "c");
  EXPECT_EQ(all["data"][0]["object"], "model");
  EXPECT_EQ(all["data"][0]["type"], "model");
  EXPECT_EQ(all["data"][0]["max_input_tokens"], 2048);
  EXPECT_EQ(all["data"][0]["created_at"], "2026-11-01T00:00:00Z");
  const Json first = *ToModelList(models, {.limit = "2"});
  EXPECT_EQ(first["has_more"], true);
  const Json rest = *ToModelList(models, {.limit = "2", .after_id = "b"});
  EXPECT_EQ(rest["has_more"], false);
  EXPECT_EQ(rest["data"].size(), 1u);
  EXPECT_EQ((*ToModelList(models, {.limit = "1", .before_id = "c"}))["data"][0]["id"], "b");
  EXPECT_EQ((*ToModelList(models, {.after_id = "zzz"}))["data"].size(), 0u);
  for (const char* bad : {"0", "1001", "x", "", "5 "})
    EXPECT_FALSE(ToModelList(models, {.limit = bad}).has_value()) << bad;
}

}  // namespace
}  // namespace pensieve::api
