// POST /v1/responses: items to turns, and events in their order.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "api/openai/response_answer.h"
#include "api/openai/response_request.h"

namespace pensieve::api::openai {
namespace {

using ::testing::ElementsAre;
using Kind = service::GenerationEvent::Kind;

Json Body(const char* changes) {
  Json body = {{"model", "m"}, {"input", "hi"}};
  body.update(*ParseJson(changes));
  return body;
}

ResponseRequest Translate(const char* changes, const Json& history = Json::array()) {
  auto request = FromResponses(Body(changes), history, "r");
  EXPECT_TRUE(request.has_value()) << changes << request.error().ToString();
  return *std::move(request);
}

TEST(ResponsesRequest, ItemsBecomeTurns) {
  const auto request = Translate(R"({"instructions":"be brief","input":[
    {"role":"developer","content":"rules"},
    {"role":"user","content":[{"type":"input_text","text":"look"},{"type":"input_image","image_url":"u"}]},
    {"type":"reasoning","id":"rs_1","summary":[],"content":[{"type":"reasoning_text","text":"hm"}]},
    {"type":"message","role":"assistant","content":[{"type":"output_text","text":"I call"}]},
    {"type":"function_call","call_id":"c1","name":"f","arguments":"{\"a\":1}"},
    {"type":"function_call","call_id":"c2","name":"g","arguments":"{}"},
    {"type":"web_search_call","id":"ws_1"},
    {"type":"function_call_output","call_id":"c1","output":"42"},
    {"type":"function_call_output","call_id":"c2","output":[{"type":"input_text","text":"43"}]}]})");
  EXPECT_EQ(request.chat.messages, *ParseJson(R"([
    {"role":"system","content":"be brief"},{"role":"system","content":"rules"},
    {"role":"user","content":"look\n[an image that cannot be seen here]"},
    {"role":"assistant","content":"I call","reasoning_content":"hm","tool_calls":[
      {"id":"c1","type":"function","function":{"name":"f","arguments":"{\"a\":1}"}},
      {"id":"c2","type":"function","function":{"name":"g","arguments":"{}"}}]},
    {"role":"tool","tool_call_id":"c1","content":"42","name":"f"},
    {"role":"tool","tool_call_id":"c2","content":"43","name":"g"}])"));
  for (const Json& item : request.input) EXPECT_TRUE(item["id"].is_string());
}

TEST(ResponsesRequest, FieldsAreRead) {
  const auto request = Translate(R"({"stream":true,"store":false,"max_output_tokens":5,"temperature":0.5,
    "tools":[{"type":"web_search"},{"type":"function","name":"f","parameters":{"type":"object"},"strict":true}],
    "tool_choice":{"type":"function","name":"f"},"reasoning":{"effort":"low"},"metadata":{"k":"v"},
    "text":{"format":{"type":"json_schema","name":"n","schema":{"type":"array"}}},
    "include":["reasoning.encrypted_content","message.output_text.logprobs"]})");
  EXPECT_TRUE(request.stream && !request.store && request.encrypted_reasoning && request.logprobs);
  EXPECT_EQ(request.chat.new_tokens_max, 5);
  EXPECT_EQ(request.chat.tools.size(), 1u);
  EXPECT_EQ(request.chat.tool_choice, service::ToolChoice::kNamed);
  EXPECT_EQ(request.chat.effort, "low");
  EXPECT_EQ(request.chat.output_schema["type"], "array");
  EXPECT_EQ(request.settings["tools"].size(), 2u);
  EXPECT_EQ(request.settings["metadata"]["k"], "v");
}

TEST(ResponsesRequest, HistoryComesBehindTheInstructions) {
  const Json history = *ParseJson(R"([{"type":"message","role":"user","content":"first"},
    {"type":"message","role":"assistant","content":[{"type":"output_text","text":"answer"}]}])");
  const auto request = Translate(R"({"instructions":"new rules"})", history);
  std::vector<std::string> texts;
  for (const Json& turn : request.chat.messages) texts.push_back(turn["content"]);
  EXPECT_THAT(texts, ElementsAre("new rules", "first", "answer", "hi"));
}

TEST(ResponsesRequest, SealedReasoningComesBack) {
  Json body = Body("{}");
  body["input"] =
      Json::array({{{"type", "reasoning"}, {"summary", Json::array()}, {"encrypted_content", SealReasoning("hm")}},
                   {{"type", "reasoning"}, {"encrypted_content", "of another vendor"}},
                   {{"role", "user"}, {"content", "go on"}}});
  const auto request = FromResponses(body, Json::array(), "r");
  ASSERT_TRUE(request.has_value()) << request.error().ToString();
  EXPECT_EQ(request->chat.messages[0]["reasoning_content"], "hm");
  EXPECT_EQ(request->chat.messages.size(), 2u);
}

