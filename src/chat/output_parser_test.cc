#include "chat/output_parser.h"

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <random>

#include "chat/stop_matcher.h"

namespace pensieve::chat {
namespace {

// Segments as one line, pieces of the same kind joined: T text, R reasoning, C0:name(arguments) a call, ! unclosed.
std::string Line(const std::vector<Segment>& segments) {
  std::string line;
  SegmentKind last = SegmentKind::kToolCallEnd;
  for (const Segment& segment : segments) {
    switch (segment.kind) {
      case SegmentKind::kText: line += (last == segment.kind ? "" : "|T ") + segment.text; break;
      case SegmentKind::kReasoning: line += (last == segment.kind ? "" : "|R ") + segment.text; break;
      case SegmentKind::kToolCallStart: line += fmt::format("|C{}:{}(", segment.call_index, segment.tool_name); break;
      case SegmentKind::kToolCallArguments: line += segment.text; break;
      case SegmentKind::kToolCallEnd: line += ")"; break;
    }
    last = segment.kind;
  }
  return line;
}

using Pieces = std::vector<std::string_view>;

std::string Parse(const OutputFormat& format, const Json& tools, const Pieces& pieces) {
  const auto parser = NewOutputParser(format, tools);
  std::vector<Segment> segments;
  for (const std::string_view piece : pieces) parser->Push(piece, segments);
  parser->Finish(segments);
  return Line(segments);
}

const Json kTools =
    Json::parse(R"([{"type":"function","function":{"name":"f","parameters":{"type":"object","properties":{
  "s":{"type":"string"},"n":{"type":"integer"},"b":{"type":"boolean"},"o":{"type":"object"},"x":{"type":"number"}}}}}])");

// The whole text at once, byte by byte, and cut in two at every place must all say the same.
void Expect(const OutputFormat& format, const std::string& text, const std::string& wanted) {
  EXPECT_EQ(Parse(format, kTools, {text}), wanted) << text;
  Pieces bytes;
  for (size_t i = 0; i < text.size(); ++i) bytes.push_back(std::string_view(text).substr(i, 1));
  EXPECT_EQ(Parse(format, kTools, bytes), wanted) << "byte by byte: " << text;
  for (size_t cut = 1; cut < text.size(); ++cut) {
    const std::string_view view(text);
    ASSERT_EQ(Parse(format, kTools, {view.substr(0, cut), view.substr(cut)}), wanted)
        << "cut at " << cut << ": " << text;
  }
}

OutputFormat Tools(ToolFormat format) { return {.tool_format = format, .parse_tools = true}; }

TEST(OutputParser, Hermes) {
  const OutputFormat f = Tools(ToolFormat::kHermes);
  Expect(f, "Hello.", "|T Hello.");
  Expect(f, "a < b <tool or <tool_cal", "|T a < b <tool or <tool_cal");
  Expect(
      f,
      "I look.\n<tool_call>\n{\"name\": \"f\", \"arguments\": {\"s\": \"</tool_call> \\\" }\", \"o\": {\"a\": [1]}}}\n</tool_call>",
      "|T I look.|C0:f({\"s\": \"</tool_call> \\\" }\", \"o\": {\"a\": [1]}})");
  Expect(
      f,
      "<tool_call>{\"name\": \"f\", \"arguments\": {}}</tool_call>\n<tool_call>\n{\"name\": \"g\", \"parameters\": {\"a\":1.5e3}}\n</tool_call> done",
      "|C0:f({})|C1:g({\"a\":1.5e3})|T  done");
  Expect(f, "<tool_call>{\"arguments\": {\"a\": 1}, \"name\": \"f\"}</tool_call>", "|C0:f({\"a\":1})");
  Expect(f, "<tool_call>{\"name\": \"f\", \"arguments\": \"{\\\"a\\\": 1}\"}</tool_call>", "|C0:f({\"a\":1})");
  Expect(f, "<tool_call>{\"id\": \"x\", \"name\": \"f\", \"arguments\": {}, \"k\": \"v\"}</tool_call>!",
         "|C0:f({})|T !");
  Expect(f, "<tool_call>{\"name\": \"f\"}</tool_call>", "|C0:f({})");
}

