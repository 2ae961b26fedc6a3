#include "api/anthropic/messages_request.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/mapped_file.h"

namespace pensieve::api::anthropic {
namespace {

using testing::HasSubstr;

Json Body(const char* extra = "{}") {
  Json body = {{"model", "m"}, {"max_tokens", 16}, {"messages", {{{"role", "user"}, {"content", "hi"}}}}};
  body.update(*ParseJson(extra));
  return body;
}

MessagesRequest Translate(const Json& body) {
  auto request = FromMessagesRequest(body, {.request_id = "req_1"});
  EXPECT_TRUE(request.has_value()) << request.status().ToString();
  return request.has_value() ? *std::move(request) : MessagesRequest{};
}

std::string ErrorOf(const Json& body) {
  auto request = FromMessagesRequest(body, {});
  return request.has_value() ? "" : request.error().message();
}

TEST(MessagesRequest, AClaudeCodeTurnBecomesAConversation) {
  const auto text = ReadFile(PENSIEVE_SOURCE_DIR "/src/api/testdata/claude_code_turn.json", 1 << 20);
  ASSERT_TRUE(text.has_value());
  const auto request = Translate(*ParseJson(*text));
  EXPECT_TRUE(request.stream);
  EXPECT_TRUE(request.thinking_omitted);
  EXPECT_TRUE(request.chat.any_model);
  EXPECT_EQ(request.chat.model, "qwen3-coder-30b");
  EXPECT_EQ(request.chat.thinking, true);
  EXPECT_EQ(request.chat.effort, "high");
  EXPECT_EQ(request.chat.new_tokens_max, 32000);
  EXPECT_FALSE(request.chat.continue_final_message);
  const Json expected = *ParseJson(R"json([
    {"role": "system", "content": "You are a coding assistant.\n\nBe brief."},
    {"role": "user", "content": "<system-reminder>\nThe date is 2026-11-22.\n</system-reminder>\nList the files, then read a.txt."},
    {"role": "system", "content": "# Environment\nWorking directory: /tmp/demo"},
    {"role": "assistant", "content": "I look first.", "reasoning_content": "The user wants two things.", "tool_calls": [
      {"id": "toolu_01", "type": "function", "function": {"name": "Bash", "arguments": {"command": "ls", "description": "List files"}}},
      {"id": "toolu_02", "type": "function", "function": {"name": "ToolSearch", "arguments": {"query": "select:Read"}}}]},
    {"role": "tool", "tool_call_id": "toolu_01", "content": "a.txt\nb.png", "name": "Bash"},
    {"role": "tool", "tool_call_id": "toolu_02", "content": "<functions>\n<function>{\"description\":\"Reads a file\",\"name\":\"Read\",\"parameters\":{\"type\":\"object\",\"properties\":{\"file_path\":{\"type\":\"string\"}}}}</function>\n</functions>", "name": "ToolSearch"},
    {"role": "user", "content": "Go on."}
  ])json");
  EXPECT_EQ(request.chat.messages, expected) << DumpJson(request.chat.messages);
  ASSERT_EQ(request.chat.tools.size(), 2u);  // neither the deferred nor the server's tool
  EXPECT_EQ(request.chat.tools[0]["function"]["name"], "Bash");
  EXPECT_EQ(request.chat.tools[0]["function"]["parameters"].begin().key(), "$schema") << "key order is kept";
  EXPECT_EQ(request.chat.tools[1]["function"]["name"], "ToolSearch");
  ASSERT_EQ(request.chat.deferred_tools.size(), 1u);
  EXPECT_EQ(request.chat.deferred_tools[0]["function"]["name"], "Read");
}

TEST(MessagesRequest, CacheMarksAndArrayFormsChangeNothing) {
  const Json plain = Body();
  Json marked = Body();
  marked["messages"][0]["content"] = {{{"type", "text"}, {"text", "hi"}, {"cache_control", {{"type", "ephemeral"}}}}};
  marked["cache_control"] = {{"type", "ephemeral"}};
  EXPECT_EQ(Translate(plain).chat.messages, Translate(marked).chat.messages);
}

struct TurnsCase {
  const char* name;
  const char* messages;
  const char* turns;
};

class Turns : public testing::TestWithParam<TurnsCase> {};

TEST_P(Turns, AreTranslated) {
  Json body = Body();
  body["messages"] = *ParseJson(GetParam().messages);
  const auto expected = ParseJson(GetParam().turns);
  ASSERT_TRUE(expected.has_value());
  EXPECT_EQ(DumpJson(Translate(body).chat.messages), DumpJson(*expected));
}

INSTANTIATE_TEST_SUITE_P(
    All, Turns,
    testing::Values(
        TurnsCase{"neighbours", R"([{"role":"user","content":"a"},{"role":"user","content":"b"}])",
                  R"([{"role":"user","content":"a\n\nb"}])"},
        TurnsCase{
            "assistant_pieces",
            R"([{"role":"user","content":"a"},{"role":"assistant","content":[{"type":"text","text":"x"},{"type":"text","text":"y"}]},{"role":"user","content":"b"}])",
            R"([{"role":"user","content":"a"},{"role":"assistant","content":"xy"},{"role":"user","content":"b"}])"},
        TurnsCase{
            "answers_first",
            R"([{"role":"user","content":[{"type":"text","text":"t"},{"type":"tool_result","tool_use_id":"i"}]}])",
            R"([{"role":"tool","tool_call_id":"i","content":""},{"role":"user","content":"t"}])"},
        TurnsCase{
            "error_answer",
            R"([{"role":"user","content":[{"type":"tool_result","tool_use_id":"i","content":"no such file","is_error":true}]}])",
            R"([{"role":"tool","tool_call_id":"i","content":"Error: no such file"}])"},
        TurnsCase{
            "error_said_already",
            R"([{"role":"user","content":[{"type":"tool_result","tool_use_id":"i","content":"<tool_use_error>x</tool_use_error>","is_error":true}]}])",
            R"([{"role":"tool","tool_call_id":"i","content":"<tool_use_error>x</tool_use_error>"}])"},
        TurnsCase{
            "image_in_answer",
            R"([{"role":"user","content":[{"type":"tool_result","tool_use_id":"i","content":[{"type":"text","text":"shot"},{"type":"image","source":{"type":"base64","media_type":"image/png","data":"iVBO"}}]}]}])",
            R"([{"role":"tool","tool_call_id":"i","content":"shot\n[an image that cannot be seen here]"}])"},
        TurnsCase{
            "document_text",
            R"([{"role":"user","content":[{"type":"document","title":"A \"b\"","source":{"type":"text","media_type":"text/plain","data":"body"}},{"type":"text","text":"?"}]}])",
            R"([{"role":"user","content":"<document title=\"A &quot;b&quot;\">\nbody\n</document>\n?"}])"},
        TurnsCase{
            "document_blocks",
            R"([{"role":"user","content":[{"type":"document","source":{"type":"content","content":[{"type":"text","text":"one"},{"type":"text","text":"two"}]}}]}])",
            R"([{"role":"user","content":"<document>\none\ntwo\n</document>"}])"},
        TurnsCase{
            "document_pdf",
            R"([{"role":"user","content":[{"type":"document","source":{"type":"base64","media_type":"application/pdf","data":"JVBE"}}]}])",
            R"([{"role":"user","content":"<document>\n[a document that cannot be read here: application/pdf]\n</document>"}])"},
        TurnsCase{
            "search_result",
            R"([{"role":"user","content":[{"type":"search_result","source":"s","title":"t","content":[{"type":"text","text":"x"}],"citations":{"enabled":true}}]}])",
            R"([{"role":"user","content":"<search_result source=\"s\" title=\"t\">\nx\n</search_result>"}])"},
        TurnsCase{
            "server_tools_of_a_history",
            R"([{"role":"user","content":"q"},{"role":"assistant","content":[{"type":"server_tool_use","id":"srvtoolu_1","name":"web_search","input":{"query":"x"}},{"type":"web_search_tool_result","tool_use_id":"srvtoolu_1","content":[{"type":"web_search_result","title":"T","url":"http://u","encrypted_content":"zz"}]},{"type":"text","text":"done"}]},{"role":"user","content":"b"}])",
            R"([{"role":"user","content":"q"},{"role":"assistant","content":"[web_search {\"query\":\"x\"}]\nT\nhttp://u\ndone"},{"role":"user","content":"b"}])"},
        TurnsCase{
            "unknown_and_empty_blocks",
            R"([{"role":"user","content":[{"type":"hologram","x":1},{"type":"container_upload","file_id":"f"},{"type":"text","text":"a"}]},{"role":"assistant","content":[{"type":"text","text":""},{"type":"redacted_thinking","data":"x"},{"type":"text","text":"b"}]},{"role":"user","content":"c"}])",
            R"([{"role":"user","content":"[a hologram block that cannot be read here]\n[a container_upload block that cannot be read here]\na"},{"role":"assistant","content":"b"},{"role":"user","content":"c"}])"},
        TurnsCase{"empty_answer_in_history",
                  R"([{"role":"user","content":"a"},{"role":"assistant","content":[]},{"role":"user","content":"b"}])",
                  R"([{"role":"user","content":"a\n\nb"}])"},
        TurnsCase{
            "tool_changes",
            R"([{"role":"user","content":"a"},{"role":"system","content":[{"type":"tool_addition","tool":{"name":"T","description":"d","input_schema":{"type":"object"}}},{"type":"tool_removal","tool_name":"U"}]}])",
            R"([{"role":"user","content":"a"},{"role":"system","content":"<functions>\n<function>{\"description\":\"d\",\"name\":\"T\",\"parameters\":{\"type\":\"object\"}}</function>\n</functions>\nThe tool U is no longer available."}])"}),
    [](const auto& turns) { return std::string(turns.param.name); });

