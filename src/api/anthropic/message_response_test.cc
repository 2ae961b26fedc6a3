#include "api/anthropic/message_response.h"

#include <gtest/gtest.h>

#include "api/errors.h"
#include "base/random_id.h"

namespace pensieve::api::anthropic {
namespace {

using service::GenerationEvent;
using Kind = GenerationEvent::Kind;

GenerationEvent Piece(Kind kind, std::string text) {
  GenerationEvent event;
  event.kind = kind;
  event.text = std::move(text);
  return event;
}

GenerationEvent CallStart(std::string id, std::string name) {
  GenerationEvent event;
  event.kind = Kind::kToolCallStart;
  event.call_id = std::move(id);
  event.tool_name = std::move(name);
  return event;
}

GenerationEvent Done(service::StopReason reason, std::string stop_sequence = "") {
  GenerationEvent event;
  event.kind = Kind::kDone;
  event.stop_reason = reason;
  event.stop_sequence = std::move(stop_sequence);
  event.usage = {.prompt_tokens = 12, .cached_prompt_tokens = 8, .completion_tokens = 5, .reasoning_tokens = 2};
  return event;
}

MessageOptions Options() { return {.id = "msg_1", .model = "claude-x", .request_id = "req_1", .prompt_tokens = 12}; }

constexpr char kUsageTail[] = R"("cache_creation":{"ephemeral_5m_input_tokens":0,"ephemeral_1h_input_tokens":0},)";
const std::string kStart =
    R"(event: message_start
data: {"type":"message_start","message":{"id":"msg_1","type":"message","role":"assistant","model":"claude-x","content":[],"stop_reason":null,"stop_sequence":null,"stop_details":null,"container":null,"usage":{"input_tokens":12,"cache_creation_input_tokens":0,"cache_read_input_tokens":0,)" +
    std::string(kUsageTail) +
    R"("output_tokens":0,"output_tokens_details":{"thinking_tokens":0},"server_tool_use":null,"service_tier":"standard","inference_geo":null,"speed":null}}}

event: ping
data: {"type":"ping"}

)";

std::string End(const std::string& stop_reason, const std::string& stop_sequence = "null") {
  return R"(event: message_delta
data: {"type":"message_delta","delta":{"stop_reason":")" +
         stop_reason + R"(","stop_sequence":)" + stop_sequence +
         R"(,"stop_details":null,"container":null},"usage":{"input_tokens":4,"cache_creation_input_tokens":0,"cache_read_input_tokens":8,)" +
         kUsageTail +
         R"("output_tokens":5,"output_tokens_details":{"thinking_tokens":2},"server_tool_use":null,"service_tier":"standard","inference_geo":null,"speed":null}}

event: message_stop
data: {"type":"message_stop"}

)";
}

std::string Stream(const std::vector<GenerationEvent>& events, MessageOptions options = Options()) {
  MessageStreamWriter writer(std::move(options));
  std::string out = writer.Start();
  for (const auto& event : events) out += writer.Write(event);
  EXPECT_TRUE(writer.finished());
  return out;
}

TEST(MessageStream, Text) {
  EXPECT_EQ(Stream({Piece(Kind::kProgress, ""), Piece(Kind::kText, "Hel"), Piece(Kind::kText, ""),
                    Piece(Kind::kText, "lo \"é\n"), Done(service::StopReason::kEnd)}),
            kStart + R"(event: content_block_start
data: {"type":"content_block_start","index":0,"content_block":{"type":"text","text":"","citations":null}}

event: content_block_delta
data: {"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":"Hel"}}

event: content_block_delta
data: {"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":"lo \"é\n"}}

event: content_block_stop
data: {"type":"content_block_stop","index":0}

)" + End("end_turn"));
}

TEST(MessageStream, ThinkingTextAndTwoTools) {
  const std::string signature = ThinkingSignature("Hm, ok");
  EXPECT_FALSE(signature.empty());
  EXPECT_EQ(Stream({Piece(Kind::kReasoning, "Hm, "), Piece(Kind::kReasoning, "ok"), Piece(Kind::kText, "I call."),
                    CallStart("a1", "Read"), Piece(Kind::kToolCallArguments, "{\"p\": \"/a"),
                    Piece(Kind::kToolCallArguments, "\"}"), Piece(Kind::kToolCallEnd, ""), CallStart("b2", "Bash"),
                    Piece(Kind::kToolCallEnd, ""), Done(service::StopReason::kToolUse)}),
            kStart + R"(event: content_block_start
data: {"type":"content_block_start","index":0,"content_block":{"type":"thinking","thinking":"","signature":""}}

event: content_block_delta
data: {"type":"content_block_delta","index":0,"delta":{"type":"thinking_delta","thinking":"Hm, "}}

event: content_block_delta
data: {"type":"content_block_delta","index":0,"delta":{"type":"thinking_delta","thinking":"ok"}}

event: content_block_delta
data: {"type":"content_block_delta","index":0,"delta":{"type":"signature_delta","signature":")" +
                signature + R"("}}

event: content_block_stop
data: {"type":"content_block_stop","index":0}

event: content_block_start
data: {"type":"content_block_start","index":1,"content_block":{"type":"text","text":"","citations":null}}

event: content_block_delta
data: {"type":"content_block_delta","index":1,"delta":{"type":"text_delta","text":"I call."}}

event: content_block_stop
data: {"type":"content_block_stop","index":1}

event: content_block_start
data: {"type":"content_block_start","index":2,"content_block":{"type":"tool_use","id":"toolu_a1","name":"Read","input":{},"caller":{"type":"direct"}}}

event: content_block_delta
data: {"type":"content_block_delta","index":2,"delta":{"type":"input_json_delta","partial_json":""}}

event: content_block_delta
data: {"type":"content_block_delta","index":2,"delta":{"type":"input_json_delta","partial_json":"{\"p\": \"/a"}}

event: content_block_delta
data: {"type":"content_block_delta","index":2,"delta":{"type":"input_json_delta","partial_json":"\"}"}}

event: content_block_stop
data: {"type":"content_block_stop","index":2}

event: content_block_start
data: {"type":"content_block_start","index":3,"content_block":{"type":"tool_use","id":"toolu_b2","name":"Bash","input":{},"caller":{"type":"direct"}}}

event: content_block_delta
data: {"type":"content_block_delta","index":3,"delta":{"type":"input_json_delta","partial_json":""}}

event: content_block_stop
data: {"type":"content_block_stop","index":3}

)" + End("tool_use"));
}

TEST(MessageStream, OmittedThinkingKeepsTheBlockAndSignature) {
  MessageOptions options = Options();
  options.thinking_omitted = true;
  const std::string out = Stream({Piece(Kind::kReasoning, "secret"), Done(service::StopReason::kEnd)}, options);
  EXPECT_EQ(out.find("secret"), std::string::npos);
  EXPECT_NE(out.find(R"({"type":"thinking_delta","thinking":""})"), std::string::npos);
  EXPECT_NE(out.find("signature_delta"), std::string::npos);
}

TEST(MessageStream, StopReasons) {
  EXPECT_EQ(Stream({Done(service::StopReason::kEnd)}), kStart + End("end_turn"));
  EXPECT_EQ(Stream({Done(service::StopReason::kMaxTokens)}), kStart + End("max_tokens"));
  EXPECT_EQ(Stream({Done(service::StopReason::kStopSequence, "\n\"")}), kStart + End("stop_sequence", R"("\n\"")"));
  EXPECT_EQ(Stream({Done(service::StopReason::kContextFull)}), kStart + End("model_context_window_exceeded"));
}

TEST(MessageStream, ErrorsEndTheStream) {
  GenerationEvent error;
  error.kind = Kind::kError;
  error.error = Internal("the device was lost");
  EXPECT_EQ(Stream({Piece(Kind::kText, "a"), error}).substr(kStart.size()), R"(event: content_block_start
data: {"type":"content_block_start","index":0,"content_block":{"type":"text","text":"","citations":null}}

event: content_block_delta
data: {"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":"a"}}

event: error
data: {"type":"error","error":{"type":"api_error","message":"the device was lost"},"request_id":"req_1"}

)");
  EXPECT_NE(Stream({Piece(Kind::kCancelled, "")}).find(R"("type":"overloaded_error")"), std::string::npos);
}

TEST(MessageStream, KeepAliveLeavesNoTrace) {
  MessageStreamWriter writer(Options());
  EXPECT_EQ(MessageStreamWriter::Ping(), "event: ping\ndata: {\"type\":\"ping\"}\n\n");
  EXPECT_NE(writer.ClaudeKeepAlive().find(R"("stop_reason":null)"), std::string::npos);
  EXPECT_NE(writer.ClaudeKeepAlive().find(R"("output_tokens":0)"), std::string::npos);
}

TEST(MessageStream, BytesThatAreNoUtf8NeverBreakTheJson) {
  const std::string out = Stream({Piece(Kind::kText, "a\xff"), Done(service::StopReason::kEnd)});
  EXPECT_NE(out.find("a\xEF\xBF\xBD"), std::string::npos);
}

TEST(Message, HoldsEveryBlock) {
  MessageBuilder builder(Options());
  for (const auto& event :
       {Piece(Kind::kReasoning, "hm"), Piece(Kind::kText, "a"), Piece(Kind::kText, "b"), CallStart("1", "T"),
        Piece(Kind::kToolCallArguments, "{\"x\":1}"), Piece(Kind::kToolCallEnd, ""), CallStart("2", "U"),
        Piece(Kind::kToolCallArguments, "{\"x\":"), Done(service::StopReason::kToolUse)}) {
    builder.Add(event);
  }
  const Json message = builder.Finish();
  const Json expected = {
      {{"type", "thinking"}, {"thinking", "hm"}, {"signature", ThinkingSignature("hm")}},
      {{"type", "text"}, {"text", "ab"}, {"citations", nullptr}},
      {{"type", "tool_use"}, {"id", "toolu_1"}, {"name", "T"}, {"input", {{"x", 1}}}, {"caller", {{"type", "direct"}}}},
      {{"type", "tool_use"},
       {"id", "toolu_2"},
       {"name", "U"},
       {"input", {{"__unparsedToolInput", "{\"x\":"}}},
       {"caller", {{"type", "direct"}}}}};
  EXPECT_EQ(message["content"], expected) << DumpJson(message["content"]);
  EXPECT_EQ(message["id"], "msg_1");
  EXPECT_EQ(message["model"], "claude-x");
  EXPECT_EQ(message["stop_reason"], "tool_use");
  EXPECT_TRUE(message["stop_sequence"].is_null());
  const Json& usage = message["usage"];
  EXPECT_EQ(usage["input_tokens"].get<int>() + usage["cache_read_input_tokens"].get<int>() +
                usage["cache_creation_input_tokens"].get<int>(),
            12);
}

TEST(Message, EmptyAnswerHasNoContent) {
  MessageBuilder builder(Options());
  builder.Add(Done(service::StopReason::kStopSequence, "END"));
  const Json message = builder.Finish();
  EXPECT_EQ(message["content"], Json::array());
  EXPECT_EQ(message["stop_sequence"], "END");
}

TEST(Ids, NeverRepeat) {
  std::set<std::string> seen;
  for (int i = 0; i < 10'000; ++i) {
    const std::string id = NewId("msg_");
    ASSERT_EQ(id.size(), 28u);
    ASSERT_TRUE(seen.insert(id).second);
  }
}

}  // namespace
}  // namespace pensieve::api::anthropic
