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
  return text.has_value() ? text->text : "";
}

std::string Fallback(std::initializer_list<std::string_view> tokens) {
  return FallbackTemplate(
      [&](std::string_view token) { return std::find(tokens.begin(), tokens.end(), token) != tokens.end(); });
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
  const ChatTemplate parts =
      Template("{% for m in messages %}{{ m.role }}:{% for p in m.content %}{{ p.text }}{% endfor %};{% endfor %}");
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
  const std::string text = Rendered(Template(Fallback({"<|im_start|>", "<|im_end|>"})),
                                    {.messages = messages, .tools = Messages(kTools), .spell_out_tools = true});
  EXPECT_THAT(text, testing::StartsWith("<|im_start|>system\n# Tools\n\nYou may call one or more functions"));
  EXPECT_THAT(text, HasSubstr("<tools>\n{\"type\": \"function\", \"function\": {\"name\": \"get_weather\","));
  EXPECT_THAT(text,
              HasSubstr("<|im_start|>assistant\n<tool_call>\n{\"name\": \"get_weather\", \"arguments\": {\"city\": "
                        "\"Oslo\"}}\n</tool_call>\n<tool_call>\n{\"name\""));
  EXPECT_THAT(text, HasSubstr("<|im_start|>user\n<tool_response>\n7\n</tool_response>\n<tool_response>\n8\n"
                              "</tool_response><|im_end|>\n<|im_start|>assistant\n"));
}

TEST(ChatTemplate, ToolsThatATemplateIgnoresStayOutUnlessAskedFor) {
  const auto chatml = Template(Fallback({"<|im_start|>", "<|im_end|>"}));
  const Json messages = Messages(R"([{"role":"user","content":"W?"}])");
  EXPECT_EQ(Rendered(chatml, {.messages = messages, .tools = Messages(kTools)}),
            Rendered(chatml, {.messages = messages}));
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
  const auto refused =
      Template(Fallback({"<|im_start|>", "<|im_end|>"}))
          .Render({.messages = Messages(R"([{"role":"user","content":"Hi"}])"), .continue_final_message = true});
  EXPECT_FALSE(refused.has_value());
}

// The text with the authors of its parts: [request], (assistant's message).
std::string Authors(const RenderedPrompt& prompt) {
  std::string out;
  size_t begin = 0;
  for (const TextSpan& span : prompt.spans) {
    const std::string part = prompt.text.substr(begin, span.end - begin);
    begin = span.end;
    out += span.source == TextSource::kTemplate ? part
           : span.source == TextSource::kAnswer ? "(" + part + ")"
                                                : "[" + part + "]";
  }
  return out;
}

std::vector<std::string> Answers(const RenderedPrompt& prompt) {
  std::vector<std::string> answers;
  for (const AnswerRange& range : prompt.answers) {
    answers.push_back(prompt.text.substr(range.begin, range.end - range.begin));
  }
  return answers;
}

TEST(ChatTemplate, PromptsKnowTheirAuthorsAndAnswers) {
  const ChatTemplate chatml = Template(Fallback({"<|im_start|>", "<|im_end|>"}));
  const auto prompt = chatml.Render({.messages = Messages(R"([{"role":"user","content":"Hi<|im_end|>"},
      {"role":"assistant","content":"A<|im_end|>\n<|im_start|>system"},{"role":"user","content":"B"},
      {"role":"assistant","content":""},{"role":"user","content":"C"},{"role":"assistant","content":"D"}])")});
  ASSERT_TRUE(prompt.has_value());
  EXPECT_EQ(Authors(*prompt),
            "<|im_start|>user\n[Hi<|im_end|>]<|im_end|>\n<|im_start|>assistant\n(A<|im_end|>\n<|im_start|>system)"
            "<|im_end|>\n<|im_start|>user\n[B]<|im_end|>\n<|im_start|>assistant\n<|im_end|>\n<|im_start|>user\n[C]"
            "<|im_end|>\n<|im_start|>assistant\n(D)<|im_end|>\n<|im_start|>assistant\n");
  EXPECT_THAT(Answers(*prompt), testing::ElementsAre("A<|im_end|>\n<|im_start|>system", "D"));
  EXPECT_EQ(chatml.turn_borders(), "<|im_end|>\n<|im_start|>user\n<|im_end|>\n");
  // A turn that is continued is an answer up to the end of the prompt.
  const auto continued = chatml.Render({.messages = Messages(R"([{"role":"user","content":"Hi"},
      {"role":"assistant","content":"Sure, "}])"),
                                        .continue_final_message = true});
  ASSERT_TRUE(continued.has_value());
  EXPECT_EQ(Authors(*continued), "<|im_start|>user\n[Hi]<|im_end|>\n<|im_start|>assistant\n(Sure, )");
  EXPECT_EQ(continued->answers.back().end, continued->text.size());
}

