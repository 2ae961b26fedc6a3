#include "api/openai/responses.h"

#include <fmt/format.h>

#include "api/number_text.h"
#include "api/openai/dialect.h"

namespace pensieve::api::openai {
namespace {

using Kind = service::GenerationEvent::Kind;

Json Head(const CompletionOptions& options, const char* object) {
  return {{"id", options.id}, {"object", object}, {"created", options.created_unix_s}, {"model", options.model}};
}

Json ChatLogprob(const service::TokenLogprob& token) {
  Json bytes = Json::array();
  for (const char c : token.bytes) bytes.push_back(static_cast<uint8_t>(c));
  return {{"token", token.bytes}, {"logprob", token.logprob}, {"bytes", std::move(bytes)}};
}

Json ChatLogprobs(const std::vector<service::TokenLogprob>& tokens) {
  return {{"content", ChatLogprobList(tokens)}, {"refusal", nullptr}};
}

// The older, column-wise form of text completions. `offset` is where the first token's text begins.
Json TextLogprobs(const std::vector<service::TokenLogprob>& tokens, size_t offset) {
  Json names = Json::array(), values = Json::array(), tops = Json::array(), offsets = Json::array();
  for (const auto& token : tokens) {
    names.push_back(token.bytes);
    values.push_back(token.logprob);
    Json top = Json::object();
    for (const auto& other : token.top) top[other.bytes] = other.logprob;
    tops.push_back(std::move(top));
    offsets.push_back(offset);
    offset += token.bytes.size();
  }
  return {{"tokens", names}, {"token_logprobs", values}, {"top_logprobs", tops}, {"text_offset", offsets}};
}

std::string Sse(const Json& chunk) { return fmt::format("data: {}\n\n", DumpJson(chunk)); }

Json ToolCall(const service::GenerationEvent& start) {
  return {{"id", "call_" + start.call_id},
          {"type", "function"},
          {"function", {{"name", start.tool_name}, {"arguments", ""}}}};
}

}  // namespace

std::string_view ToFinishReason(service::StopReason reason) {
  switch (reason) {
    case service::StopReason::kEnd:
    case service::StopReason::kStopSequence: return "stop";
    case service::StopReason::kMaxTokens:
    case service::StopReason::kContextFull: return "length";
    case service::StopReason::kToolUse: return "tool_calls";
  }
  PENSIEVE_UNREACHABLE();
}

Json ToUsage(const service::Usage& usage) {
  return {{"prompt_tokens", usage.prompt_tokens},
          {"completion_tokens", usage.completion_tokens},
          {"total_tokens", usage.prompt_tokens + usage.completion_tokens},
          {"prompt_tokens_details", {{"cached_tokens", usage.cached_prompt_tokens}}},
          {"completion_tokens_details", {{"reasoning_tokens", usage.reasoning_tokens}}}};
}

Json ChatLogprobList(const std::vector<service::TokenLogprob>& tokens) {
  Json content = Json::array();
  for (const auto& token : tokens) {
    Json entry = ChatLogprob(token);
    entry["top_logprobs"] = Json::array();
    for (const auto& other : token.top) entry["top_logprobs"].push_back(ChatLogprob(other));
    content.push_back(std::move(entry));
  }
  return content;
}

void UsageSum::Add(size_t choice, const service::Usage& usage) {
  if (choice % choices_per_prompt_ == 0) {
    total_.prompt_tokens += usage.prompt_tokens;
    total_.cached_prompt_tokens += usage.cached_prompt_tokens;
  }
  total_.completion_tokens += usage.completion_tokens;
  total_.reasoning_tokens += usage.reasoning_tokens;
}

CompletionBuilder::CompletionBuilder(CompletionOptions options)
    : options_(std::move(options)), choices_(options_.choices), usage_(options_) {}

void CompletionBuilder::Add(size_t index, const service::GenerationEvent& event) {
  Choice& choice = choices_[index];
  choice.logprobs.insert(choice.logprobs.end(), event.logprobs.begin(), event.logprobs.end());
  switch (event.kind) {
    case Kind::kText: choice.text += event.text; return;
    case Kind::kReasoning: choice.reasoning += event.text; return;
    case Kind::kToolCallStart: choice.tool_calls.push_back(ToolCall(event)); return;
    case Kind::kToolCallArguments:
      choice.tool_calls.back()["function"]["arguments"].get_ref<std::string&>() += event.text;
      return;
    case Kind::kDone:
      choice.stop_reason = event.stop_reason;
      usage_.Add(index, event.usage);
      return;
    case Kind::kProgress:
    case Kind::kToolCallEnd:
    case Kind::kError:
    case Kind::kCancelled: return;
  }
}

Json CompletionBuilder::ToChoice(size_t index) {
  Choice& choice = choices_[index];
  Json out = {{"index", index}};
  if (options_.chat) {
    Json message = {{"role", "assistant"},
                    {"content", choice.text.empty() && !choice.tool_calls.empty() ? Json(nullptr) : Json(choice.text)},
                    {"refusal", nullptr}};
    if (!choice.reasoning.empty()) message["reasoning_content"] = choice.reasoning;
    if (!choice.tool_calls.empty()) message["tool_calls"] = std::move(choice.tool_calls);
    out["message"] = std::move(message);
    out["logprobs"] = options_.logprobs ? ChatLogprobs(choice.logprobs) : Json(nullptr);
  } else {
    out["text"] = choice.text;
    out["logprobs"] = options_.logprobs ? TextLogprobs(choice.logprobs, 0) : Json(nullptr);
  }
  out["finish_reason"] = ToFinishReason(choice.stop_reason);
  return out;
}

Json CompletionBuilder::Finish() {
  Json out = Head(options_, options_.chat ? "chat.completion" : "text_completion");
  out["choices"] = Json::array();
  for (size_t i = 0; i < choices_.size(); ++i) out["choices"].push_back(ToChoice(i));
  out["usage"] = ToUsage(usage_.total());
  out["system_fingerprint"] = nullptr;
  return out;
}

CompletionStreamWriter::CompletionStreamWriter(CompletionOptions options)
    : options_(std::move(options)), choices_(options_.choices), open_(options_.choices), usage_(options_) {}

std::string CompletionStreamWriter::Chunk(Json choice) const {
  Json chunk = Head(options_, options_.chat ? "chat.completion.chunk" : "text_completion");
  chunk["system_fingerprint"] = nullptr;
  chunk["choices"] = Json::array({std::move(choice)});
  if (options_.include_usage) chunk["usage"] = nullptr;
  return Sse(chunk);
}

std::string CompletionStreamWriter::DeltaChunk(size_t index, Json delta, const service::GenerationEvent& event) const {
  Json choice = {{"index", index}, {"delta", std::move(delta)}};
  choice["logprobs"] = options_.logprobs && !event.logprobs.empty() ? ChatLogprobs(event.logprobs) : Json(nullptr);
  choice["finish_reason"] = nullptr;
  return Chunk(std::move(choice));
}

std::string CompletionStreamWriter::TextChunk(size_t index, const service::GenerationEvent& event) {
  if (event.text.empty() && event.logprobs.empty()) return "";
  if (options_.chat) return DeltaChunk(index, {{"content", event.text}}, event);
  size_t& offset = choices_[index].text_offset;
  Json choice = {{"index", index}, {"text", event.text}};
  choice["logprobs"] = options_.logprobs ? TextLogprobs(event.logprobs, offset) : Json(nullptr);
  choice["finish_reason"] = nullptr;
  offset += event.text.size();
  return Chunk(std::move(choice));
}

std::string CompletionStreamWriter::Start() {
  std::string out;
  for (size_t i = 0; options_.chat && i < choices_.size(); ++i)
    out += DeltaChunk(i, {{"role", "assistant"}, {"content", ""}}, {});
  return out;
}

std::string CompletionStreamWriter::Ping() { return ": keep-alive\n\n"; }

std::string CompletionStreamWriter::Done(size_t index, const service::GenerationEvent& event) {
  Json choice = {{"index", index}};
  if (options_.chat) choice["delta"] = Json::object();
  else choice["text"] = "";
  choice["logprobs"] = nullptr;
  choice["finish_reason"] = ToFinishReason(event.stop_reason);
  std::string out = Chunk(std::move(choice));
  usage_.Add(index, event.usage);
  finished_ = --open_ == 0;
  if (!finished_) return out;
  if (options_.include_usage) {
    Json chunk = Head(options_, options_.chat ? "chat.completion.chunk" : "text_completion");
    chunk["system_fingerprint"] = nullptr;
    chunk["choices"] = Json::array();
    chunk["usage"] = ToUsage(usage_.total());
    out += Sse(chunk);
  }
  return out + "data: [DONE]\n\n";
}

std::string CompletionStreamWriter::Write(size_t index, const service::GenerationEvent& event) {
  int64_t& calls = choices_[index].tool_calls;
  switch (event.kind) {
    case Kind::kProgress:
    case Kind::kToolCallEnd: return "";
    case Kind::kText: return TextChunk(index, event);
    case Kind::kReasoning:
      return event.text.empty() ? "" : DeltaChunk(index, {{"reasoning_content", event.text}}, event);
    case Kind::kToolCallStart: {
      Json call = {{"index", calls++}};
      call.update(ToolCall(event));
      return DeltaChunk(index, {{"tool_calls", Json::array({std::move(call)})}}, event);
    }
    case Kind::kToolCallArguments: {
      Json call = {{"index", calls - 1}, {"function", {{"arguments", event.text}}}};
      return DeltaChunk(index, {{"tool_calls", Json::array({std::move(call)})}}, event);
    }
    case Kind::kDone: return Done(index, event);
    case Kind::kError: finished_ = true; return Sse(ErrorBody(event.error, kDialect.errors, ""));
    case Kind::kCancelled:
      finished_ = true;
      return Sse(
          ErrorBody(Unavailable("the request was cancelled because the server is shutting down"), kDialect.errors, ""));
  }
  PENSIEVE_UNREACHABLE();
}

HttpReply ToEmbeddingsReply(const service::EmbedResult& result, bool base64) {
  HttpReply reply;
  std::string& out = reply.body;
  size_t values = 0;
  for (const auto& row : result.embeddings) values += row.size();
  out.reserve(values * (base64 ? 6 : 13) + result.embeddings.size() * 64 + 256);
  out = "{\"object\":\"list\",\"data\":[";
  for (size_t i = 0; i < result.embeddings.size(); ++i) {
    out += fmt::format("{}{{\"object\":\"embedding\",\"index\":{},\"embedding\":", i == 0 ? "" : ",", i);
    if (base64) {
      out += '"';
      out += Base64Floats(result.embeddings[i]);
      out += '"';
    } else {
      AppendJsonFloats(result.embeddings[i], out);
    }
    if (i < result.tokens.size() && result.tokens[i].truncated()) {
      out += fmt::format(",\"truncated\":{{\"tokens\":{},\"used\":{}}}", result.tokens[i].seen, result.tokens[i].used);
    }
    out += '}';
  }
  out += fmt::format("],\"model\":{},\"usage\":{{\"prompt_tokens\":{},\"total_tokens\":{}}}}}",
                     DumpJson(result.model_name), result.prompt_tokens, result.prompt_tokens);
  return reply;
}

}  // namespace pensieve::api::openai
