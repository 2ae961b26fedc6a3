#include "api/ollama/dialect.h"

#include <fmt/format.h>

#include "api/fields.h"
#include "api/ollama/answers.h"
#include "api/ollama/requests.h"

namespace pensieve::api::ollama {
namespace {

HttpReply ToReply(const Json& body) {
  HttpReply reply;
  reply.body = DumpJson(body);
  return reply;
}

Result<HttpReply> Root(const RouteCall&) {
  HttpReply reply;
  reply.content_type = "text/plain; charset=utf-8";
  reply.body = "Ollama is running";
  return reply;
}

Result<HttpReply> Version(const RouteCall& call) { return ToReply({{"version", call.version}}); }
Result<HttpReply> Tags(const RouteCall& call) { return ToReply(ToTags(call.service.Models())); }
Result<HttpReply> Running(const RouteCall& call) { return ToReply(ToRunning(call.service.Models())); }

Result<HttpReply> Show(const RouteCall& call) {
  PENSIEVE_TRY(const Json body, ParseJson(call.request.body));
  FieldReader fields(body, "");
  auto name = fields.String("model");
  if (!name) name = fields.String("name");
  PENSIEVE_RETURN_IF_ERROR(fields.status());
  if (!name || name->empty()) return InvalidArgument("model: Field required");
  auto model = call.service.FindModel(*name, false);
  if (!model.has_value()) model = call.service.FindModel(*name, true);
  if (!model.has_value()) return model.error();
  return ToReply(ToShow(*model));
}

Result<GenerationCall> ToCall(const RouteCall& call, TextRequest request, bool chat) {
  GenerationCall translated;
  translated.stream = request.stream;
  TextOptions options{.model = request.model, .chat = chat};
  if (std::holds_alternative<std::monostate>(request.text)) {
    PENSIEVE_TRY(const auto model, call.service.FindModel(request.model, false));
    translated.reply = ToLoadReply(options, request.unload);
    return translated;
  }
  if (auto* turn = std::get_if<service::ChatRequest>(&request.text)) {
    options.logprobs = turn->sampling.logprobs;
    translated.choices.emplace_back(std::move(*turn));
  } else {
    auto& completion = std::get<service::CompletionRequest>(request.text);
    options.logprobs = completion.sampling.logprobs;
    translated.choices.emplace_back(std::move(completion));
  }
  translated.format = [options](const std::vector<Accepted>&) { return std::make_unique<TextFormat>(options); };
  return translated;
}

Result<GenerationCall> Chat(const RouteCall& call) {
  PENSIEVE_TRY(const Json body, ParseJson(call.request.body));
  PENSIEVE_TRY(auto request, FromChat(body, call.request.id));
  return ToCall(call, std::move(request), /*chat=*/true);
}

Result<GenerationCall> Completion(const RouteCall& call) {
  PENSIEVE_TRY(const Json body, ParseJson(call.request.body));
  PENSIEVE_TRY(auto request, FromGenerate(body, call.request.id));
  return ToCall(call, std::move(request), /*chat=*/false);
}

Result<EmbeddingCall> EmbedTexts(const RouteCall& call) {
  PENSIEVE_TRY(const Json body, ParseJson(call.request.body));
  EmbeddingCall translated;
  PENSIEVE_TRY(translated.request, FromEmbed(body, call.request.id));
  const std::string model = translated.request.model;
  if (translated.request.texts.empty()) translated.reply = ToEmbedReply({}, model);
  translated.format = [model](const service::EmbedResult& result) { return ToEmbedReply(result, model); };
  return translated;
}

Result<EmbeddingCall> EmbedPrompt(const RouteCall& call) {
  PENSIEVE_TRY(const Json body, ParseJson(call.request.body));
  EmbeddingCall translated;
  PENSIEVE_TRY(translated.request, FromEmbeddings(body, call.request.id));
  translated.format = ToEmbeddingsReply;
  return translated;
}

// Its own paths but AkiDB's, and the root for its own clients, which look for its sentence there.
bool Claims(const HttpRequest& request) {
  if (request.path.starts_with("/api/")) return !request.path.starts_with("/api/v1/");
  return request.path == "/" && ToLower(request.Header("user-agent")).starts_with("ollama");
}

Json Body(const Status& status, int, const std::string&) { return {{"error", status.message()}}; }

const Route kRoutes[] = {
    {.methods = "GET, HEAD", .path = "/", .action = AnswerAtOnce{Root}, .open = true},
    {.methods = "GET, HEAD", .path = "/api/version", .action = AnswerAtOnce{Version}, .open = true},
    {.methods = "GET, HEAD", .path = "/api/tags", .action = AnswerAtOnce{Tags}},
    {.methods = "GET, HEAD", .path = "/api/ps", .action = AnswerAtOnce{Running}},
    {.methods = "POST", .path = "/api/show", .action = AnswerOnWorker{Show}},
    {.methods = "POST", .path = "/api/chat", .action = Generate{Chat}},
    {.methods = "POST", .path = "/api/generate", .action = Generate{Completion}},
    {.methods = "POST", .path = "/api/embed", .action = Embed{EmbedTexts}},
    {.methods = "POST", .path = "/api/embeddings", .action = Embed{EmbedPrompt}},
};

}  // namespace

const Dialect kDialect = {
    .name = "ollama",
    .claims = Claims,
    .errors = {.queue_full = 503, .retry_after_ms = false, .body = Body},
    .routes = kRoutes,
};

}  // namespace pensieve::api::ollama