TEST(MessagesRequest, LastAssistantMessageIsContinued) {
  const auto request =
      Translate(Body(R"({"messages":[{"role":"user","content":"a"},{"role":"assistant","content":"The answer is"}]})"));
  EXPECT_TRUE(request.chat.continue_final_message);
  const auto empty =
      Translate(Body(R"({"messages":[{"role":"user","content":"a"},{"role":"assistant","content":""}]})"));
  EXPECT_FALSE(empty.chat.continue_final_message);
  EXPECT_EQ(empty.chat.messages.size(), 1u);
  const auto answered = Translate(Body(
      R"({"messages":[{"role":"user","content":"a"},{"role":"assistant","content":"Done."},{"role":"user","content":[{"type":"thinking","thinking":"t"}]}]})"));
  EXPECT_FALSE(answered.chat.continue_final_message) << "the user's turn, of which nothing is shown, ends the answer";
  const auto thought = Translate(Body(
      R"({"messages":[{"role":"user","content":"a"},{"role":"assistant","content":[{"type":"thinking","thinking":"t","signature":""}]}]})"));
  EXPECT_FALSE(thought.chat.continue_final_message);
  EXPECT_EQ(thought.chat.messages.size(), 1u);
}

TEST(MessagesRequest, TypedToolsGetTheirSchemas) {
  const auto request = Translate(Body(R"({"tools":[
    {"type":"bash_20250124","name":"bash"},
    {"type":"text_editor_20250728","name":"str_replace_based_edit_tool","max_characters":1000},
    {"type":"memory_20250818","name":"memory"},
    {"type":"computer_20250124","name":"computer","display_width_px":1024,"display_height_px":768},
    {"type":"web_fetch_20250910","name":"web_fetch"},
    {"type":"code_execution_20250825","name":"code_execution"},
    {"type":"something_new_2030","name":"x"},
    {"type":"custom","name":"mine","input_schema":{"type":"object"}},
    {"type":null,"name":"other","input_schema":{}}]})"));
  std::vector<std::string> names;
  for (const Json& tool : request.chat.tools) {
    names.push_back(tool["function"]["name"]);
    EXPECT_TRUE(tool["function"]["parameters"].is_object());
  }
  EXPECT_THAT(names,
              testing::ElementsAre("bash", "str_replace_based_edit_tool", "memory", "computer", "mine", "other"));
  EXPECT_EQ(request.chat.tools[0]["function"]["parameters"]["properties"]["command"]["type"], "string");
  EXPECT_THAT(request.chat.tools[3]["function"]["description"].get<std::string>(), HasSubstr("1024x768"));
}

