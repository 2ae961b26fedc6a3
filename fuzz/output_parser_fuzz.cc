// Any bytes as what a model writes: the first byte chooses the tool format, the second the reasoning format and the
// flags, the rest is the output. Whole, byte by byte and in pieces of mixed lengths must say the same, and calls must be
// whole: one start, arguments, one end.
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "base/check.h"
#include "base/json.h"
#include "chat/output_parser.h"
#include "chat/stop_matcher.h"

namespace {

using namespace pensieve;

constexpr std::string_view kTools = R"([{"type": "function", "function": {"name": "f", "parameters": {"type": "object",
  "properties": {"s": {"type": "string"}, "n": {"type": "integer"}, "b": {"type": "boolean"}, "o": {"type": "object"},
  "x": {"type": "number"}, "l": {"type": "array"}}}}}])";
constexpr int kToolFormats = static_cast<int>(chat::ToolFormat::kHarmony) + 1;

chat::OutputFormat FormatOf(uint8_t tools, uint8_t rest) {
  return {.tool_format = static_cast<chat::ToolFormat>(tools % kToolFormats),
          .reasoning = static_cast<chat::ReasoningFormat>(rest % 4),
          .starts_in_reasoning = (rest & 4) != 0,
          .parse_tools = (rest & 8) == 0};
}

// One line that says what the segments say, however they are cut. Checks the order of a call's parts.
std::string Line(const std::vector<chat::Segment>& segments) {
  std::string line;
  int open_call = -1;
  int next_call = 0;
  char last = ' ';
  const auto mark = [&](char kind) {
    if (last != kind) line += kind;
    last = kind;
  };
  for (const chat::Segment& segment : segments) {
    switch (segment.kind) {
      case chat::SegmentKind::kText:
      case chat::SegmentKind::kReasoning:
        PENSIEVE_CHECK(open_call < 0);
        mark(segment.kind == chat::SegmentKind::kText ? 'T' : 'R');
        break;
      case chat::SegmentKind::kToolCallStart:
        PENSIEVE_CHECK(open_call < 0 && segment.call_index == next_call && !segment.tool_name.empty());
        open_call = next_call++;
        last = ' ';
        line += "C" + segment.tool_name + "(";
        break;
      case chat::SegmentKind::kToolCallArguments:
        PENSIEVE_CHECK(open_call >= 0 && segment.call_index == open_call);
        break;
      case chat::SegmentKind::kToolCallEnd:
        PENSIEVE_CHECK(open_call >= 0 && segment.call_index == open_call);
        open_call = -1;
        line += ")";
        break;
    }
    line += segment.text;
  }
  PENSIEVE_CHECK(open_call < 0);
  return line;
}

// Feeds `text` in pieces whose lengths follow from `step`: 0 gives it whole.
std::string Parse(const chat::OutputFormat& format, std::string_view text, size_t step) {
  static const Json tools = *ParseJson(kTools);
  const auto parser = chat::NewOutputParser(format, tools);
  std::vector<chat::Segment> segments;
  for (size_t at = 0, length = step; at < text.size(); at += length, length = length % 7 + step) {
    if (step == 0) length = text.size();
    parser->Push(text.substr(at, length), segments);
  }
  parser->Finish(segments);
  return Line(segments);
}

std::string Stopped(std::string_view text, size_t step) {
  chat::StopMatcher matcher({"</tool", "\n\n", "STOP", "}}"});
  std::string out;
  for (size_t at = 0; at < text.size(); at += step) {
    if (matcher.Push(text.substr(at, step), out)) break;
  }
  matcher.Finish(out);
  return out + static_cast<char>('0' + 1 + matcher.matched());
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* bytes, size_t size) {
  if (size < 2) return 0;
  const chat::OutputFormat format = FormatOf(bytes[0], bytes[1]);
  const std::string_view text(reinterpret_cast<const char*>(bytes) + 2, size - 2);
  const std::string whole = Parse(format, text, 0);
  for (const size_t step : {1, 3}) PENSIEVE_CHECK(Parse(format, text, step) == whole);
  PENSIEVE_CHECK(Stopped(text, 1) == Stopped(text, text.size() + 1));
  return 0;
}