TEST(OutputParser, HermesMalformedIsText) {
  const OutputFormat f = Tools(ToolFormat::kHermes);
  for (const char* text :
       {"x\n<tool_call>\nnot json\n</tool_call> y", "<tool_call>{\"nam\": 1}</tool_call>", "<tool_call>",
        "<tool_call>{\"name\": \"f\", \"arguments\": 5}</tool_call>", "<tool_call>{\"name\": ", "</tool_call>",
        "<tool_call>{\"name\": \"f\", \"arg</tool_call>\n<tool_call>x\": {\"a\": 1}}"}) {
    Expect(f, text, std::string("|T ") + text);
  }
  // The end of the output inside of the arguments, and missing closing tags.
  Expect(f, "<tool_call>{\"name\": \"f\", \"arguments\": {\"a\": \"b", "|C0:f({\"a\": \"b)");
  Expect(f, "<tool_call>{\"name\": \"f\", \"arguments\": {\"a\": 1}}\n", "|C0:f({\"a\": 1})");
  Expect(f, "<tool_call>{\"name\": \"f\", \"arguments\": {\"a\": 1}}\n<tool_call>{\"name\": \"g\", \"arguments\": {}}",
         "|C0:f({\"a\": 1})|C1:g({})");
}

TEST(OutputParser, HermesStreamsArgumentsAsTheyArrive) {
  const auto parser = NewOutputParser(Tools(ToolFormat::kHermes), kTools);
  std::vector<Segment> out;
  parser->Push("<tool_call>\n{\"name\": \"f\", \"arguments\": {\"s\": \"ab", out);
  ASSERT_EQ(out.size(), 2u);
  EXPECT_EQ(out[0].tool_name, "f");
  EXPECT_EQ(out[1].text, "{\"s\": \"ab");
}

TEST(OutputParser, QwenXml) {
  const OutputFormat f = Tools(ToolFormat::kQwenXml);
  Expect(
      f,
      "Hi\n<tool_call>\n<function=f>\n<parameter=s>\n12\n</parameter>\n<parameter=n>\n3\n</parameter>\n<parameter=b>\nTrue\n"
      "</parameter>\n<parameter=o>\n{\"a\": 1}\n</parameter>\n<parameter=x>\n2.5\n</parameter>\n</function>\n</tool_call>",
      "|T Hi|C0:f({\"s\":\"12\",\"n\":3,\"b\":true,\"o\":{\"a\":1},\"x\":2.5})");
  Expect(f, "<function=f>\n<parameter=s>\n\nline\n\n</parameter>\n</function>\n</tool_call>end",
         "|C0:f({\"s\":\"\\nline\\n\"})|T end");
  Expect(f, "<tool_call>nonsense</tool_call>", "|T <tool_call>nonsense</tool_call>");
}

TEST(OutputParser, Llama3) {
  const OutputFormat f = Tools(ToolFormat::kLlama3);
  Expect(f, "{\"name\": \"f\", \"parameters\": {\"a\": 1}}", "|C0:f({\"a\":1})");
  Expect(f, "<|python_tag|>{\"name\": \"f\", \"parameters\": {}}; {\"name\": \"g\", \"parameters\": {}}<|eom_id|>",
         "|C0:f({})|C1:g({})");
  Expect(f, "{\"just\": \"json\"}", "|T {\"just\": \"json\"}");
  Expect(f, "Say {\"name\": \"f\"}", "|T Say {\"name\": \"f\"}");
}

TEST(OutputParser, Pythonic) {
  const OutputFormat f = Tools(ToolFormat::kPythonic);
  Expect(f, "Let me see. <|tool_call_start|>[f(s=\"a, \\\"b\\\"\", n=-2, x=1.5e3, b=True), g()]<|tool_call_end|> ok",
         "|T Let me see.|C0:f({\"s\":\"a, \\\"b\\\"\",\"n\":-2,\"x\":1500.0,\"b\":true})|C1:g({})|T  ok");
  Expect(f, "<|tool_call_start|>[f(s='it\\'s\\u00e9\\x41\\q', o={'k': [1, None, (2,)], \"l\": {}},)]<|tool_call_end|>",
         "|C0:f({\"s\":\"it's\u00e9A\\\\q\",\"o\":{\"k\":[1,null,[2]],\"l\":{}}})");
  for (const char* text :
       {"<|tool_call_start|>[f(1)]<|tool_call_end|>", "<|tool_call_start|>[f(a=)]<|tool_call_end|>",
        "<|tool_call_start|>[f(a='x]<|tool_call_end|>", "<|tool_call_start|>f()<|tool_call_end|>",
        "<|tool_call_start|>[f(a=b)]<|tool_call_end|>", "<|tool_call_start|>[f(a='\\u12')]<|tool_call_end|>",
        "<|tool_call_start|>[f()] x<|tool_call_end|>"}) {
    Expect(f, text, std::string("|T ") + text);
  }
  const OutputFormat llama = Tools(ToolFormat::kLlama3);
  Expect(llama, "[f(a=1), g(b='x')]<|eot_id|>", "|C0:f({\"a\":1})|C1:g({\"b\":\"x\"})");
  Expect(llama, "<|python_start|>[f(a=1)]<|python_end|><|eom|>", "|C0:f({\"a\":1})");
  Expect(llama, "[1] says so", "|T [1] says so");
  Expect(Tools(ToolFormat::kPythonic), "<|tool_call_start|>[f(a=" + std::string(100, '[') + "]<|tool_call_end|>",
         "|T <|tool_call_start|>[f(a=" + std::string(100, '[') + "]<|tool_call_end|>");
}

