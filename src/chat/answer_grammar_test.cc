#include "chat/answer_grammar.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "sampling/constraint.h"
#include "sampling/constraint_fixture.h"

namespace pensieve::chat {
namespace {

using ::testing::HasSubstr;
using ::testing::StartsWith;

Json Tool(const std::string& name, const Json& parameters) {
  return {{"type", "function"}, {"function", {{"name", name}, {"parameters", parameters}}}};
}

const Json kCity = {{"type", "object"},
                    {"properties", {{"city", {{"type", "string"}}}}},
                    {"required", {"city"}},
                    {"additionalProperties", false}};
const Json kSum = {{"type", "object"}, {"properties", {{"a", {{"type", "integer"}}}}}, {"required", {"a"}}};

AnswerRules Rules(ToolFormat format, CallRule calls, const std::string& source = "") {
  AnswerRules rules;
  rules.calls = calls;
  rules.tools = Json::array({Tool("weather", kCity), Tool("sum", kSum)});
  rules.format.tool_format = format;
  rules.format.parse_tools = true;
  rules.template_source = source;
  return rules;
}

void ExpectAnswers(const AnswerRules& rules, const std::vector<std::string>& good,
                   const std::vector<std::string>& bad) {
  const auto grammar = CompileAnswer(rules);
  ASSERT_TRUE(grammar.has_value()) << grammar.error().ToString();
  ASSERT_NE(*grammar, nullptr);
  for (const std::string& text : good) EXPECT_TRUE(sampling::Matches(**grammar, text)) << text;
  for (const std::string& text : bad) EXPECT_FALSE(sampling::Matches(**grammar, text)) << text;
}

TEST(AnswerGrammar, NothingAskedIsNoGrammar) {
  AnswerRules rules;
  EXPECT_EQ(*CompileAnswer(rules), nullptr);
  rules.calls = CallRule::kAllowed;
  EXPECT_EQ(*CompileAnswer(rules), nullptr);
}

// Each family's calls, as its parser reads them.
TEST(AnswerGrammar, DemandsACallInTheFamilysSyntax) {
  struct Family {
    ToolFormat format;
    const char* source;
    std::string good;
    std::string bad;
  };
  const std::string city = R"({"city": "Rome"})";
  const std::vector<Family> families = {
      {ToolFormat::kHermes, "", "<tool_call>\n{\"name\": \"weather\", \"arguments\": " + city + "}\n</tool_call>",
       "<tool_call>\n{\"name\": \"weather\", \"arguments\": {}}\n</tool_call>"},
      {ToolFormat::kLlama3, "", R"({"name": "sum", "parameters": {"a": 1}})", R"({"name": "other", "parameters": {}})"},
      {ToolFormat::kMistral, "", R"([TOOL_CALLS][{"name": "sum", "arguments": {"a": 1}}])", R"([TOOL_CALLS][])"},
      {ToolFormat::kMistral, "[ARGS]", "[TOOL_CALLS]weather[ARGS]" + city, "[TOOL_CALLS]weather[ARGS]{}"},
      {ToolFormat::kPhi4, "", R"(functools[{"name": "sum", "arguments": {"a": 1}}])", R"(functools[])"},
      {ToolFormat::kPhi4, "<|tool_call|>", R"(<|tool_call|>[{"name": "sum", "arguments": {"a": 1}}]<|/tool_call|>)",
       "[]"},
      {ToolFormat::kDeepSeek, "",
       "<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>sum<｜tool▁sep｜>{\"a\": 1}<｜tool▁call▁end｜><｜tool▁calls▁end｜>",
       "sum"},
      {ToolFormat::kDeepSeek, "```json",
       "<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>function<｜tool▁sep｜>sum\n```json\n{\"a\": 1}\n```<｜tool▁call▁end｜><｜tool▁calls▁end｜>",
       "function"},
      {ToolFormat::kKimi, "",
       "<|tool_calls_section_begin|><|tool_call_begin|>functions.sum:0<|tool_call_argument_begin|>{\"a\": 1}"
       "<|tool_call_end|><|tool_calls_section_end|>",
       "functions.sum:0"},
      {ToolFormat::kHarmony, "", "<|channel|>commentary to=functions.sum <|constrain|>json<|message|>{\"a\": 1}",
       "<|channel|>final<|message|>hi"},
  };
  for (const Family& family : families) {
    AnswerRules rules = Rules(family.format, CallRule::kDemanded, family.source);
    ExpectAnswers(rules, {family.good}, {family.bad, "", "Hello", family.good + "Hello"});
    // What the grammar allows, the parser reads as a call.
    const auto parser = NewOutputParser(rules.format, rules.tools);
    std::vector<Segment> segments;
    parser->Push(family.good, segments);
    parser->Finish(segments);
    const auto is_call = [](const Segment& segment) { return segment.kind == SegmentKind::kToolCallStart; };
    EXPECT_EQ(std::count_if(segments.begin(), segments.end(), is_call), 1) << family.good;
  }
}

TEST(AnswerGrammar, OneCallOrSeveral) {
  const std::string call = "<tool_call>\n{\"name\": \"sum\", \"arguments\": {\"a\": 1}}\n</tool_call>";
  AnswerRules rules = Rules(ToolFormat::kHermes, CallRule::kDemanded);
  ExpectAnswers(rules, {call, call + "\n" + call}, {call + "\n"});
  rules.parallel_calls = false;
  ExpectAnswers(rules, {call}, {call + "\n" + call});
}

TEST(AnswerGrammar, FreeTextIsFreeUntilACallIsOpened) {
  const std::string call = "<tool_call>{\"name\":\"sum\",\"arguments\":{\"a\":1}}\n</tool_call>";
  const AnswerRules rules = Rules(ToolFormat::kHermes, CallRule::kAllowed);
  ExpectAnswers(
      rules, {"", "Hello <tool_cal", "Well: " + call + " and " + call + " done", "{\"name\": 5}"},
      {"<tool_call>", "Hello <tool_call> there", "<tool_call>\n{\"name\": \"none\", \"arguments\": {}}\n</tool_call>"});
}

TEST(AnswerGrammar, SpecialTokensMayOpenACall) {
  const auto grammar = *CompileAnswer(Rules(ToolFormat::kHermes, CallRule::kAllowed));
  const auto vocabulary = sampling::MakeVocabulary({"Hello"}, {"<tool_call>", "<|im_end|>"});
  auto constraint = sampling::NewGrammarConstraint(grammar, vocabulary);
  sampling::TokenSet mask(vocabulary->trie().size());
  ASSERT_TRUE(constraint->Accept(256));
  ASSERT_TRUE(constraint->Accept(257));
  EXPECT_FALSE(constraint->accepting());
  constraint->FillMask(mask);
  EXPECT_EQ(mask.Count(), 2);  // a line end or a brace
  EXPECT_TRUE(mask.Has('\n'));
  EXPECT_TRUE(mask.Has('{'));
}

TEST(AnswerGrammar, ReasoningComesFirstAndIsFree) {
  AnswerRules rules;
  rules.form = AnswerForm::kJsonSchema;
  rules.schema = {{"type", "integer"}};
  rules.format.reasoning = ReasoningFormat::kThink;
  ExpectAnswers(rules, {"5", "<think>\nhm, \"5\"?\n</think>\n\n5"}, {"hm", "<think>5", "5<think></think>"});
  rules.format.starts_in_reasoning = true;
  ExpectAnswers(rules, {"let me see</think>5", "</think>\n5"}, {"5"});
}

TEST(AnswerGrammar, HarmonyAnswersInItsFinalChannel) {
  AnswerRules rules;
  rules.form = AnswerForm::kJsonSchema;
  rules.schema = {{"type", "integer"}};
  rules.format.tool_format = ToolFormat::kHarmony;
  ExpectAnswers(
      rules,
      {"<|channel|>final<|message|>5",
       "<|channel|>analysis<|message|>so<|end|><|start|>assistant<|channel|>final <|constrain|>json<|message|>5"},
      {"5", "<|channel|>analysis<|message|>5", "<|channel|>final<|message|>five"});
}

TEST(AnswerGrammar, AnswersOrCallsWhenBothAreAllowed) {
  AnswerRules rules = Rules(ToolFormat::kHermes, CallRule::kAllowed);
  rules.form = AnswerForm::kRegex;
  rules.text = "yes|no";
  ExpectAnswers(rules, {"yes", "<tool_call>\n{\"name\": \"sum\", \"arguments\": {\"a\": 1}}\n</tool_call>"},
                {"maybe", ""});
}

TEST(AnswerGrammar, RefusesByNameWhatCannotBeEnforced) {
  AnswerRules rules;
  rules.form = AnswerForm::kJsonSchema;
  rules.schema = {{"contains", Json::object()}};
  EXPECT_THAT(CompileAnswer(rules).error().message(), StartsWith("schema: contains:"));
  rules.form = AnswerForm::kRegex;
  rules.text = "(?=a)";
  EXPECT_THAT(CompileAnswer(rules).error().message(), StartsWith("regex: lookahead"));
  rules.form = AnswerForm::kGrammar;
  rules.text = "a ::= b";
  EXPECT_THAT(CompileAnswer(rules).error().message(), StartsWith("grammar: "));
  rules = Rules(ToolFormat::kHermes, CallRule::kDemanded);
  rules.tools.push_back(Tool("odd", {{"contains", Json::object()}}));
  EXPECT_THAT(CompileAnswer(rules).error().message(), StartsWith("tools: odd: contains:"));
  EXPECT_THAT(CompileAnswer(Rules(ToolFormat::kPythonic, CallRule::kDemanded)).error().message(),
              HasSubstr("tool_choice"));
}

// A tool that nobody demanded strictly may have arguments that cannot be enforced.
TEST(AnswerGrammar, ToolsThatAreNotStrictStayUsable) {
  AnswerRules rules = Rules(ToolFormat::kHermes, CallRule::kAllowed);
  rules.tools.push_back(Tool("odd", {{"contains", Json::object()}}));
  rules.tools.push_back(Tool("never", {{"type", "string"}}));
  ExpectAnswers(rules,
                {"<tool_call>\n{\"name\": \"odd\", \"arguments\": {\"x\": []}}\n</tool_call>",
                 "<tool_call>\n{\"name\": \"never\", \"arguments\": {}}\n</tool_call>"},
                {"<tool_call>\n{\"name\": \"odd\", \"arguments\": []}\n</tool_call>"});
  rules.strict_tools = {"never"};
  EXPECT_THAT(CompileAnswer(rules).error().message(), StartsWith("tools: never:"));
}

TEST(AnswerGrammar, EqualRulesHaveEqualFingerprints) {
  AnswerRules a = Rules(ToolFormat::kHermes, CallRule::kAllowed);
  AnswerRules b = a;
  b.tools[0]["function"]["description"] = "words";
  EXPECT_EQ(a.Fingerprint(), b.Fingerprint());
  b.tools[0]["function"]["name"] = "else";
  EXPECT_NE(a.Fingerprint(), b.Fingerprint());
  b = a;
  b.form = AnswerForm::kJsonSchema;
  EXPECT_NE(a.Fingerprint(), b.Fingerprint());
}

}  // namespace
}  // namespace pensieve::chat
