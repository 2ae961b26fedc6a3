#include "api/openai/dialect.h"

#include <ctime>

#include "api/models.h"
#include "api/openai/requests.h"
#include "api/openai/responses.h"
#include "base/random_id.h"

namespace pensieve::api::openai {
namespace {

class CompletionFormat final : public AnswerFormat {
 public:
  explicit CompletionFormat(const CompletionOptions& options) : builder_(options), writer_(options) {}

  void Add(size_t, const service::GenerationEvent& event) override { builder_.Add(event); }
  Json Finish() override { return builder_.Finish(); }
  std::string Start() override { return writer_.Start(); }
  std::string Write(size_t, const service::GenerationEvent& event) override { return writer_.Write(event); }
  std::string Ping() const override { return CompletionStreamWriter::Ping(); }

 private:
  CompletionBuilder builder_;
  CompletionStreamWriter writer_;
};

template <typename Request>
GenerationCall ToCall(Request request, const StreamOptions& stream, CompletionOptions options) {
  options.model = request.model;
  options.created_unix_s = static_cast<int64_t>(std::time(nullptr));
  options.include_usage = stream.include_usage;
  options.logprobs = request.sampling.logprobs;
  GenerationCall call;
  call.choices.emplace_back(std::move(request));
  call.stream = stream.stream;
  call.format = [options](const std::vector<Accepted>& accepted) mutable {
    if (options.model.empty()) options.model = accepted.front().model_name;
    return std::make_unique<CompletionFormat>(options);
  };
  return call;
}

Result<GenerationCall> ChatCompletions(const RouteCall& call) {
  PENSIEVE_TRY(const Json body, ParseJson(call.request.body));
  PENSIEVE_TRY(auto request, FromChatCompletion(body, call.request.id));
  return ToCall(std::move(request.chat), request.stream, {.id = NewId("chatcmpl-")});
}

Result<GenerationCall> Completions(const RouteCall& call) {
  PENSIEVE_TRY(const Json body, ParseJson(call.request.body));
  PENSIEVE_TRY(auto request, FromCompletion(body, call.request.id));
  return ToCall(std::move(request.completion), request.stream, {.id = NewId("cmpl-"), .chat = false});
}

Result<EmbeddingCall> Embeddings(const RouteCall& call) {
  PENSIEVE_TRY(const Json body, ParseJson(call.request.body));
  PENSIEVE_TRY(auto request, FromEmbeddings(body, call.request.id));
  return EmbeddingCall{.request = std::move(request.embed),
                       .format = [base64 = request.base64](const service::EmbedResult& result) {
                         return ToEmbeddingsReply(result, base64);
                       }};
}

bool Claims(const HttpRequest& request) {
  if (!request.path.starts_with("/v1/") || request.path.starts_with("/v1/messages")) return false;
  return request.Header("anthropic-version").empty() && request.Header("x-api-key").empty();
}

const char* TypeOf(int http_status) {
  switch (http_status) {
    case 401: return "authentication_error";
    case 403: return "permission_error";
    case 404: return "not_found_error";
    case 429: return "rate_limit_error";
    case 503: return "overloaded_error";
    default: return http_status >= 500 ? "server_error" : "invalid_request_error";
  }
}

// "messages.0.content: must be ..." names its parameter in front of the first ": ".
Json ParamOf(const Status& status) {
  if (status.code() != StatusCode::kInvalidArgument && status.code() != StatusCode::kNotFound) return nullptr;
  const size_t colon = status.message().find(": ");
  if (colon == std::string::npos) return nullptr;
  const std::string path = status.message().substr(0, colon);
  const bool is_path = path.find_first_not_of("abcdefghijklmnopqrstuvwxyz_.0123456789") == std::string::npos;
  return is_path ? Json(path) : Json(nullptr);
}

Json CodeOf(const Status& status, int http_status) {
  if (status.reason() == ErrorReason::kPromptTooLong) return "context_length_exceeded";
  if (status.reason() == ErrorReason::kQueueFull) return "rate_limit_exceeded";
  if (http_status == 401) return "invalid_api_key";
  if (http_status == 404) return ParamOf(status) == "model" ? "model_not_found" : "unknown_url";
  return nullptr;
}

Json Body(const Status& status, int http_status, const std::string&) {
  return {{"error",
           {{"message", status.message()},
            {"type", TypeOf(http_status)},
            {"param", ParamOf(status)},
            {"code", CodeOf(status, http_status)}}}};
}

const Route kRoutes[] = {
    {.methods = "POST", .path = "/v1/chat/completions", .action = Generate{ChatCompletions}},
    {.methods = "POST", .path = "/v1/completions", .action = Generate{Completions}},
    {.methods = "POST", .path = "/v1/embeddings", .action = Embed{Embeddings}},
    {.methods = "GET, HEAD", .path = "/v1/models", .action = AnswerAtOnce{AnswerModels}},
    {.methods = "GET, HEAD", .path = "/v1/models/{id}", .action = AnswerAtOnce{AnswerModel}},
};

}  // namespace

const Dialect kDialect = {
    .name = "openai",
    .claims = Claims,
    .errors = {.queue_full = 429, .body = Body},
    .x_request_id = true,
    .routes = kRoutes,
};

}  // namespace pensieve::api::openai