TEST(OutputParser, Gemma) {
  const OutputFormat f = Tools(ToolFormat::kGemma);
  Expect(f, "<|tool_call>call:f{s:<|\"|>say \"hi\", {a}<|\"|>,n:3,o:{k:[1,<|\"|>x<|\"|>],b:false}}<tool_call|>",
         "|C0:f({\"s\":\"say \\\"hi\\\", {a}\",\"n\":3,\"o\":{\"k\":[1,\"x\"],\"b\":false}})");
  Expect(f, "A <|tool_call>call:f{}<tool_call|><|tool_call>call:g{a:null}<tool_call|>",
         "|T A|C0:f({})|C1:g({\"a\":null})");
  Expect(f, "<|tool_call>call:f{a:word}<tool_call|>", "|T <|tool_call>call:f{a:word}<tool_call|>");
  Expect(Tools(ToolFormat::kFunctionGemma),
         "<start_function_call>call:f{s:<escape>Oslo<escape>,n:2}<end_function_call>",
         "|C0:f({\"s\":\"Oslo\",\"n\":2})");
}

TEST(OutputParser, Mistral) {
  const OutputFormat f = Tools(ToolFormat::kMistral);
  Expect(
      f,
      "[TOOL_CALLS][{\"name\": \"f\", \"arguments\": {\"a\": [1]}, \"id\": \"abcdefghi\"}, {\"name\": \"g\", \"arguments\": {}}]",
      "|C0:f({\"a\":[1]})|C1:g({})");
  Expect(f, "ok [TOOL_CALLS]f[CALL_ID]abc[ARGS]{\"a\": 1}[TOOL_CALLS]g[ARGS]{}", "|T ok|C0:f({\"a\":1})|C1:g({})");
  Expect(f, "[TOOL_CALLS]broken", "|T [TOOL_CALLS]broken");
  Expect(f, "[TOOL_", "|T [TOOL_");
}

TEST(OutputParser, OtherFamilies) {
  Expect(Tools(ToolFormat::kPhi4), "functools[{\"name\": \"f\", \"arguments\": {\"a\": 1}}]", "|C0:f({\"a\":1})");
  Expect(Tools(ToolFormat::kPhi4), "<|tool_call|>[{\"name\": \"f\", \"parameters\": {}}]<|/tool_call|>", "|C0:f({})");
  Expect(Tools(ToolFormat::kPhi4), "functools is a module", "|T functools is a module");
  Expect(
      Tools(ToolFormat::kGlm),
      "A\n<tool_call>f\n<arg_key>s</arg_key>\n<arg_value>5</arg_value>\n<arg_key>n</arg_key>\n<arg_value>5</arg_value>\n</tool_call>",
      "|T A|C0:f({\"s\":\"5\",\"n\":5})");
  Expect(
      Tools(ToolFormat::kDeepSeek),
      "<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>function<｜tool▁sep｜>f\n```json\n{\"a\": 1}\n```<｜tool▁call▁end｜>"
      "<｜tool▁call▁begin｜>g<｜tool▁sep｜>{}<｜tool▁call▁end｜><｜tool▁calls▁end｜>",
      "|C0:f({\"a\":1})|C1:g({})");
  Expect(
      Tools(ToolFormat::kKimi),
      "<|tool_calls_section_begin|><|tool_call_begin|>functions.f:0<|tool_call_argument_begin|>{\"a\": 1}<|tool_call_end|>"
      "<|tool_calls_section_end|>",
      "|C0:f({\"a\":1})");
  Expect(
      Tools(ToolFormat::kMiniMax),
      "<minimax:tool_call>\n<invoke name=\"f\">\n<parameter name=\"n\">7</parameter>\n</invoke>\n</minimax:tool_call>",
      "|C0:f({\"n\":7})");
}

