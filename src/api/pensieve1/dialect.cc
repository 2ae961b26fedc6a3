#include "api/pensieve1/dialect.h"

#include "api/fields.h"

namespace pensieve::api::pensieve1 {
namespace {

using Kind = service::GenerationEvent::Kind;

constexpr int64_t kTokensDefault = 100;
constexpr int64_t kTokensMax = 2048;
constexpr float kTemperatureDefault = 0.7f;

Result<GenerationCall> Text(const RouteCall& call) {
  PENSIEVE_TRY(const Json body, ParseJson(call.request.body));
  PENSIEVE_TRY(auto request, FromGenerate(body, call.request.id));
  GenerationCall translated;
  translated.choices.emplace_back(std::move(request.completion));
  translated.stream = request.stream;
  translated.format = [status = call.service.GetHealth().memory_status](const std::vector<Accepted>&) {
    return std::make_unique<GenerateFormat>(status);
  };
  return translated;
}

Result<HttpReply> ClearCache(const RouteCall& call) {
  call.service.ClearCaches();
  const service::Health health = call.service.GetHealth();
  HttpReply reply;
  reply.body = DumpJson({{"status", "cleared"},
                         {"memory_status", health.memory_status},
                         {"memory_available_gb", health.memory_available_gb}});
  return reply;
}

bool Claims(const HttpRequest& request) { return request.path == "/generate" || request.path == "/cache/clear"; }

Json Body(const Status& status, int, const std::string&) { return {{"detail", status.message()}}; }

std::string Line(const Json& json) { return DumpJson(json) + "\n"; }

const Route kRoutes[] = {
    {.methods = "POST", .path = "/generate", .action = Generate{Text}},
    {.methods = "POST", .path = "/cache/clear", .action = AnswerAtOnce{ClearCache}},
};

}  // namespace

Result<GenerateRequest> FromGenerate(const Json& body, const std::string& request_id) {
  GenerateRequest request;
  FieldReader fields(body, "");
  request.completion.id = request_id;
  request.completion.any_model = true;
  request.completion.prompt = fields.RequiredString("prompt");
  request.completion.new_tokens_max = fields.Integer("max_tokens", 1, kTokensMax).value_or(kTokensDefault);
  request.completion.sampling.temperature =
      static_cast<float>(fields.Number("temperature", 0, 2).value_or(kTemperatureDefault));
  request.stream = fields.Bool("stream").value_or(false);
  if (!fields.status().ok()) return FailedPrecondition(fields.status().message());
  return request;
}

void GenerateFormat::Add(size_t, const service::GenerationEvent& event) {
  if (event.kind == Kind::kText) text_ += event.text;
  if (event.kind == Kind::kDone) usage_ = event.usage;
}

Json GenerateFormat::Finish() {
  const double seconds = usage_.total_s;
  const auto tokens = static_cast<double>(usage_.completion_tokens);
  return {{"text", text_},
          {"tokens", usage_.completion_tokens},
          {"elapsed_seconds", seconds},
          {"tokens_per_second", seconds > 0 ? tokens / seconds : 0.0},
          {"memory_status", memory_status_}};
}

std::string GenerateFormat::Write(size_t, const service::GenerationEvent& event) {
  switch (event.kind) {
    case Kind::kText: return event.text.empty() ? "" : Line({{"type", "chunk"}, {"text", event.text}});
    case Kind::kDone: return Line({{"type", "complete"}});
    case Kind::kError: return Line({{"type", "error"}, {"error", event.error.message()}});
    case Kind::kCancelled:
      return Line({{"type", "error"}, {"error", "the request was cancelled because the server is shutting down"}});
    default: return "";
  }
}

const Dialect kDialect = {
    .name = "pensieve",
    .claims = Claims,
    .errors = {.queue_full = 503, .wrong_types = 422, .body = Body},
    .routes = kRoutes,
};

}  // namespace pensieve::api::pensieve1