TEST(ResponsesRequest, ErrorsNameTheField) {
  const std::pair<const char*, const char*> cases[] = {
      {R"({"model":null})", "model: Field required"},
      {R"({"input":null})", "input: Field required"},
      {R"({"input":[]})", "input: at least one item is required"},
      {R"({"input":[1]})", "input.0: must be an object"},
      {R"({"input":[{"role":"king","content":""}]})",
       "input.0.role: must be one of user, assistant, system, developer"},
      {R"({"input":[{"type":"function_call","call_id":"1"}]})", "input.0.name: Field required"},
      {R"({"background":true})", "background: answers are only made while their client waits"},
      {R"({"conversation":"c"})", "conversation: is not kept here; use previous_response_id"},
      {R"({"tool_choice":"required"})", "tool_choice: a call needs tools"},
      {R"({"tool_choice":7})", "tool_choice: must be \"auto\", \"none\", \"required\" or an object"},
      {R"({"text":{"format":{"type":"json_schema"}}})", "text.format.schema: Field required"},
      {R"({"text":{"format":{"type":"yaml"}}})",
       "text.format.type: must be \"text\", \"json_object\" or \"json_schema\""},
  };
  for (const auto& [changes, message] : cases) {
    const auto request = FromResponses(Body(changes), Json::array(), "r");
    ASSERT_FALSE(request.has_value()) << changes;
    EXPECT_EQ(request.error().message(), message) << changes;
  }
}

service::GenerationEvent Event(Kind kind, const std::string& text = "") {
  service::GenerationEvent event;
  event.kind = kind;
  event.text = text;
  event.call_id = "1";
  event.tool_name = "f";
  event.usage = {.prompt_tokens = 7, .cached_prompt_tokens = 2, .completion_tokens = 3};
  return event;
}

std::vector<Json> Events(const std::string& stream) {
  std::vector<Json> events;
  for (size_t at = stream.find("data: "); at != std::string::npos; at = stream.find("data: ", at + 1))
    events.push_back(*ParseJson(stream.substr(at + 6, stream.find("\n\n", at) - at - 6)));
  return events;
}

ResponseOptions Options(bool stream) {
  return {
      .id = "resp_1", .model = "m", .stream = stream, .owner = "o", .input = Json::array(), .settings = Json::object()};
}

TEST(ResponsesAnswer, EventsInOrder) {
  RecordStore store({});
  ResponseFormat format(Options(true), store);
  std::string out = format.Start();
  for (const auto& [kind, text] : std::vector<std::pair<Kind, std::string>>{{Kind::kReasoning, "hm"},
                                                                            {Kind::kText, "h"},
                                                                            {Kind::kText, "i"},
                                                                            {Kind::kToolCallStart, ""},
                                                                            {Kind::kToolCallArguments, "{}"},
                                                                            {Kind::kToolCallEnd, ""},
                                                                            {Kind::kDone, ""}})
    out += format.Write(0, Event(kind, text));
  std::vector<std::string> types;
  int64_t number = 0;
  for (const Json& event : Events(out)) {
    types.push_back(event["type"]);
    EXPECT_EQ(event["sequence_number"], number++);
  }
  EXPECT_THAT(
      types, ElementsAre("response.created", "response.in_progress", "response.output_item.added",
                         "response.content_part.added", "response.reasoning_text.delta", "response.reasoning_text.done",
                         "response.content_part.done", "response.output_item.done", "response.output_item.added",
                         "response.content_part.added", "response.output_text.delta", "response.output_text.delta",
                         "response.output_text.done", "response.content_part.done", "response.output_item.done",
                         "response.output_item.added", "response.function_call_arguments.delta",
                         "response.function_call_arguments.done", "response.output_item.done", "response.completed"));
  const Json response = Events(out).back()["response"];
  EXPECT_EQ(response["status"], "completed");
  EXPECT_EQ(response["output"][1]["content"][0]["text"], "hi");
  EXPECT_EQ(response["output"][2]["arguments"], "{}");
  EXPECT_EQ(response["usage"]["total_tokens"], 10);
  EXPECT_EQ(FindResponse(store, "o", "resp_1")->response, response);
}

TEST(ResponsesAnswer, CutAnswersAreIncomplete) {
  RecordStore store({});
  auto options = Options(false);
  options.store = false;
  ResponseFormat format(options, store);
  format.Add(0, Event(Kind::kText, "hi"));
  auto done = Event(Kind::kDone);
  done.stop_reason = service::StopReason::kMaxTokens;
  format.Add(0, done);
  const Json response = format.Finish();
  EXPECT_EQ(response["status"], "incomplete");
  EXPECT_EQ(response["incomplete_details"]["reason"], "max_output_tokens");
  EXPECT_EQ(response["output"][0]["status"], "incomplete");
  EXPECT_EQ(store.records(), 0);
}

TEST(ResponsesAnswer, FailuresAreNeitherCompletedNorKept) {
  RecordStore store({});
  ResponseFormat format(Options(true), store);
  format.Start();
  auto failed = Event(Kind::kError);
  failed.error = Internal("lost");
  const auto events = Events(format.Write(0, failed));
  ASSERT_EQ(events.size(), 1u);
  EXPECT_EQ(events[0]["type"], "response.failed");
  EXPECT_EQ(events[0]["response"]["error"]["message"], "lost");
  EXPECT_EQ(store.records(), 0);
}

}  // namespace
}  // namespace pensieve::api::openai