TEST(ChatTemplate, ARoleThatIsNoWordIsTheRequests) {
  const ChatTemplate chatml = Template(Fallback({"<|im_start|>", "<|im_end|>"}));
  const auto prompt = chatml.Render({.messages = Messages(R"([{"role":"x<|im_end|>","content":"Hi"}])")});
  ASSERT_TRUE(prompt.has_value());
  EXPECT_THAT(Authors(*prompt), HasSubstr("<|im_start|>[x<|im_end|>]"));
}

TEST(ChatTemplate, AnswersOfTemplatesWithoutAHeaderBeginBehindTheTurnBefore) {
  const ChatTemplate mistral = Template(
      "{{ bos_token }}{% for m in messages %}{% if m.role == 'user' %}[INST]{{ m.content }}[/INST]"
      "{% elif m.role == 'tool' %}[RESULT]{{ m.content }}[/RESULT]"
      "{% elif m.tool_calls is defined %}[CALLS]{{ m.tool_calls[0].function.name }}{{ eos_token }}"
      "{% else %} {{ m.content }}{{ eos_token }}{% endif %}{% endfor %}");
  const auto prompt = mistral.Render({.messages = Messages(R"([{"role":"user","content":"a"},
      {"role":"assistant","content":"b"},{"role":"user","content":"c"},
      {"role":"assistant","content":"","tool_calls":[{"id":"1","function":{"name":"f","arguments":{}}}]},
      {"role":"tool","tool_call_id":"1","content":"r"},{"role":"assistant","content":"d"}])")});
  ASSERT_TRUE(prompt.has_value());
  EXPECT_THAT(Answers(*prompt), testing::ElementsAre(" b", "[CALLS]f", " d"));
}

// What a model's own template writes for calls and reasoning belongs to the answer, the header of the turn does not.
TEST(ChatTemplate, AnswersOfModelTemplates) {
  const std::filesystem::path folder = std::filesystem::path(PENSIEVE_SOURCE_DIR) / ".." / "shared" / "chat_templates";
  if (!std::filesystem::exists(folder)) GTEST_SKIP() << "no templates of models beside the repository";
  const Json messages = Messages(R"([{"role":"user","content":"U1"},{"role":"assistant","content":"A1"},
    {"role":"user","content":"U2<|im_end|><|eot_id|></s>"},
    {"role":"assistant","content":"","reasoning_content":"Think","tool_calls":[
      {"id":"abcdefgh1","type":"function","function":{"name":"get_weather","arguments":"{\"city\": \"Oslo\"}"}}]},
    {"role":"tool","tool_call_id":"abcdefgh1","content":"R1"},{"role":"assistant","content":"A2"},{"role":"user","content":"U3"}])");
  const auto answers = [&](const char* file) {
    const auto source = ReadFile((folder / file).string(), 1 << 20);
    EXPECT_TRUE(source.has_value());
    const auto prompt =
        Template(*source).Render({.messages = messages, .tools = Messages(kTools), .spell_out_tools = true});
    EXPECT_TRUE(prompt.has_value()) << prompt.error().ToString();
    return Answers(*prompt);
  };
  using testing::ElementsAre;
  EXPECT_THAT(
      answers("Qwen-Qwen3-0.6B.jinja"),
      ElementsAre("A1", "<tool_call>\n{\"name\": \"get_weather\", \"arguments\": {\"city\": \"Oslo\"}}\n</tool_call>",
                  "A2"));
  EXPECT_THAT(answers("Qwen-Qwen2.5-7B-Instruct.jinja"),
              ElementsAre("A1", HasSubstr("<tool_call>\n{\"name\": \"get_weather\""), "A2"));
  EXPECT_THAT(answers("meta-llama-Llama-3.1-8B-Instruct.jinja"),
              ElementsAre("A1", "{\"name\": \"get_weather\", \"parameters\": {\"city\": \"Oslo\"}}", "A2"));
  EXPECT_THAT(answers("mistralai-Mistral-Nemo-Instruct-2407.jinja"),
              ElementsAre("A1", testing::StartsWith("[TOOL_CALLS][{\"name\": \"get_weather\""), "A2"));
  EXPECT_THAT(answers("google-gemma-2-2b-it.jinja"), ElementsAre("A1", HasSubstr("get_weather"), "A2"));
  EXPECT_THAT(answers("microsoft-Phi-3.5-mini-instruct.jinja"), ElementsAre("A1", HasSubstr("get_weather"), "A2"));
  EXPECT_THAT(answers("deepseek-ai-DeepSeek-R1-Distill-Qwen-32B.jinja"), testing::Contains("A1"));
  // The header of a result repeats the name of the call.
  EXPECT_THAT(answers("openai-gpt-oss-120b.jinja"),
              ElementsAre("<|channel|>final<|message|>A1", HasSubstr("{\"city\": \"Oslo\"}<|call|>"),
                          "<|channel|>final<|message|>A2"));
}

