#include "chat/chat_template.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>

#include "base/mapped_file.h"

namespace pensieve::chat {
namespace {

using testing::HasSubstr;
using testing::Not;

ChatTemplate Template(const std::string& source) {
  auto parsed = ChatTemplate::Parse(source, {{"bos_token", "<s>"}, {"eos_token", "</s>"}});
  EXPECT_TRUE(parsed.has_value()) << parsed.error().ToString();
  return *std::move(parsed);
}

Json Messages(const std::string& text) {
  auto json = ParseJson(text);
  EXPECT_TRUE(json.has_value()) << json.error().ToString();
  return *std::move(json);
}

std::string Rendered(const ChatTemplate& chat_template, const RenderInputs& inputs) {
  const auto text = chat_template.Render(inputs);
  EXPECT_TRUE(text.has_value()) << text.error().ToString();
  return text.has_value() ? *text : "";
}

std::string Fallback(std::initializer_list<std::string_view> tokens) {
  return FallbackTemplate([&](std::string_view token) { return std::find(tokens.begin(), tokens.end(), token) != tokens.end(); });
}

const char kConversation[] = R"([{"role":"system","content":"Be brief."},{"role":"user","content":"Hi"},
  {"role":"assistant","content":"Hello!"},{"role":"user","content":"Weather in Oslo?"}])";
const char kTools[] = R"([{"type":"function","function":{"name":"get_weather","description":"W",
  "parameters":{"type":"object","properties":{"city":{"type":"string"}}}}}])";

TEST(ChatTemplate, FallbacksRenderTheirFamilies) {
  const Json messages = Messages(kConversation);
  EXPECT_EQ(Rendered(Template(Fallback({"<|im_start|>", "<|im_end|>"})), {.messages = messages}),
            "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\nHello!"
            "<|im_end|>\n<|im_start|>user\nWeather in Oslo?<|im_end|>\n<|im_start|>assistant\n");
  EXPECT_EQ(Rendered(Template(Fallback({"<|assistant|>", "<|end|>"})), {.messages = messages}),
            "<|system|>\nBe brief.<|end|>\n<|user|>\nHi<|end|>\n<|assistant|>\nHello!<|end|>\n<|user|>\n"
            "Weather in Oslo?<|end|>\n<|assistant|>\n");
  EXPECT_EQ(Rendered(Template(Fallback({"<start_of_turn>", "<end_of_turn>"})), {.messages = messages}),
            "<s><start_of_turn>user\nBe brief.\n\nHi<end_of_turn>\n<start_of_turn>model\nHello!<end_of_turn>\n"
            "<start_of_turn>user\nWeather in Oslo?<end_of_turn>\n<start_of_turn>model\n");
  EXPECT_THAT(Rendered(Template(Fallback({"<|start_header_id|>", "<|eot_id|>"})), {.messages = messages}),
              HasSubstr("<|start_header_id|>assistant<|end_header_id|>\n\nHello!<|eot_id|>"));
  EXPECT_EQ(Fallback({}), "");
}

TEST(ChatTemplate, KnowsWhatEndsAnAnswer) {
  EXPECT_EQ(Template(Fallback({"<|im_start|>", "<|im_end|>"})).answer_end(), "<|im_end|>\n");
  EXPECT_EQ(Template("{% for m in messages %}{{ m.content }}{{ eos_token }}{% endfor %}").answer_end(), "</s>");
  EXPECT_EQ(Template("{{ messages[0].content }}").answer_end(), "");
}

TEST(ChatTemplate, RefusesWhatCannotRunWithTheLine) {
  const auto error = [](const std::string& source) {
    const auto parsed = ChatTemplate::Parse(source, {});
    return parsed.has_value() ? std::string() : parsed.error().message();
  };
  EXPECT_THAT(error("{# one #}\n{{ messages[0].content | shout }}"), HasSubstr("line 2: No filter named 'shout'"));
  EXPECT_THAT(error("a\nb\n{{ no_such_function(messages) }}"), HasSubstr("line 3"));
  EXPECT_THAT(error("{% if messages %}\n{{ messages[0].content + none }}{% endif %}"), HasSubstr("line 2"));
  EXPECT_THAT(error("{% for m in messages %}"), HasSubstr("line 1"));
  EXPECT_EQ(error("{{ raise_exception('Only after a system turn!') }}"), "");
  EXPECT_EQ(error("{% for m in messages %}{{ m.content[0].text }}{% endfor %}"), "") << "wants parts";
}

