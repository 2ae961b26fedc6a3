#include "http/generation.h"

#include <ctime>

#include "api/anthropic/message_response.h"
#include "api/anthropic/messages_request.h"
#include "base/random_id.h"
#include "api/openai/requests.h"
#include "api/openai/responses.h"

namespace pensieve::http {
namespace {

class AnthropicFormat final : public AnswerFormat {
 public:
  AnthropicFormat(const api::anthropic::MessageOptions& options, bool is_claude_cli)
      : builder_(options), writer_(options), is_claude_cli_(is_claude_cli) {}

  void Add(const service::GenerationEvent& event) override { builder_.Add(event); }
  Json Finish() override { return builder_.Finish(); }
  std::string Start() override { return writer_.Start(); }
  std::string Write(const service::GenerationEvent& event) override { return writer_.Write(event); }
  std::string Ping() const override { return api::anthropic::MessageStreamWriter::Ping(); }
  std::string LongKeepAlive() const override { return is_claude_cli_ ? writer_.ClaudeKeepAlive() : ""; }

 private:
  api::anthropic::MessageBuilder builder_;
  api::anthropic::MessageStreamWriter writer_;
  const bool is_claude_cli_;
};

class OpenAiFormat final : public AnswerFormat {
 public:
  explicit OpenAiFormat(const api::openai::CompletionOptions& options) : builder_(options), writer_(options) {}

  void Add(const service::GenerationEvent& event) override { builder_.Add(event); }
  Json Finish() override { return builder_.Finish(); }
  std::string Start() override { return writer_.Start(); }
  std::string Write(const service::GenerationEvent& event) override { return writer_.Write(event); }
  std::string Ping() const override { return api::openai::CompletionStreamWriter::Ping(); }
  std::string LongKeepAlive() const override { return ""; }

 private:
  api::openai::CompletionBuilder builder_;
  api::openai::CompletionStreamWriter writer_;
};

Result<PreparedGeneration> PrepareMessages(const Request& request, const Json& body, service::Service& service) {
  PENSIEVE_TRY(auto message, api::anthropic::FromMessagesRequest(body, {.request_id = request.id}));
  api::anthropic::MessageOptions options{.id = NewId("msg_"), .model = message.chat.model, .request_id = request.id};
  options.thinking_omitted = message.thinking_omitted;
  message.chat.cache_partition = request.key_number;
  PENSIEVE_TRY(auto generation, service.Chat(std::move(message.chat)));
  options.prompt_tokens = generation->prompt_tokens();
  const bool is_claude_cli = request.Header("user-agent").substr(0, 11) == "claude-cli/";
  return PreparedGeneration{.generation = std::move(generation),
                            .format = std::make_unique<AnthropicFormat>(options, is_claude_cli),
                            .stream = message.stream};
}

template <typename Sampling>
api::openai::CompletionOptions OptionsFor(const char* prefix, const std::string& model, const Sampling& sampling,
                                          const api::openai::StreamOptions& stream) {
  return {.id = NewId(prefix),
          .model = model,
          .created_unix_s = static_cast<int64_t>(std::time(nullptr)),
          .include_usage = stream.include_usage,
          .logprobs = sampling.logprobs};
}

PreparedGeneration OpenAiAnswer(std::unique_ptr<service::Generation> generation, api::openai::CompletionOptions options,
                                bool stream) {
  if (options.model.empty()) options.model = generation->model_name();
  return {.generation = std::move(generation), .format = std::make_unique<OpenAiFormat>(options), .stream = stream};
}

Result<PreparedGeneration> PrepareChatCompletion(const Request& request, const Json& body, service::Service& service) {
  PENSIEVE_TRY(auto call, api::openai::FromChatCompletion(body, request.id));
  auto options = OptionsFor("chatcmpl-", call.chat.model, call.chat.sampling, call.stream);
  call.chat.cache_partition = request.key_number;
  PENSIEVE_TRY(auto generation, service.Chat(std::move(call.chat)));
  return OpenAiAnswer(std::move(generation), std::move(options), call.stream.stream);
}

Result<PreparedGeneration> PrepareCompletion(const Request& request, const Json& body, service::Service& service) {
  PENSIEVE_TRY(auto call, api::openai::FromCompletion(body, request.id));
  auto options = OptionsFor("cmpl-", call.completion.model, call.completion.sampling, call.stream);
  options.chat = false;
  call.completion.cache_partition = request.key_number;
  PENSIEVE_TRY(auto generation, service.Complete(std::move(call.completion)));
  return OpenAiAnswer(std::move(generation), std::move(options), call.stream.stream);
}

}  // namespace

Result<PreparedGeneration> PrepareGeneration(const Request& request, RouteId route, service::Service& service) {
  PENSIEVE_TRY(const Json body, ParseJson(request.body));
  switch (route) {
    case RouteId::kMessages:
      return PrepareMessages(request, body, service);
    case RouteId::kChatCompletions:
      return PrepareChatCompletion(request, body, service);
    case RouteId::kCompletions:
      return PrepareCompletion(request, body, service);
    default:
      PENSIEVE_UNREACHABLE();
  }
}

Result<api::HttpReply> CountTokens(const Request& request, service::Service& service) {
  PENSIEVE_TRY(const Json body, ParseJson(request.body));
  PENSIEVE_TRY(auto message,
               api::anthropic::FromMessagesRequest(body, {.request_id = request.id, .count_only = true}));
  message.chat.cache_partition = request.key_number;
  PENSIEVE_TRY(const int64_t tokens, service.CountTokens(message.chat));
  api::HttpReply reply;
  reply.body = fmt::format("{{\"input_tokens\":{}}}", tokens);
  return reply;
}

}  // namespace pensieve::http