TEST(OutputParser, Harmony) {
  const OutputFormat f = Tools(ToolFormat::kHarmony);
  Expect(f, "<|channel|>analysis<|message|>Hm < 3<|end|><|start|>assistant<|channel|>final<|message|>Hello!<|return|>",
         "|R Hm < 3|T Hello!");
  Expect(f, "<|channel|>commentary to=functions.f <|constrain|>json<|message|>{\"a\": 1}<|call|>", "|C0:f({\"a\": 1})");
  Expect(f, " to=functions.f<|channel|>commentary json<|message|><|call|>", "|C0:f({})");
  Expect(f,
         "<|channel|>analysis<|message|>Weather.<|end|><|start|>assistant<|channel|>commentary<|message|>I look.<|end|>"
         "<|start|>assistant<|channel|>commentary to=functions.f <|constrain|>json<|message|>{\"a\": 1}<|call|>",
         "|R Weather.|T I look.|C0:f({\"a\": 1})");
  Expect(
      f,
      "<|channel|>commentary to=functions.f<|message|>{\"a\": 1}<|call|><|start|>assistant to=functions.g<|channel|>commentary"
      "<|message|>{}<|call|>",
      "|C0:f({\"a\": 1})|C1:g({})");
  // A recipient without a name is nobody.
  Expect(f, "<|channel|>commentary to=functions.<|message|>{}<|call|>", "|T {}");
  const std::string long_header = "<|channel|>" + std::string(4096, 'x') + "<|message|>text";
  Expect(f, long_header, "|T " + long_header);
  Expect(f, "<|channel|>final<|message|>cut <|en", "|T cut <|en");
  Expect(f, "no format", "|T no format");
}

TEST(OutputParser, Reasoning) {
  OutputFormat f{.reasoning = ReasoningFormat::kThink};
  Expect(f, "<think>\nhm\n\nso\n</think>\n\nHello", "|R hm\n\nso|T Hello");
  Expect(f, "<think>\n\n</think>\n\nHello", "|T Hello");
  Expect(f, "Hello <think>", "|T Hello <think>");
  Expect(f, "<thin", "|T <thin");
  Expect(f, "<think>cut of", "|R cut of");
  f.starts_in_reasoning = true;
  Expect(f, "hm</think>Hello", "|R hm|T Hello");
  Expect(f, "<think>\nhm\n</think>\nHello", "|R hm|T Hello");
  Expect(f, "hm </thin", "|R hm </thin");
  f.tool_format = ToolFormat::kHermes;
  f.parse_tools = true;
  Expect(f, "hm\n</think>\n\n<tool_call>\n{\"name\": \"f\", \"arguments\": {}}\n</tool_call>", "|R hm|C0:f({})");
}

TEST(OutputParser, Detects) {
  const auto format = [](const std::string& source, const std::string& tail = "") {
    return DetectOutputFormat(source, tail, true);
  };
  EXPECT_EQ(format("<tool_call> tool_call.name").tool_format, ToolFormat::kHermes);
  EXPECT_EQ(format("'<tool_call>\\n<function='").tool_format, ToolFormat::kQwenXml);
  EXPECT_EQ(format("<|start_header_id|> \"parameters\"").tool_format, ToolFormat::kLlama3);
  EXPECT_EQ(format("<|header_start|> <|python_start|>").tool_format, ToolFormat::kLlama3);
  EXPECT_EQ(format("List of tools: <|tool_list_start|>").tool_format, ToolFormat::kPythonic);
  EXPECT_EQ(format("<|tool_call>call: <tool_call|>").tool_format, ToolFormat::kGemma);
  EXPECT_EQ(format("<start_function_call>").tool_format, ToolFormat::kFunctionGemma);
  EXPECT_EQ(format("<|start|><|channel|><|message|>").tool_format, ToolFormat::kHarmony);
  EXPECT_EQ(format("plain").tool_format, ToolFormat::kHermes);
  EXPECT_EQ(format("plain").reasoning, ReasoningFormat::kNone);
  EXPECT_TRUE(format("</think>", "<|im_start|>assistant\n<think>\n").starts_in_reasoning);
  EXPECT_FALSE(format("</think>", "assistant\n<think>\n\n</think>\n\n").starts_in_reasoning);
  EXPECT_EQ(format("[THINK]").reasoning, ReasoningFormat::kMistralThink);
}

