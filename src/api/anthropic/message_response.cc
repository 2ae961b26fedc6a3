#include "api/anthropic/message_response.h"

#include <fmt/format.h>

#include "api/anthropic/dialect.h"
#include "base/base64.h"

namespace pensieve::api::anthropic {
namespace {

using Kind = service::GenerationEvent::Kind;

std::string Sse(std::string_view event, const Json& body) {
  return fmt::format("event: {}\ndata: {}\n\n", event, DumpJson(body));
}

Json EmptyMessage(const MessageOptions& options) {
  return {{"id", options.id},         {"type", "message"},        {"role", "assistant"},
          {"model", options.model},   {"content", Json::array()}, {"stop_reason", nullptr},
          {"stop_sequence", nullptr}, {"stop_details", nullptr},  {"container", nullptr}};
}

Json StopSequence(const service::GenerationEvent& done) {
  return done.stop_reason == service::StopReason::kStopSequence ? Json(done.stop_sequence) : Json(nullptr);
}

Json ToolUseBlock(const service::GenerationEvent& start) {
  return {{"type", "tool_use"},
          {"id", "toolu_" + start.call_id},
          {"name", start.tool_name},
          {"input", Json::object()},
          {"caller", {{"type", "direct"}}}};
}

// Arguments that are no JSON object reach the client under the name that Claude Code knows for them.
Json ToolInput(const std::string& arguments) {
  if (arguments.empty()) return Json::object();
  auto input = ParseJson(arguments);
  if (input.has_value() && input->is_object()) return *std::move(input);
  return {{"__unparsedToolInput", arguments}};
}

Status EndOf(const service::GenerationEvent& event) {
  if (event.kind == Kind::kError) return event.error;
  return Unavailable("the request was cancelled because the server is shutting down");
}

}  // namespace

std::string_view ToStopReason(service::StopReason reason) {
  switch (reason) {
    case service::StopReason::kEnd: return "end_turn";
    case service::StopReason::kMaxTokens: return "max_tokens";
    case service::StopReason::kStopSequence: return "stop_sequence";
    case service::StopReason::kToolUse: return "tool_use";
    case service::StopReason::kContextFull: return "model_context_window_exceeded";
  }
  PENSIEVE_UNREACHABLE();
}

Json ToUsage(const service::Usage& usage) {
  return {{"input_tokens", usage.prompt_tokens - usage.cached_prompt_tokens},
          {"cache_creation_input_tokens", 0},
          {"cache_read_input_tokens", usage.cached_prompt_tokens},
          {"cache_creation", {{"ephemeral_5m_input_tokens", 0}, {"ephemeral_1h_input_tokens", 0}}},
          {"output_tokens", usage.completion_tokens},
          {"output_tokens_details", {{"thinking_tokens", usage.reasoning_tokens}}},
          {"server_tool_use", nullptr},
          {"service_tier", "standard"},
          {"inference_geo", nullptr},
          {"speed", nullptr}};
}

std::string ThinkingSignature(std::string_view thinking) {
  uint64_t hash = 0xcbf29ce484222325u;  // FNV-1a
  for (const char c : thinking) hash = (hash ^ static_cast<uint8_t>(c)) * 0x100000001b3u;
  return EncodeBase64(fmt::format("local:{:016x}", hash));
}

MessageBuilder::MessageBuilder(MessageOptions options) : options_(std::move(options)) {}

void MessageBuilder::OpenBlock(const char* type) {
  if (open_type_ == type) return;
  CloseBlock();
  open_type_ = type;
}

void MessageBuilder::CloseBlock() {
  if (open_type_ == "text") {
    content_.push_back({{"type", "text"}, {"text", text_}, {"citations", nullptr}});
  } else if (open_type_ == "thinking") {
    content_.push_back({{"type", "thinking"},
                        {"thinking", options_.thinking_omitted ? "" : text_},
                        {"signature", ThinkingSignature(text_)}});
  } else if (open_type_ == "tool_use") {
    content_.back()["input"] = ToolInput(text_);
  }
  open_type_.clear();
  text_.clear();
}

void MessageBuilder::Add(const service::GenerationEvent& event) {
  switch (event.kind) {
    case Kind::kText:
    case Kind::kReasoning:
      if (event.text.empty()) return;
      OpenBlock(event.kind == Kind::kText ? "text" : "thinking");
      text_ += event.text;
      return;
    case Kind::kToolCallStart:
      CloseBlock();
      content_.push_back(ToolUseBlock(event));
      open_type_ = "tool_use";
      return;
    case Kind::kToolCallArguments: text_ += event.text; return;
    case Kind::kToolCallEnd: CloseBlock(); return;
    case Kind::kDone:
      CloseBlock();
      done_ = event;
      return;
    case Kind::kProgress:
    case Kind::kError:
    case Kind::kCancelled: return;
  }
}

Json MessageBuilder::Finish() {
  Json message = EmptyMessage(options_);
  message["content"] = std::move(content_);
  message["stop_reason"] = ToStopReason(done_.stop_reason);
  message["stop_sequence"] = StopSequence(done_);
  message["diagnostics"] = nullptr;
  message["usage"] = ToUsage(done_.usage);
  return message;
}

MessageStreamWriter::MessageStreamWriter(MessageOptions options) : options_(std::move(options)) {}

std::string MessageStreamWriter::Start() {
  Json message = EmptyMessage(options_);
  message["usage"] = ToUsage({.prompt_tokens = options_.prompt_tokens});
  return Sse("message_start", {{"type", "message_start"}, {"message", std::move(message)}}) + Ping();
}

std::string MessageStreamWriter::Ping() { return "event: ping\ndata: {\"type\":\"ping\"}\n\n"; }

std::string MessageStreamWriter::ClaudeKeepAlive() const {
  return Sse("message_delta", {{"type", "message_delta"},
                               {"delta", {{"stop_reason", nullptr}, {"stop_sequence", nullptr}}},
                               {"usage", ToUsage({.prompt_tokens = options_.prompt_tokens})}});
}

std::string MessageStreamWriter::Delta(Json delta) const {
  return Sse("content_block_delta", {{"type", "content_block_delta"}, {"index", index_}, {"delta", std::move(delta)}});
}

std::string MessageStreamWriter::OpenBlock(std::string_view type, Json block) {
  if (open_type_ == type && type != "tool_use") return "";
  std::string out = CloseBlock();
  open_type_ = type;
  ++index_;
  return out + Sse("content_block_start",
                   {{"type", "content_block_start"}, {"index", index_}, {"content_block", std::move(block)}});
}

std::string MessageStreamWriter::CloseBlock() {
  if (open_type_.empty()) return "";
  std::string out;
  if (open_type_ == "thinking") {
    out = Delta({{"type", "signature_delta"}, {"signature", ThinkingSignature(thinking_)}});
    thinking_.clear();
  }
  open_type_.clear();
  return out + Sse("content_block_stop", {{"type", "content_block_stop"}, {"index", index_}});
}

std::string MessageStreamWriter::Write(const service::GenerationEvent& event) {
  std::string out;  // blocks are opened and closed before anything that names their index
  switch (event.kind) {
    case Kind::kProgress: return "";
    case Kind::kText:
      if (event.text.empty()) return "";
      out = OpenBlock("text", {{"type", "text"}, {"text", ""}, {"citations", nullptr}});
      return out + Delta({{"type", "text_delta"}, {"text", event.text}});
    case Kind::kReasoning:
      if (event.text.empty()) return "";
      out = OpenBlock("thinking", {{"type", "thinking"}, {"thinking", ""}, {"signature", ""}});
      thinking_ += event.text;
      return out + Delta({{"type", "thinking_delta"}, {"thinking", options_.thinking_omitted ? "" : event.text}});
    case Kind::kToolCallStart:
      out = OpenBlock("tool_use", ToolUseBlock(event));
      return out + Delta({{"type", "input_json_delta"}, {"partial_json", ""}});
    case Kind::kToolCallArguments: return Delta({{"type", "input_json_delta"}, {"partial_json", event.text}});
    case Kind::kToolCallEnd: return CloseBlock();
    case Kind::kDone: {
      finished_ = true;
      const Json delta = {{"stop_reason", ToStopReason(event.stop_reason)},
                          {"stop_sequence", StopSequence(event)},
                          {"stop_details", nullptr},
                          {"container", nullptr}};
      out = CloseBlock();
      out += Sse("message_delta", {{"type", "message_delta"}, {"delta", delta}, {"usage", ToUsage(event.usage)}});
      return out + Sse("message_stop", {{"type", "message_stop"}});
    }
    case Kind::kError:
    case Kind::kCancelled:
      // An answer cut short is never shown as a complete one: no stop reason is invented.
      finished_ = true;
      return Sse("error", ErrorBody(EndOf(event), kDialect.errors, options_.request_id));
  }
  PENSIEVE_UNREACHABLE();
}

}  // namespace pensieve::api::anthropic
