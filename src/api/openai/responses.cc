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
  Json content = Json::array();
  for (const auto& token : tokens) {
    Json entry = ChatLogprob(token);
    entry["top_logprobs"] = Json::array();
    for (const auto& other : token.top) entry["top_logprobs"].push_back(ChatLogprob(other));
    content.push_back(std::move(entry));
  }
  return {{"content", std::move(content)}, {"refusal", nullptr}};
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

CompletionBuilder::CompletionBuilder(CompletionOptions options) : options_(std::move(options)) {}

void CompletionBuilder::Add(const service::GenerationEvent& event) {
  logprobs_.insert(logprobs_.end(), event.logprobs.begin(), event.logprobs.end());
  switch (event.kind) {
    case Kind::kText: text_ += event.text; return;
    case Kind::kReasoning: reasoning_ += event.text; return;
    case Kind::kToolCallStart: tool_calls_.push_back(ToolCall(event)); return;
    case Kind::kToolCallArguments:
      tool_calls_.back()["function"]["arguments"].get_ref<std::string&>() += event.text;
      return;
    case Kind::kDone: done_ = event; return;
    case Kind::kProgress:
    case Kind::kToolCallEnd:
    case Kind::kError:
    case Kind::kCancelled: return;
  }
}

Json CompletionBuilder::Finish() {
  Json choice = {{"index", 0}};
  if (options_.chat) {
    Json message = {{"role", "assistant"},
                    {"content", text_.empty() && !tool_calls_.empty() ? Json(nullptr) : Json(text_)},
                    {"refusal", nullptr}};
    if (!reasoning_.empty()) message["reasoning_content"] = reasoning_;
    if (!tool_calls_.empty()) message["tool_calls"] = std::move(tool_calls_);
    choice["message"] = std::move(message);
    choice["logprobs"] = options_.logprobs ? ChatLogprobs(logprobs_) : Json(nullptr);
  } else {
    choice["text"] = text_;
    choice["logprobs"] = options_.logprobs ? TextLogprobs(logprobs_, 0) : Json(nullptr);
  }
  choice["finish_reason"] = ToFinishReason(done_.stop_reason);
  Json out = Head(options_, options_.chat ? "chat.completion" : "text_completion");
  out["choices"] = Json::array({std::move(choice)});
  out["usage"] = ToUsage(done_.usage);
  out["system_fingerprint"] = nullptr;
  return out;
}

CompletionStreamWriter::CompletionStreamWriter(CompletionOptions options) : options_(std::move(options)) {}

std::string CompletionStreamWriter::Chunk(Json choice) const {
  Json chunk = Head(options_, options_.chat ? "chat.completion.chunk" : "text_completion");
  chunk["system_fingerprint"] = nullptr;
  chunk["choices"] = Json::array({std::move(choice)});
  if (options_.include_usage) chunk["usage"] = nullptr;
  return Sse(chunk);
}

std::string CompletionStreamWriter::DeltaChunk(Json delta, const service::GenerationEvent& event) const {
  Json choice = {{"index", 0}, {"delta", std::move(delta)}};
  choice["logprobs"] = options_.logprobs && !event.logprobs.empty() ? ChatLogprobs(event.logprobs) : Json(nullptr);
  choice["finish_reason"] = nullptr;
  return Chunk(std::move(choice));
}

std::string CompletionStreamWriter::TextChunk(const service::GenerationEvent& event) {
  if (event.text.empty() && event.logprobs.empty()) return "";
  if (options_.chat) return DeltaChunk({{"content", event.text}}, event);
  Json choice = {{"index", 0}, {"text", event.text}};
  choice["logprobs"] = options_.logprobs ? TextLogprobs(event.logprobs, text_offset_) : Json(nullptr);
  choice["finish_reason"] = nullptr;
  text_offset_ += event.text.size();
  return Chunk(std::move(choice));
}

std::string CompletionStreamWriter::Start() {
  if (!options_.chat) return "";
  return DeltaChunk({{"role", "assistant"}, {"content", ""}}, {});
}

std::string CompletionStreamWriter::Ping() { return ": keep-alive\n\n"; }

std::string CompletionStreamWriter::Done(const service::GenerationEvent& event) const {
  Json choice = {{"index", 0}};
  if (options_.chat) choice["delta"] = Json::object();
  else choice["text"] = "";
  choice["logprobs"] = nullptr;
  choice["finish_reason"] = ToFinishReason(event.stop_reason);
  std::string out = Chunk(std::move(choice));
  if (options_.include_usage) {
    Json chunk = Head(options_, options_.chat ? "chat.completion.chunk" : "text_completion");
    chunk["system_fingerprint"] = nullptr;
    chunk["choices"] = Json::array();
    chunk["usage"] = ToUsage(event.usage);
    out += Sse(chunk);
  }
  return out + "data: [DONE]\n\n";
}

std::string CompletionStreamWriter::Write(const service::GenerationEvent& event) {
  switch (event.kind) {
    case Kind::kProgress:
    case Kind::kToolCallEnd: return "";
    case Kind::kText: return TextChunk(event);
    case Kind::kReasoning: return event.text.empty() ? "" : DeltaChunk({{"reasoning_content", event.text}}, event);
    case Kind::kToolCallStart: {
      Json call = {{"index", tool_calls_++}};
      call.update(ToolCall(event));
      return DeltaChunk({{"tool_calls", Json::array({std::move(call)})}}, event);
    }
    case Kind::kToolCallArguments: {
      Json call = {{"index", tool_calls_ - 1}, {"function", {{"arguments", event.text}}}};
      return DeltaChunk({{"tool_calls", Json::array({std::move(call)})}}, event);
    }
    case Kind::kDone: finished_ = true; return Done(event);
    case Kind::kError: finished_ = true; return Sse(ErrorBody(event.error, kDialect.errors, ""));
    case Kind::kCancelled:
      finished_ = true;
      return Sse(ErrorBody(Unavailable("the request was cancelled because the server is shutting down"),
                           kDialect.errors, ""));
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