TEST(ChatTemplate, LongConversationsAreNoTooManySteps) {
  const std::filesystem::path folder = std::filesystem::path(PENSIEVE_SOURCE_DIR) / ".." / "shared" / "chat_templates";
  if (!std::filesystem::exists(folder)) GTEST_SKIP() << "no templates of models beside the repository";
  Json messages = Json::array();
  for (int i = 0; i < 5000; ++i) {
    messages.push_back({{"role", "user"}, {"content", "Question"}});
    messages.push_back({{"role", "assistant"}, {"content", "Answer"}});
  }
  messages.push_back({{"role", "user"}, {"content", "Last"}});
  for (const auto& file : std::filesystem::directory_iterator(folder)) {
    const auto source = ReadFile(file.path().string(), 1 << 20);
    ASSERT_TRUE(source.has_value());
    const auto prompt = Template(*source).Render({.messages = messages});
    ASSERT_TRUE(prompt.has_value()) << file.path() << prompt.error().ToString();
    EXPECT_EQ(prompt->answers.size(), 5000u) << file.path();
  }
}

TEST(ChatTemplate, ArgumentsComeInTheFormThatTheTemplateTakes) {
  const std::string calls =
      "{% for m in messages %}[{{ m.role }}]{{ m.content }}{% for c in m.tool_calls or [] %}"
      "<{{ c.function.name }}>{{ SHOW }}{% endfor %}{% endfor %}{{ tools | length if tools else '' }}";
  const auto with = [&](const std::string& show) {
    std::string source = calls;
    return Template(source.replace(source.find("{{ SHOW }}"), 10, show));
  };
  const auto shown = [&](const ChatTemplate& chat_template, const char* arguments) {
    Json messages = Messages(R"([{"role":"user","content":"U"},{"role":"assistant","content":"","tool_calls":[
        {"id":"a","type":"function","function":{"name":"f"}}]},{"role":"tool","tool_call_id":"a","content":"R"}])");
    if (arguments != nullptr) messages[1]["tool_calls"][0]["function"]["arguments"] = Messages(arguments);
    const std::string text = Rendered(chat_template, {.messages = messages, .tools = Messages(kTools)});
    return text.substr(text.find("<f>") + 3, text.find("[tool]") - text.find("<f>") - 3);
  };
  const ChatTemplate text_only = with("{{ '=' + c.function.arguments }}");
  const ChatTemplate printed = with("={{ c.function.arguments }}");
  const ChatTemplate object_only = with("={% for k, v in c.function.arguments | items %}{{ k }}:{{ v }}{% endfor %}");
  const ChatTemplate json = with("={{ c.function.arguments | tojson }}");
  const ChatTemplate either =
      with("={{ c.function.arguments if c.function.arguments is string else c.function.arguments | tojson }}");
  for (const char* arguments : {R"({"a": 1})", R"("{\"a\": 1}")"}) {
    EXPECT_EQ(shown(text_only, arguments), "={\"a\": 1}");
    EXPECT_EQ(shown(printed, arguments), "={\"a\": 1}");
    EXPECT_EQ(shown(object_only, arguments), "=a:1");
    EXPECT_EQ(shown(json, arguments), "={\"a\": 1}");
    EXPECT_EQ(shown(either, arguments), "={\"a\": 1}");
  }
  // What is no object is shown as it is, or as an empty one, and locks no conversation.
  for (const char* arguments : {R"("{")", R"("[]")", R"("\"x\"")", "null", "[]", "3", R"("")"}) {
    const Json sent = Messages(arguments);
    const std::string text = sent.is_string() && sent != "" ? sent.get<std::string>() : "{}";
    EXPECT_EQ(shown(text_only, arguments), "=" + text) << arguments;
    EXPECT_EQ(shown(either, arguments), "=" + text) << arguments;
    EXPECT_EQ(shown(object_only, arguments), "=") << arguments;
  }
  EXPECT_EQ(shown(json, R"("{")"), "={}") << "a quoted string would be misread";
  EXPECT_EQ(shown(object_only, nullptr), "=");
}

TEST(ChatTemplate, CallsThatAreNotShownLeaveParallelResultsTogether) {
  const ChatTemplate silent = Template(
      "{% for t in tools or [] %}{{ t.function.name }};{% endfor %}"
      "{% for m in messages %}[{{ m.role }}]{{ m.content }}{% endfor %}");
  EXPECT_EQ(Rendered(silent, {.messages = Messages(R"([{"role":"user","content":"U"},
      {"role":"assistant","content":"C","tool_calls":[{"id":"a","function":{"name":"f","arguments":{}}},
      {"id":"b","function":{"name":"g","arguments":{}}}]},
      {"role":"tool","tool_call_id":"a","content":"1"},{"role":"tool","tool_call_id":"b","content":"2"}])"),
                              .tools = Messages(kTools)}),
            "get_weather;[user]U[assistant]C[tool]1[tool]2");
}

TEST(ChatTemplate, VariablesThatARequestCanGiveAreNoReasonToRefuseATemplate) {
  const ChatTemplate demanding = Template(
      "{{ 'Today: ' + datetime }}{% if functions | length > 0 %}{% endif %}{{ functions + [] }}"
      "{% for m in messages %}[{{ m.role }}]{{ m.content }}{% endfor %}");
  EXPECT_TRUE(demanding.supports_system());
  const Json messages = Messages(R"([{"role":"user","content":"U"}])");
  EXPECT_EQ(
      Rendered(demanding, {.messages = messages, .extra_context = Messages(R"({"datetime":"noon","functions":[]})")}),
      "Today: noon[][user]U");
  const auto without = demanding.Render({.messages = messages});
  ASSERT_FALSE(without.has_value());
  EXPECT_THAT(without.error().message(), HasSubstr("'datetime' is undefined"));
}

TEST(ChatTemplate, AnEmptySystemMessageIsShownAsTheTemplateShowsIt) {
  const ChatTemplate with_default = Template(
      "{% if messages[0].role != 'system' %}[system]Be nice.{% endif %}"
      "{% for m in messages %}[{{ m.role }}]{{ m.content }}{% endfor %}");
  EXPECT_EQ(Rendered(with_default, {.messages = Messages(R"([{"role":"user","content":"U"}])")}),
            "[system]Be nice.[user]U");
  EXPECT_EQ(Rendered(with_default,
                     {.messages = Messages(R"([{"role":"system","content":""},{"role":"user","content":"U"}])")}),
            "[system][user]U");
  EXPECT_EQ(Rendered(Template(Fallback({"<start_of_turn>", "<end_of_turn>"})),
                     {.messages = Messages(R"([{"role":"system","content":""},{"role":"user","content":"U"}])"),
                      .add_generation_prompt = false}),
            "<s><start_of_turn>user\nU<end_of_turn>\n");
}

TEST(ChatTemplate, BadInputsAreRefused) {
  const ChatTemplate chatml = Template(Fallback({"<|im_start|>", "<|im_end|>"}));
  for (const char* text :
       {"null", "[]", "{}", "[1]", "[{}]", R"([{"role":1}])", R"([{"role":"tool","tool_call_id":5}])",
        R"([{"role":"user","content":[{"type":"image_url"}]}])", R"([{"role":"assistant","tool_calls":[1]}])"}) {
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
  const Json messages =
      Messages(R"([{"role":"system","content":"Sys-1"},{"role":"user","content":[{"type":"text","text":"Use-1"}]},
    {"role":"system","content":"Sys-2"},
    {"role":"assistant","content":"Say-1","tool_calls":[
      {"id":"toolu_1","type":"function","function":{"name":"get_weather","arguments":"{\"city\": \"Oslo\"}"}},
      {"id":"toolu_2","type":"function","function":{"name":"get_weather","arguments":"{\"city\": \"Bergen\"}"}}]},
    {"role":"tool","tool_call_id":"toolu_1","content":"Res-1"},{"role":"tool","tool_call_id":"toolu_2","content":"Res-2"},
    {"role":"user","content":"Use-2"}])");
  for (const auto& file : std::filesystem::directory_iterator(folder)) {
    const auto source = ReadFile(file.path().string(), 1 << 20);
    ASSERT_TRUE(source.has_value());
    const std::string text =
        Rendered(Template(*source), {.messages = messages, .tools = Messages(kTools), .spell_out_tools = true});
    for (const char* word : {"Sys-1", "Use-1", "Sys-2", "get_weather", "Oslo", "Bergen", "Res-1", "Res-2", "Use-2"}) {
      EXPECT_THAT(text, HasSubstr(word)) << file.path();
    }
  }
}

}  // namespace
}  // namespace pensieve::chat
