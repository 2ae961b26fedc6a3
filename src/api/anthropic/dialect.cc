#include "api/anthropic/dialect.h"

#include <fmt/format.h>

#include "api/anthropic/message_response.h"
#include "api/anthropic/messages_request.h"
#include "api/models.h"
#include "base/random_id.h"

namespace pensieve::api::anthropic {
namespace {

class MessageFormat final : public AnswerFormat {
 public:
  MessageFormat(const MessageOptions& options, bool is_claude_cli)
      : builder_(options), writer_(options), is_claude_cli_(is_claude_cli) {}

  void Add(size_t, const service::GenerationEvent& event) override { builder_.Add(event); }
  Json Finish() override { return builder_.Finish(); }
  std::string Start() override { return writer_.Start(); }
  std::string Write(size_t, const service::GenerationEvent& event) override { return writer_.Write(event); }
  std::string Ping() const override { return MessageStreamWriter::Ping(); }
  std::string LongKeepAlive() const override { return is_claude_cli_ ? writer_.ClaudeKeepAlive() : ""; }

 private:
  MessageBuilder builder_;
  MessageStreamWriter writer_;
  const bool is_claude_cli_;
};

Result<GenerationCall> Messages(const RouteCall& call) {
  PENSIEVE_TRY(const Json body, ParseJson(call.request.body));
  PENSIEVE_TRY(auto message, FromMessagesRequest(body, {.request_id = call.request.id}));
  MessageOptions options{.id = NewId("msg_"), .model = message.chat.model, .request_id = call.request.id};
  options.thinking_omitted = message.thinking_omitted;
  const bool is_claude_cli = call.request.Header("user-agent").starts_with("claude-cli/");
  GenerationCall translated;
  translated.choices.emplace_back(std::move(message.chat));
  translated.stream = message.stream;
  translated.format = [options, is_claude_cli](const std::vector<Accepted>& accepted) mutable {
    options.prompt_tokens = accepted.front().prompt_tokens;
    return std::make_unique<MessageFormat>(options, is_claude_cli);
  };
  return translated;
}

Result<HttpReply> CountTokens(const RouteCall& call) {
  PENSIEVE_TRY(const Json body, ParseJson(call.request.body));
  PENSIEVE_TRY(const auto message, FromMessagesRequest(body, {.request_id = call.request.id, .count_only = true}));
  PENSIEVE_TRY(const int64_t tokens, call.service.CountTokens(message.chat));
  HttpReply reply;
  reply.body = fmt::format("{{\"input_tokens\":{}}}", tokens);
  return reply;
}

// Its own paths, and those of both vendors when its clients' headers are there.
bool Claims(const HttpRequest& request) {
  if (request.path.starts_with("/v1/messages")) return true;
  if (!request.path.starts_with("/v1/")) return false;
  return !request.Header("anthropic-version").empty() || !request.Header("x-api-key").empty();
}

const char* TypeOf(int http_status) {
  switch (http_status) {
    case 401: return "authentication_error";
    case 402: return "billing_error";
    case 403: return "permission_error";
    case 404: return "not_found_error";
    case 409: return "conflict_error";
    case 413: return "request_too_large";
    case 408:
    case 504: return "timeout_error";
    case 429: return "rate_limit_error";
    case 503:
    case 529: return "overloaded_error";
    default: return http_status >= 500 ? "api_error" : "invalid_request_error";
  }
}

Json Body(const Status& status, int http_status, const std::string& request_id) {
  Json body = {{"type", "error"}, {"error", {{"type", TypeOf(http_status)}, {"message", status.message()}}}};
  if (!request_id.empty()) body["request_id"] = request_id;
  return body;
}

const Route kRoutes[] = {
    {.methods = "POST", .path = "/v1/messages", .action = Generate{Messages}},
    {.methods = "POST", .path = "/v1/messages/count_tokens", .action = AnswerOnWorker{CountTokens}},
    {.methods = "GET, HEAD", .path = "/v1/models", .action = AnswerAtOnce{AnswerModels}},
    {.methods = "GET, HEAD", .path = "/v1/models/{id}", .action = AnswerAtOnce{AnswerModel}},
};

}  // namespace

const Dialect kDialect = {
    .name = "anthropic",
    .claims = Claims,
    .errors = {.queue_full = 529, .body = Body},
    .routes = kRoutes,
};

}  // namespace pensieve::api::anthropic