TEST(MessagesRequest, DeferredToolsAreShownOnceAndOnlyWhereReferenced) {
  const char* tool = R"({"name":"T","input_schema":{"type":"object"},"defer_loading":true})";
  Json body = Body();
  body["tools"] = {*ParseJson(tool)};
  EXPECT_TRUE(Translate(body).chat.tools.is_null());
  const Json reference = {{"type", "tool_reference"}, {"tool_name", "T"}};
  body["messages"][0]["content"] = {
      {{"type", "tool_result"}, {"tool_use_id", "i"}, {"content", {reference, reference}}}};
  EXPECT_EQ(
      Translate(body).chat.messages[0]["content"],
      "<functions>\n<function>{\"description\":\"\",\"name\":\"T\",\"parameters\":{\"type\":\"object\"}}</function>\n"
      "</functions>\n[tool T]");
  // With Anthropic's own search nothing could ever load it.
  body["tools"].push_back({{"type", "tool_search_tool_regex_20251119"}, {"name", "tool_search"}});
  EXPECT_EQ(Translate(body).chat.tools.size(), 1u);
}

TEST(MessagesRequest, OptionsAreRead) {
  const auto request = Translate(Body(R"({
    "temperature":0.5,"top_p":0.9,"top_k":40,"stop_sequences":["\n\n","END"],"max_tokens":0,
    "tools":[{"name":"T","input_schema":{}}],"tool_choice":{"type":"tool","name":"T","disable_parallel_tool_use":true},
    "thinking":{"type":"disabled"},
    "output_config":{"effort":null,"format":{"type":"json_schema","schema":{"type":"object"}}}})"));
  EXPECT_EQ(request.chat.sampling.temperature, 0.5f);
  EXPECT_EQ(request.chat.sampling.top_p, 0.9f);
  EXPECT_EQ(request.chat.sampling.top_k, 40);
  EXPECT_THAT(request.chat.stop_sequences, testing::ElementsAre("\n\n", "END"));
  EXPECT_EQ(request.chat.new_tokens_max, 0);
  EXPECT_EQ(request.chat.tool_choice, service::ToolChoice::kNamed);
  EXPECT_EQ(request.chat.tool_choice_name, "T");
  EXPECT_FALSE(request.chat.parallel_tool_calls);
  EXPECT_EQ(request.chat.thinking, false);
  EXPECT_EQ(request.chat.output_schema, (Json{{"type", "object"}}));
  EXPECT_FALSE(request.stream);
}

