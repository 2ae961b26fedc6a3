#include "api/openai/dialect.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <ctime>

#include "api/models.h"
#include "api/openai/requests.h"
#include "api/openai/response_answer.h"
#include "api/openai/response_request.h"
#include "api/openai/responses.h"
#include "api/openai/sampling_fields.h"
#include "base/random_id.h"

namespace pensieve::api::openai {
namespace {

class CompletionFormat final : public AnswerFormat {
 public:
  explicit CompletionFormat(const CompletionOptions& options) : builder_(options), writer_(options) {}

  void Add(size_t choice, const service::GenerationEvent& event) override { builder_.Add(choice, event); }
  Json Finish() override { return builder_.Finish(); }
  std::string Start() override { return writer_.Start(); }
  std::string Write(size_t choice, const service::GenerationEvent& event) override {
    return writer_.Write(choice, event);
  }
  std::string Ping() const override { return CompletionStreamWriter::Ping(); }

 private:
  CompletionBuilder builder_;
  CompletionStreamWriter writer_;
};

int64_t UnixTime() { return static_cast<int64_t>(std::time(nullptr)); }

// `n` choices for each of the requests, which differ only in their prompts.
template <typename Request>
GenerationCall ToCall(const std::vector<Request>& requests, size_t n, const StreamOptions& stream,
                      CompletionOptions options) {
  options.model = requests.front().model;
  options.created_unix_s = UnixTime();
  options.include_usage = stream.include_usage;
  options.logprobs = requests.front().sampling.logprobs;
  options.choices = requests.size() * n;
  options.choices_per_prompt = n;
  GenerationCall call;
  for (const Request& request : requests)
    for (size_t k = 0; k < n; ++k) call.choices.emplace_back(ForChoice(request, k));
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
  std::vector<service::ChatRequest> chats;
  chats.push_back(std::move(request.chat));
  return ToCall(chats, request.n, request.stream, {.id = NewId("chatcmpl-")});
}

Result<GenerationCall> Completions(const RouteCall& call) {
  PENSIEVE_TRY(const Json body, ParseJson(call.request.body));
  PENSIEVE_TRY(auto request, FromCompletion(body, call.request.id));
  return ToCall(request.completions, request.n, request.stream, {.id = NewId("cmpl-"), .chat = false});
}

Status NoResponse(std::string_view id) {
  return NotFound(fmt::format("no response \"{}\" is kept here", id.substr(0, 100)));
}

// The items of a response and of all before it, in order.
Result<Json> History(const RouteCall& call, std::string id) {
  std::vector<KeptResponse> chain;
  while (!id.empty()) {
    auto kept = FindResponse(call.records, ApiKeyOf(call.request), id);
    if (!kept) return NoResponse(id);
    id = kept->previous_id;
    chain.push_back(*std::move(kept));
  }
  Json items = Json::array();
  for (auto kept = chain.rbegin(); kept != chain.rend(); ++kept) {
    for (Json& item : kept->input) items.push_back(std::move(item));
    for (Json& item : kept->response["output"]) items.push_back(std::move(item));
  }
  return items;
}

Result<ResponseRequest> ReadResponseRequest(const RouteCall& call) {
  PENSIEVE_TRY(const Json body, ParseJson(call.request.body));
  PENSIEVE_TRY(const std::string previous_id, PreviousResponseId(body));
  PENSIEVE_TRY(const Json history, History(call, previous_id));
  return FromResponses(body, history, call.request.id);
}

Result<GenerationCall> Responses(const RouteCall& call) {
  PENSIEVE_TRY(ResponseRequest request, ReadResponseRequest(call));
  ResponseOptions options{.id = NewId("resp_"),
                          .model = request.chat.model,
                          .created_unix_s = UnixTime(),
                          .stream = request.stream,
                          .store = request.store,
                          .encrypted_reasoning = request.encrypted_reasoning,
                          .logprobs = request.logprobs,
                          .previous_id = request.previous_id,
                          .owner = std::string(ApiKeyOf(call.request)),
                          .input = std::move(request.input),
                          .settings = std::move(request.settings)};
  GenerationCall translated;
  translated.choices.emplace_back(std::move(request.chat));
  translated.stream = request.stream;
  translated.format = [options = std::move(options), &records = call.records](const std::vector<Accepted>&) {
    return std::make_unique<ResponseFormat>(options, records);
  };
  return translated;
}

HttpReply ToReply(const Json& body) {
  HttpReply reply;
  reply.body = DumpJson(body);
  return reply;
}

Result<HttpReply> CountInputTokens(const RouteCall& call) {
  PENSIEVE_TRY(const ResponseRequest request, ReadResponseRequest(call));
  PENSIEVE_TRY(const int64_t tokens, call.service.CountTokens(request.chat));
  return ToReply({{"object", "response.input_tokens"}, {"input_tokens", tokens}});
}

Result<HttpReply> GetResponse(const RouteCall& call) {
  auto kept = FindResponse(call.records, ApiKeyOf(call.request), call.parameter);
  if (!kept) return NoResponse(call.parameter);
  return ToReply(kept->response);
}

Result<HttpReply> DeleteResponse(const RouteCall& call) {
  if (!call.records.Erase(ApiKeyOf(call.request), call.parameter)) return NoResponse(call.parameter);
  return ToReply({{"id", call.parameter}, {"object", "response"}, {"deleted", true}});
}

Result<HttpReply> CancelResponse(const RouteCall& call) {
  if (!FindResponse(call.records, ApiKeyOf(call.request), call.parameter)) return NoResponse(call.parameter);
  return InvalidArgument("only a response that is made in the background can be cancelled, and this one is complete");
}

// One page of the items that the response answered, the newest first unless `order` is "asc".
Result<HttpReply> ListInputItems(const RouteCall& call) {
  constexpr size_t kPageDefault = 20;
  constexpr size_t kPageMax = 100;
  auto kept = FindResponse(call.records, ApiKeyOf(call.request), call.parameter);
  if (!kept) return NoResponse(call.parameter);
  const std::string& query = call.request.query;
  const std::string limit_text = QueryParameter(query, "limit").value_or(std::to_string(kPageDefault));
  size_t limit = 0;
  const auto parsed = std::from_chars(limit_text.data(), limit_text.data() + limit_text.size(), limit);
  if (parsed.ec != std::errc() || parsed.ptr != limit_text.data() + limit_text.size() || limit < 1 || limit > kPageMax)
    return InvalidArgument(fmt::format("limit: must be an integer from 1 to {}", kPageMax));
  std::vector<Json> items(kept->input.begin(), kept->input.end());
  if (QueryParameter(query, "order").value_or("desc") != "asc") std::reverse(items.begin(), items.end());
  size_t first = 0;
  if (const auto after = QueryParameter(query, "after")) {
    const auto at = std::find_if(items.begin(), items.end(), [&](const Json& item) { return item["id"] == *after; });
    first = std::min(static_cast<size_t>(at - items.begin()) + 1, items.size());
  }
  const size_t end = std::min(first + limit, items.size());
  Json page = Json::array();
  for (size_t i = first; i < end; ++i) page.push_back(std::move(items[i]));
  const Json first_id = page.empty() ? Json(nullptr) : page.front()["id"];
  const Json last_id = page.empty() ? Json(nullptr) : page.back()["id"];
  return ToReply({{"object", "list"},
                  {"data", std::move(page)},
                  {"first_id", first_id},
                  {"last_id", last_id},
                  {"has_more", end < items.size()}});
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
  if (http_status == 404 && status.message().starts_with("no response ")) return "response_not_found";
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
    {.methods = "POST", .path = "/v1/responses", .action = Generate{Responses}},
    {.methods = "POST", .path = "/v1/responses/input_tokens", .action = AnswerOnWorker{CountInputTokens}},
    {.methods = "GET, HEAD", .path = "/v1/responses/{id}/input_items", .action = AnswerOnWorker{ListInputItems}},
    {.methods = "POST", .path = "/v1/responses/{id}/cancel", .action = AnswerOnWorker{CancelResponse}},
    {.methods = "GET, HEAD", .path = "/v1/responses/{id}", .action = AnswerOnWorker{GetResponse}},
    {.methods = "DELETE", .path = "/v1/responses/{id}", .action = AnswerOnWorker{DeleteResponse}},
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
