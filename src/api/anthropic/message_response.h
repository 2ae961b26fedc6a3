// From generation events to Anthropic's answer: one Message object, or its exact sequence of server-sent events.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "base/json.h"
#include "service/service.h"

namespace pensieve::api::anthropic {

struct MessageOptions {
  std::string id = {};            // "msg_..." from NewId
  std::string model = {};         // exactly as the request spelled it: clients drop thinking of a foreign model
  std::string request_id = {};    // for error events
  int64_t prompt_tokens = 0;      // known before the first event
  bool thinking_omitted = false;  // thinking blocks without their text
};

// "end_turn", "max_tokens", "stop_sequence", "tool_use", "model_context_window_exceeded".
std::string_view ToStopReason(service::StopReason reason);

// The full usage object. Its three prompt figures are disjoint: their sum is the whole prompt.
Json ToUsage(const service::Usage& usage);

// What stands in `signature` of a thinking block: opaque, never empty, the same for the same text.
std::string ThinkingSignature(std::string_view thinking);

// Collects the events of one generation into a Message. Feed every event up to kDone; not for errors.
class MessageBuilder {
 public:
  explicit MessageBuilder(MessageOptions options);
  void Add(const service::GenerationEvent& event);
  // Valid after kDone.
  Json Finish();

 private:
  void OpenBlock(const char* type);
  void CloseBlock();

  const MessageOptions options_;
  Json content_ = Json::array();
  std::string text_;       // of the open block
  std::string open_type_;  // "", "text", "thinking" or "tool_use"
  service::GenerationEvent done_;
};

// Writes the event stream. Each call returns bytes to send, possibly none; each event is whole within them. One block
// is open at a time and indices rise from 0. Not thread-safe.
class MessageStreamWriter {
 public:
  explicit MessageStreamWriter(MessageOptions options);
  // message_start and the first ping: sent as soon as the request is accepted.
  std::string Start();
  // kDone ends with message_stop, kError and kCancelled with an error event; nothing may follow.
  std::string Write(const service::GenerationEvent& event);
  // Keep-alive for silent stretches; every 10 to 15 s.
  static std::string Ping();
  // A message_delta without stop reason: what older Claude Code counts as life during a long prefill. Only for clients
  // whose User-Agent begins with "claude-cli/", every 60 s; others may take it for the end.
  std::string ClaudeKeepAlive() const;
  bool finished() const { return finished_; }

 private:
  std::string OpenBlock(std::string_view type, Json block);
  std::string CloseBlock();
  std::string Delta(Json delta) const;

  const MessageOptions options_;
  int64_t index_ = -1;
  std::string open_type_;
  std::string thinking_;  // of the open thinking block
  bool finished_ = false;
};

}  // namespace pensieve::api::anthropic
