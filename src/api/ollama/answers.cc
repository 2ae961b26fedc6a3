#include "api/ollama/answers.h"

#include <fmt/format.h>

#include <chrono>

#include "api/models.h"
#include "api/number_text.h"
#include "api/ollama/dialect.h"

namespace pensieve::api::ollama {
namespace {

using Kind = service::GenerationEvent::Kind;

int64_t Nanoseconds(double seconds) { return static_cast<int64_t>(seconds * 1e9); }

// RFC 3339 in UTC with milliseconds.
std::string Now() {
  const auto since = std::chrono::system_clock::now().time_since_epoch();
  const int64_t milliseconds = std::chrono::duration_cast<std::chrono::milliseconds>(since).count();
  std::string text = ToTimestamp(milliseconds / 1000);
  text.insert(text.size() - 1, fmt::format(".{:03}", milliseconds % 1000));
  return text;
}

const char* DoneReason(service::StopReason reason) {
  const bool cut = reason == service::StopReason::kMaxTokens || reason == service::StopReason::kContextFull;
  return cut ? "length" : "stop";
}

Json ToLogprob(const service::TokenLogprob& token) {
  Json bytes = Json::array();
  for (const char c : token.bytes) bytes.push_back(static_cast<uint8_t>(c));
  return {{"token", token.bytes}, {"logprob", token.logprob}, {"bytes", std::move(bytes)}};
}

void AppendLogprobs(const std::vector<service::TokenLogprob>& tokens, Json& out) {
  for (const auto& token : tokens) {
    Json entry = ToLogprob(token);
    entry["top_logprobs"] = Json::array();
    for (const auto& other : token.top) entry["top_logprobs"].push_back(ToLogprob(other));
    out.push_back(std::move(entry));
  }
}

std::string Line(const Json& json) { return DumpJson(json) + "\n"; }

Json Details(const service::ModelDescription& model) {
  return {{"parent_model", ""},           {"format", model.path.ends_with(".gguf") ? "gguf" : "safetensors"},
          {"family", model.architecture}, {"families", Json::array({model.architecture})},
          {"parameter_size", ""},         {"quantization_level", model.quantization}};
}

Json Entry(const service::ModelDescription& model) {
  return {{"name", model.name},
          {"model", model.name},
          {"size", model.size_bytes},
          {"digest", ""},
          {"details", Details(model)}};
}

HttpReply ToReply(const Json& body) {
  HttpReply reply;
  reply.body = DumpJson(body);
  return reply;
}

}  // namespace

Json TextFormat::Head() const { return {{"model", options_.model}, {"created_at", Now()}}; }

Json TextFormat::Part(std::string_view text, std::string_view thinking, Json tool_calls) const {
  Json out = Head();
  if (!options_.chat) {
    out["response"] = text;
    if (!thinking.empty()) out["thinking"] = thinking;
    return out;
  }
  Json message = {{"role", "assistant"}, {"content", text}};
  if (!thinking.empty()) message["thinking"] = thinking;
  if (!tool_calls.empty()) message["tool_calls"] = std::move(tool_calls);
  out["message"] = std::move(message);
  return out;
}

Json TextFormat::Call() {
  // Arguments that are no JSON object are told as they were written, rather than lost.
  auto arguments = ParseJson(arguments_.empty() ? "{}" : arguments_);
  Json object = arguments.has_value() && arguments->is_object() ? *std::move(arguments) : Json{{"text", arguments_}};
  arguments_.clear();
  return {{"id", "call_" + call_.call_id},
          {"function", {{"index", calls_++}, {"name", call_.tool_name}, {"arguments", std::move(object)}}}};
}

Json TextFormat::Done(Json head, const service::GenerationEvent& event) const {
  const service::Usage& usage = event.usage;
  head["done"] = true;
  head["done_reason"] = DoneReason(event.stop_reason);
  head["total_duration"] = Nanoseconds(usage.total_s);
  head["load_duration"] = 0;
  head["prompt_eval_count"] = usage.prompt_tokens;
  head["prompt_eval_duration"] = Nanoseconds(usage.first_token_s);
  head["eval_count"] = usage.completion_tokens;
  head["eval_duration"] = Nanoseconds(std::max(0.0, usage.total_s - usage.first_token_s));
  return head;
}

void TextFormat::Add(size_t, const service::GenerationEvent& event) {
  if (options_.logprobs) AppendLogprobs(event.logprobs, logprobs_);
  switch (event.kind) {
    case Kind::kText: text_ += event.text; return;
    case Kind::kReasoning: thinking_ += event.text; return;
    case Kind::kToolCallStart: call_ = event; return;
    case Kind::kToolCallArguments: arguments_ += event.text; return;
    case Kind::kToolCallEnd: tool_calls_.push_back(Call()); return;
    case Kind::kDone: done_ = event; return;
    case Kind::kProgress:
    case Kind::kError:
    case Kind::kCancelled: return;
  }
}

Json TextFormat::Finish() {
  Json out = Done(Part(text_, thinking_, std::move(tool_calls_)), done_);
  if (options_.logprobs) out["logprobs"] = std::move(logprobs_);
  return out;
}

std::string TextFormat::Write(size_t, const service::GenerationEvent& event) {
  const auto line = [&](Json part) {
    part["done"] = false;
    if (options_.logprobs && !event.logprobs.empty()) AppendLogprobs(event.logprobs, part["logprobs"]);
    return Line(part);
  };
  switch (event.kind) {
    case Kind::kProgress: return "";
    case Kind::kText:
      return event.text.empty() && event.logprobs.empty() ? "" : line(Part(event.text, "", Json::array()));
    case Kind::kReasoning: return event.text.empty() ? "" : line(Part("", event.text, Json::array()));
    case Kind::kToolCallStart: call_ = event; return "";
    case Kind::kToolCallArguments: arguments_ += event.text; return "";
    case Kind::kToolCallEnd: return line(Part("", "", Json::array({Call()})));
    case Kind::kDone: return Line(Done(Part("", "", Json::array()), event));
    case Kind::kError: return Line(ErrorBody(event.error, kDialect.errors, ""));
    case Kind::kCancelled:
      return Line(
          ErrorBody(Unavailable("the request was cancelled because the server is shutting down"), kDialect.errors, ""));
  }
  PENSIEVE_UNREACHABLE();
}

HttpReply ToLoadReply(const TextOptions& options, bool unload) {
  Json out = {{"model", options.model}, {"created_at", Now()}};
  if (options.chat) out["message"] = {{"role", "assistant"}, {"content", ""}};
  else out["response"] = "";
  out["done"] = true;
  out["done_reason"] = unload ? "unload" : "load";
  return ToReply(out);
}

HttpReply ToEmbedReply(const service::EmbedResult& result, const std::string& model) {
  HttpReply reply;
  std::string& out = reply.body;
  out = fmt::format("{{\"model\":{},\"embeddings\":[", DumpJson(model));
  for (size_t i = 0; i < result.embeddings.size(); ++i) {
    if (i != 0) out += ',';
    AppendJsonFloats(result.embeddings[i], out);
  }
  out += fmt::format("],\"total_duration\":{},\"load_duration\":0,\"prompt_eval_count\":{}}}",
                     Nanoseconds(result.total_s), result.prompt_tokens);
  return reply;
}

HttpReply ToEmbeddingsReply(const service::EmbedResult& result) {
  HttpReply reply;
  reply.body = "{\"embedding\":";
  AppendJsonFloats(result.embeddings.front(), reply.body);
  reply.body += '}';
  return reply;
}

Json ToTags(const std::vector<service::ModelDescription>& models) {
  Json list = Json::array();
  for (const auto& model : models) {
    Json entry = Entry(model);
    entry["modified_at"] = ToTimestamp(model.created_unix_s);
    list.push_back(std::move(entry));
  }
  return {{"models", std::move(list)}};
}

Json ToRunning(const std::vector<service::ModelDescription>& models) {
  // Models stay loaded for as long as the server runs, which its clients read as a time far away.
  constexpr int64_t kFarAway = 253402300799;  // the last second of the year 9999
  Json list = Json::array();
  for (const auto& model : models) {
    Json entry = Entry(model);
    entry["expires_at"] = ToTimestamp(kFarAway);
    entry["size_vram"] = 0;
    entry["context_length"] = model.generates ? model.context_max : model.embed_context_max;
    list.push_back(std::move(entry));
  }
  return {{"models", std::move(list)}};
}

Json ToShow(const service::ModelDescription& model) {
  Json capabilities = Json::array();
  if (model.generates) capabilities.push_back("completion");
  if (model.supports_tools) capabilities.push_back("tools");
  if (model.supports_thinking) capabilities.push_back("thinking");
  if (model.embeds) capabilities.push_back("embedding");
  const int64_t context = model.generates ? model.context_max : model.embed_context_max;
  Json facts = {{"general.architecture", model.architecture}, {"general.basename", model.display_name}};
  facts[model.architecture + ".context_length"] = context;
  if (model.embeds) facts[model.architecture + ".embedding_length"] = model.dimension;
  return {{"modelfile", ""},
          {"parameters", ""},
          {"template", model.chat_template},
          {"details", Details(model)},
          {"model_info", std::move(facts)},
          {"capabilities", std::move(capabilities)},
          {"modified_at", ToTimestamp(model.created_unix_s)}};
}

}  // namespace pensieve::api::ollama