TEST(OutputParser, RandomOutputNeverCrashesAndCutsNeverMatter) {
  const char* const kParts[] = {"<tool_call>",
                                "</tool_call>",
                                "{",
                                "}",
                                "\"name\"",
                                ":",
                                "\"f\"",
                                ",",
                                "\"arguments\"",
                                "\n",
                                " ",
                                "<function=f>",
                                "<parameter=s>",
                                "</parameter>",
                                "</function>",
                                "[TOOL_CALLS]",
                                "[ARGS]",
                                "[",
                                "]",
                                "<think>",
                                "</think>",
                                "<|channel|>",
                                "final",
                                "<|message|>",
                                "<|end|>",
                                "text",
                                "<",
                                "é",
                                "functools[",
                                "<|python_tag|>",
                                "<|tool_call_start|>",
                                "<|tool_call_end|>",
                                "(",
                                ")",
                                "a=",
                                "'",
                                "call:f",
                                "<|tool_call>",
                                "<tool_call|>",
                                "<|\"|>",
                                "<arg_key>",
                                "</arg_key>",
                                "<|start|>",
                                " to=functions.g"};
  std::mt19937 random(11);
  for (int round = 0; round < 4000; ++round) {
    std::string text;
    for (size_t i = random() % 14; i > 0; --i) text += kParts[random() % std::size(kParts)];
    const OutputFormat format{.tool_format = static_cast<ToolFormat>(random() % 14),
                              .reasoning = static_cast<ReasoningFormat>(random() % 2),
                              .starts_in_reasoning = random() % 3 == 0,
                              .parse_tools = true};
    Pieces bytes;
    for (size_t i = 0; i < text.size(); ++i) bytes.push_back(std::string_view(text).substr(i, 1));
    ASSERT_EQ(Parse(format, kTools, {text}), Parse(format, kTools, bytes))
        << text << " format " << static_cast<int>(format.tool_format);
  }
}

TEST(StopMatcher, HoldsBackAndNeverShowsStops) {
  const auto run = [](std::vector<std::string> stops, const Pieces& pieces, int& matched) {
    StopMatcher matcher(std::move(stops));
    std::string out;
    for (const std::string_view piece : pieces) matcher.Push(piece, out);
    matcher.Finish(out);
    matched = matcher.matched();
    return out;
  };
  const struct {
    std::vector<std::string> stops;
    std::string text, wanted;
    int matched;
  } cases[] = {
      {{"STOP"}, "go STOP on", "go ", 0}, {{"STOP"}, "go STO", "go STO", -1}, {{"aab"}, "aaab", "a", 0},
      {{"abc", "b"}, "xabc", "xa", 1},    {{"bc", "abc"}, "xabcd", "x", 1},   {{""}, "text", "text", -1},
      {{}, "text", "text", -1},           {{"\n\n"}, "a\nb\n\nc", "a\nb", 0}, {{"é"}, "caf\xc3\xa9", "caf", 0}};
  for (const auto& item : cases) {
    Pieces bytes;
    for (size_t i = 0; i < item.text.size(); ++i) bytes.push_back(std::string_view(item.text).substr(i, 1));
    for (const Pieces& pieces : {Pieces{item.text}, bytes}) {
      int matched = 0;
      EXPECT_EQ(run(item.stops, pieces, matched), item.wanted) << item.text;
      EXPECT_EQ(matched, item.matched) << item.text;
    }
  }
  StopMatcher matcher({"STOP"});
  std::string out;
  EXPECT_FALSE(matcher.Push("abS", out));
  EXPECT_EQ(out, "ab");
  EXPECT_FALSE(matcher.Push("x", out));
  EXPECT_EQ(out, "abSx");
  EXPECT_TRUE(matcher.Push("STOPy", out));
  EXPECT_TRUE(matcher.Push("more", out));
  EXPECT_EQ(out, "abSx");
}

}  // namespace
}  // namespace pensieve::chat