TEST(ChatTemplate, ProbesWhatTemplatesCan) {
  const ChatTemplate chatml = Template(Fallback({"<|im_start|>", "<|im_end|>"}));
  EXPECT_FALSE(chatml.supports_tools());
  EXPECT_TRUE(chatml.supports_system());
  EXPECT_TRUE(chatml.supports_system_mid_conversation());
  EXPECT_FALSE(chatml.content_parts());
  const ChatTemplate gemma = Template(Fallback({"<start_of_turn>", "<end_of_turn>"}));
  EXPECT_FALSE(gemma.supports_system());
  EXPECT_FALSE(gemma.supports_system_mid_conversation());
  const ChatTemplate parts = Template(
      "{% for m in messages %}{{ m.role }}:{% for p in m.content %}{{ p.text }}{% endfor %};{% endfor %}");
  EXPECT_TRUE(parts.content_parts());
  EXPECT_EQ(Rendered(parts, {.messages = Messages(kConversation)}),
            "system:Be brief.;user:Hi;assistant:Hello!;user:Weather in Oslo?;");
}

TEST(ChatTemplate, ToolsReachTemplatesWithoutThem) {
  const Json messages = Messages(R"([{"role":"user","content":"W?"},
    {"role":"assistant","content":null,"tool_calls":[
      {"id":"a","type":"function","function":{"name":"get_weather","arguments":"{\"city\": \"Oslo\"}"}},
      {"id":"b","type":"function","function":{"name":"get_weather","arguments":"{\"city\": \"Bergen\"}"}}]},
    {"role":"tool","tool_call_id":"a","content":"7"},{"role":"tool","tool_call_id":"b","content":[{"type":"text","text":"8"}]}])");
  const std::string text =
      Rendered(Template(Fallback({"<|im_start|>", "<|im_end|>"})), {.messages = messages, .tools = Messages(kTools), .spell_out_tools = true});
  EXPECT_THAT(text, testing::StartsWith("<|im_start|>system\n# Tools\n\nYou may call one or more functions"));
  EXPECT_THAT(text, HasSubstr("<tools>\n{\"type\": \"function\", \"function\": {\"name\": \"get_weather\","));
  EXPECT_THAT(text, HasSubstr("<|im_start|>assistant\n<tool_call>\n{\"name\": \"get_weather\", \"arguments\": {\"city\": "
                              "\"Oslo\"}}\n</tool_call>\n<tool_call>\n{\"name\""));
  EXPECT_THAT(text, HasSubstr("<|im_start|>user\n<tool_response>\n7\n</tool_response>\n<tool_response>\n8\n"
                              "</tool_response><|im_end|>\n<|im_start|>assistant\n"));
}

TEST(ChatTemplate, ToolsThatATemplateIgnoresStayOutUnlessAskedFor) {
  const auto chatml = Template(Fallback({"<|im_start|>", "<|im_end|>"}));
  const Json messages = Messages(R"([{"role":"user","content":"W?"}])");
  EXPECT_EQ(Rendered(chatml, {.messages = messages, .tools = Messages(kTools)}), Rendered(chatml, {.messages = messages}));
}

