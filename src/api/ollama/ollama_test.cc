#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "api/ollama/answers.h"
#include "api/ollama/dialect.h"
#include "api/ollama/requests.h"

namespace pensieve::api::ollama {
namespace {

using Kind = service::GenerationEvent::Kind;

Json Body(const char* changes) {
  Json body = {{"model", "m"}, {"messages", Json::array({{{"role", "user"}, {"content", "hi"}}})}};
  body.update(*ParseJson(changes));
  return body;
}

service::ChatRequest Chat(const char* changes) {
  const auto request = FromChat(Body(changes), "r");
  EXPECT_TRUE(request.has_value()) << changes << request.error().ToString();
  return std::get<service::ChatRequest>(request->text);
}

TEST(OllamaRequests, OptionsHaveTheirOwnNames) {
  const auto chat = Chat(R"({"options":{"temperature":0.5,"top_p":0.9,"top_k":5,"min_p":0.1,"seed":7,"num_predict":9,
    "repeat_penalty":1.5,"stop":["x"],"num_ctx":4096},"think":"low","format":"json","keep_alive":"5m"})");
  EXPECT_EQ(chat.sampling.temperature, 0.5f);
  EXPECT_EQ(chat.sampling.top_k, 5);
  EXPECT_EQ(chat.sampling.seed, 7u);
  EXPECT_EQ(chat.sampling.repetition_penalty, 1.5f);
  EXPECT_EQ(chat.new_tokens_max, 9);
  EXPECT_EQ(chat.stop_sequences, std::vector<std::string>{"x"});
  EXPECT_EQ(chat.thinking, true);
  EXPECT_EQ(chat.effort, "low");
  EXPECT_EQ(chat.output_schema, Json({{"type", "object"}}));
  EXPECT_EQ(Chat(R"({"options":{"num_predict":-1}})").new_tokens_max, INT64_MAX);
  EXPECT_EQ(Chat(R"({"options":{"seed":-1}})").sampling.seed, std::nullopt);
  EXPECT_EQ(Chat(R"({"format":{"type":"array"}})").output_schema, Json({{"type", "array"}}));
  EXPECT_TRUE(Chat(R"({"format":""})").output_schema.is_null());
}

TEST(OllamaRequests, ToolsAndTheirAnswers) {
  const auto chat = Chat(R"({"tools":[{"type":"function","function":{"name":"f","parameters":{"type":"object"}}}],
    "messages":[{"role":"user","content":"q","images":["aGk="]},
                {"role":"assistant","content":"","thinking":"t","tool_calls":[{"function":{"name":"f","arguments":{"a":1}}}]},
                {"role":"tool","content":"42","tool_name":"f"}]})");
  EXPECT_EQ(chat.tools[0]["function"]["name"], "f");
  EXPECT_EQ(chat.messages[0]["content"], "[an image that cannot be seen here]\nq");
  EXPECT_EQ(chat.messages[1]["reasoning_content"], "t");
  EXPECT_EQ(chat.messages[1]["tool_calls"][0]["function"]["arguments"]["a"], 1);
  EXPECT_EQ(chat.messages[2]["name"], "f");
}

TEST(OllamaRequests, StreamsUnlessToldAndLoadsWithoutMessages) {
  EXPECT_TRUE(FromChat(Body("{}"), "r")->stream);
  EXPECT_FALSE(FromChat(Body(R"({"stream":false})"), "r")->stream);
  const auto load = FromChat(Body(R"({"messages":[],"keep_alive":0})"), "r");
  EXPECT_TRUE(std::holds_alternative<std::monostate>(load->text));
  EXPECT_TRUE(load->unload);
  EXPECT_TRUE(std::holds_alternative<std::monostate>(FromGenerate({{"model", "m"}}, "r")->text));
}

TEST(OllamaRequests, GenerateIsATurnOrRawText) {
  const auto turn = FromGenerate({{"model", "m"}, {"prompt", "p"}, {"system", "s"}}, "r");
  const auto& chat = std::get<service::ChatRequest>(turn->text);
  EXPECT_EQ(chat.messages, *ParseJson(R"([{"role":"system","content":"s"},{"role":"user","content":"p"}])"));
  const auto raw = FromGenerate({{"model", "m"}, {"prompt", "p"}, {"raw", true}}, "r");
  EXPECT_EQ(std::get<service::CompletionRequest>(raw->text).prompt, "p");
  const auto fill = FromGenerate({{"model", "m"}, {"prompt", "p"}, {"suffix", "s"}}, "r");
  EXPECT_EQ(std::get<service::CompletionRequest>(fill->text).suffix, "s");
}