TEST(MessagesRequest, ThinkingKinds) {
  EXPECT_EQ(Translate(Body()).chat.thinking, std::nullopt);
  EXPECT_EQ(Translate(Body(R"({"thinking":{"type":"enabled","budget_tokens":2048}})")).chat.thinking, true);
  EXPECT_EQ(Translate(Body(R"({"thinking":{"type":"between_tools"}})")).chat.thinking, false);
  EXPECT_EQ(
      Translate(
          Body(
              R"({"thinking":{"type":"between_tools"},"messages":[{"role":"user","content":[{"type":"tool_result","tool_use_id":"i"}]}]})"))
          .chat.thinking,
      true);
  EXPECT_EQ(Translate(Body(R"({"thinking":{"type":"from_the_future"}})")).chat.thinking, std::nullopt);
}

TEST(MessagesRequest, CountTokensNeedsNoLimit) {
  Json body = Body();
  body.erase("max_tokens");
  EXPECT_TRUE(FromMessagesRequest(body, {.count_only = true}).has_value());
  EXPECT_EQ(ErrorOf(body), "max_tokens: Field required");
}

struct ErrorCase {
  const char* changes;
  const char* message;
};

TEST(MessagesRequest, ErrorsNameTheField) {
  const ErrorCase cases[] = {
      {R"({"model":null})", "model: Field required"},
      {R"({"model":7})", "model: must be a string"},
      {R"({"messages":null})", "messages: Field required"},
      {R"({"messages":{}})", "messages: must be an array"},
      {R"({"messages":[]})", "messages: at least one message is required"},
      {R"({"messages":["x"]})", "messages.0: must be an object"},
      {R"({"messages":[{"content":"x"}]})", "messages.0.role: Field required"},
      {R"({"messages":[{"role":"tool","content":"x"}]})",
       "messages.0.role: must be \"user\", \"assistant\" or \"system\""},
      {R"({"messages":[{"role":"user"}]})", "messages.0.content: Field required"},
      {R"({"messages":[{"role":"user","content":""}]})", "messages.0.content: a user message must not be empty"},
      {R"({"messages":[{"role":"user","content":[]}]})", "messages.0.content: a user message must not be empty"},
      {R"({"messages":[{"role":"user","content":5}]})",
       "messages.0.content: must be a string or an array of content blocks"},
      {R"({"messages":[{"role":"user","content":[5]}]})", "messages.0.content.0: must be an object"},
      {R"({"messages":[{"role":"user","content":[{}]}]})", "messages.0.content.0.type: Field required"},
      {R"({"messages":[{"role":"user","content":[{"type":"text"}]}]})", "messages.0.content.0.text: Field required"},
      {R"({"messages":[{"role":"user","content":[{"type":"tool_result"}]}]})",
       "messages.0.content.0.tool_use_id: Field required"},
      {R"({"messages":[{"role":"assistant","content":[{"type":"tool_use","id":"a"}]}]})",
       "messages.0.content.0.name: Field required"},
      {R"({"messages":[{"role":"assistant","content":[]}]})", "messages: every message is empty"},
      {R"({"max_tokens":-1})", "max_tokens: must be at least 0"},
      {R"({"max_tokens":1.5})", "max_tokens: must be an integer"},
      {R"({"max_tokens":"x"})", "max_tokens: must be an integer"},
      {R"({"max_tokens":true})", "max_tokens: must be an integer"},
      {R"({"temperature":2.5})", "temperature: must be a number from 0 to 2"},
      {R"({"top_p":-0.1})", "top_p: must be a number from 0 to 1"},
      {R"({"top_k":-1})", "top_k: must be an integer from 0 to 2147483647"},
      {R"({"stream":"yes"})", "stream: must be true or false"},
      {R"({"system":5})", "system: must be a string or an array of text blocks"},
      {R"({"system":[{"type":"text"}]})", "system.0.text: Field required"},
      {R"({"stop_sequences":"x"})", "stop_sequences: must be an array"},
      {R"({"stop_sequences":[""]})", "stop_sequences.0: must have 1 to 256 bytes"},
      {R"({"stop_sequences":[1]})", "stop_sequences.0: must be a string"},
      {R"({"tools":{}})", "tools: must be an array"},
      {R"({"tool_choice":{"type":"any"}})", "tool_choice: a call needs tools"},
      {R"({"tool_choice":{"type":"tool","name":"f"},"tools":[]})", "tool_choice: a call needs tools"},
      {R"({"tools":[1]})", "tools.0: must be an object"},
      {R"({"tools":[{"input_schema":{}}]})", "tools.0.name: Field required"},
      {R"({"tools":[{"name":"x"}]})", "tools.0.input_schema: Field required"},
      {R"({"tools":[{"name":"x","input_schema":[]}]})", "tools.0.input_schema: must be an object"},
      {R"({"tool_choice":"auto"})", "tool_choice: must be an object"},
      {R"({"tool_choice":{"type":"maybe"}})", "tool_choice.type: must be \"auto\", \"any\", \"tool\" or \"none\""},
      {R"({"tool_choice":{"type":"tool"}})", "tool_choice.name: Field required"},
      {R"({"thinking":true})", "thinking: must be an object"},
      {R"({"output_config":{"format":{"type":"json_schema"}}})", "output_config.format.schema: Field required"},
      {R"({"output_config":{"format":{"type":"yaml"}}})", "output_config.format.type: must be \"json_schema\""},
  };
  for (const ErrorCase& c : cases) EXPECT_EQ(ErrorOf(Body(c.changes)), c.message) << c.changes;
  EXPECT_EQ(ErrorOf(Json::array()), "the request body must be a JSON object");
  EXPECT_EQ(ErrorOf("text"), "the request body must be a JSON object");
}

}  // namespace
}  // namespace pensieve::api::anthropic