TEST(ChatTemplate, LaterSystemTurnsFoldWithoutTouchingEarlierBytes) {
  const std::string strict =
      "{% for m in messages %}{% if m.role == 'system' and not loop.first %}{{ raise_exception('first!') }}{% endif %}"
      "[{{ m.role }}]{{ m.content }}{% endfor %}";
  EXPECT_EQ(Rendered(Template(strict), {.messages = Messages(R"([{"role":"system","content":"S"},
      {"role":"user","content":"U"},{"role":"system","content":"M"},{"role":"assistant","content":"A"}])")}),
            "[system]S[user]U\n\n<system-reminder>\nM\n</system-reminder>[assistant]A");
  EXPECT_EQ(Rendered(Template("{% for m in messages %}[{{ m.role }}]{{ m.content }}{% endfor %}"),
                     {.messages = Messages(R"([{"role":"user","content":"U"},{"role":"developer","content":"M"}])")}),
            "[user]U[system]M");
}

TEST(ChatTemplate, SameRoleTurnsMergeWhereRolesMustAlternate) {
  EXPECT_EQ(Rendered(Template(Fallback({"<start_of_turn>", "<end_of_turn>"})),
                     {.messages = Messages(R"([{"role":"user","content":"a"},{"role":"user","content":"b"}])"),
                      .add_generation_prompt = false}),
            "<s><start_of_turn>user\na\n\nb<end_of_turn>\n");
}

TEST(ChatTemplate, FinalMessageIsContinued) {
  const Json messages = Messages(R"([{"role":"user","content":"Hi"},{"role":"assistant","content":"Sure, "}])");
  EXPECT_EQ(Rendered(Template(Fallback({"<|im_start|>", "<|im_end|>"})),
                     {.messages = messages, .continue_final_message = true}),
            "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\nSure, ");
  const auto refused = Template(Fallback({"<|im_start|>", "<|im_end|>"}))
                           .Render({.messages = Messages(R"([{"role":"user","content":"Hi"}])"),
                                    .continue_final_message = true});
  EXPECT_FALSE(refused.has_value());
}

TEST(ChatTemplate, BadInputsAreRefused) {
  const ChatTemplate chatml = Template(Fallback({"<|im_start|>", "<|im_end|>"}));
  for (const char* text : {"null", "[]", "{}", "[1]", "[{}]", R"([{"role":1}])", R"([{"role":"tool","tool_call_id":5}])",
                           R"([{"role":"user","content":[{"type":"image_url"}]}])",
                           R"([{"role":"assistant","tool_calls":[1]}])"}) {
    const auto rendered = chatml.Render({.messages = Messages(text)});
    ASSERT_FALSE(rendered.has_value()) << text;
    EXPECT_EQ(rendered.error().code(), StatusCode::kInvalidArgument);
  }
  const auto broken = ChatTemplate::Parse("{% if %}", {});
  ASSERT_FALSE(broken.has_value());
  EXPECT_THAT(broken.error().message(), HasSubstr("chat template: line 1"));
}

TEST(ChatTemplate, ExtraContextIsVisible) {
  EXPECT_EQ(Rendered(Template("{{ bos_token }}{{ enable_thinking }}{{ unk_token }}{{ documents }}{{ tools }}"),
                     {.messages = Messages(kConversation), .extra_context = Messages(R"({"enable_thinking":false})")}),
            "<s>FalseNoneNone");
}

// The abilities of real models' templates, when these lie beside the repository.
TEST(ChatTemplate, EveryModelTemplateTakesAnAgentsConversation) {
  const std::filesystem::path folder = std::filesystem::path(PENSIEVE_SOURCE_DIR) / ".." / "shared" / "chat_templates";
  if (!std::filesystem::exists(folder)) GTEST_SKIP() << "no templates of models beside the repository";
  const Json messages = Messages(R"([{"role":"system","content":"Sys-1"},{"role":"user","content":[{"type":"text","text":"Use-1"}]},
    {"role":"system","content":"Sys-2"},
    {"role":"assistant","content":"Say-1","tool_calls":[
      {"id":"toolu_1","type":"function","function":{"name":"get_weather","arguments":"{\"city\": \"Oslo\"}"}},
      {"id":"toolu_2","type":"function","function":{"name":"get_weather","arguments":"{\"city\": \"Bergen\"}"}}]},
    {"role":"tool","tool_call_id":"toolu_1","content":"Res-1"},{"role":"tool","tool_call_id":"toolu_2","content":"Res-2"},
    {"role":"user","content":"Use-2"}])");
  for (const auto& file : std::filesystem::directory_iterator(folder)) {
    const auto source = ReadFile(file.path().string(), 1 << 20);
    ASSERT_TRUE(source.has_value());
    const std::string text = Rendered(Template(*source), {.messages = messages, .tools = Messages(kTools), .spell_out_tools = true});
    for (const char* word : {"Sys-1", "Use-1", "Sys-2", "get_weather", "Oslo", "Bergen", "Res-1", "Res-2", "Use-2"}) {
      EXPECT_THAT(text, HasSubstr(word)) << file.path();
    }
  }
}

}  // namespace
}  // namespace pensieve::chat