TEST(OllamaRequests, ErrorsNameTheField) {
  const std::pair<const char*, const char*> cases[] = {
      {R"({"model":null})", "model: Field required"},
      {R"({"messages":{}})", "messages: must be an array"},
      {R"({"messages":[{"role":"king"}]})", "messages.0.role: must be one of system, user, assistant, tool"},
      {R"({"options":[]})", "options: must be an object"},
      {R"({"options":{"stop":[""]}})", "options.stop: each must have 1 to 256 bytes"},
      {R"({"format":"yaml"})", "format: must be \"json\" or a JSON schema"},
      {R"({"think":"perhaps"})", "think: must be true, false, \"low\", \"medium\" or \"high\""},
      {R"({"tools":[{}]})", "tools.0.function: Field required"},
  };
  for (const auto& [changes, message] : cases) {
    const auto request = FromChat(Body(changes), "r");
    ASSERT_FALSE(request.has_value()) << changes;
    EXPECT_EQ(request.error().message(), message) << changes;
  }
  EXPECT_FALSE(FromGenerate({{"model", "m"}, {"prompt", "p"}, {"context", {1, 2}}}, "r").has_value());
  EXPECT_FALSE(FromEmbed({{"model", "m"}}, "r").has_value());
  EXPECT_FALSE(FromEmbed({{"model", "m"}, {"input", {1}}}, "r").has_value());
  EXPECT_TRUE(FromEmbed({{"model", "m"}, {"input", Json::array()}}, "r")->texts.empty());
  EXPECT_EQ(FromEmbeddings({{"model", "m"}, {"prompt", "p"}}, "r")->texts, std::vector<std::string>{"p"});
}

service::GenerationEvent Event(Kind kind, const std::string& text = "") {
  service::GenerationEvent event;
  event.kind = kind;
  event.text = text;
  event.call_id = "1";
  event.tool_name = "f";
  event.usage = {.prompt_tokens = 7, .completion_tokens = 3, .first_token_s = 0.25, .total_s = 1.25};
  return event;
}

TEST(OllamaAnswers, LinesOfAStream) {
  TextFormat format({.model = "m"});
  EXPECT_EQ(format.Start() + format.Ping(), "");
  std::string out;
  for (const auto& [kind, text] : std::vector<std::pair<Kind, std::string>>{{Kind::kReasoning, "hm"},
                                                                            {Kind::kText, "hi"},
                                                                            {Kind::kToolCallStart, ""},
                                                                            {Kind::kToolCallArguments, "{\"a\""},
                                                                            {Kind::kToolCallArguments, ":1}"},
                                                                            {Kind::kToolCallEnd, ""},
                                                                            {Kind::kDone, ""}})
    out += format.Write(0, Event(kind, text));
  std::vector<Json> lines;
  for (size_t at = 0; at < out.size(); at = out.find('\n', at) + 1)
    lines.push_back(*ParseJson(out.substr(at, out.find('\n', at) - at)));
  ASSERT_EQ(lines.size(), 4u);
  EXPECT_EQ(lines[0]["message"]["thinking"], "hm");
  EXPECT_EQ(lines[1]["message"]["content"], "hi");
  EXPECT_EQ(lines[1]["done"], false);
  EXPECT_EQ(lines[2]["message"]["tool_calls"][0]["function"]["arguments"]["a"], 1);
  EXPECT_EQ(lines[3]["done"], true);
  EXPECT_EQ(lines[3]["done_reason"], "stop");
  EXPECT_EQ(lines[3]["prompt_eval_count"], 7);
  EXPECT_EQ(lines[3]["eval_count"], 3);
  EXPECT_EQ(lines[3]["total_duration"], 1'250'000'000);
  EXPECT_EQ(lines[3]["eval_duration"], 1'000'000'000);
}

TEST(OllamaAnswers, WholeAndErrors) {
  TextFormat format({.model = "m", .chat = false});
  format.Add(0, Event(Kind::kText, "a"));
  format.Add(0, Event(Kind::kText, "b"));
  format.Add(0, Event(Kind::kDone));
  const Json whole = format.Finish();
  EXPECT_EQ(whole["response"], "ab");
  EXPECT_EQ(whole["done"], true);
  auto failed = Event(Kind::kError);
  failed.error = Internal("lost");
  EXPECT_EQ(format.Write(0, failed), "{\"error\":\"lost\"}\n");
  EXPECT_EQ(*ParseJson(ToEmbedReply({}, "m").body),
            *ParseJson(R"({"model":"m","embeddings":[],"total_duration":0,"load_duration":0,"prompt_eval_count":0})"));
}

}  // namespace
}  // namespace pensieve::api::ollama
