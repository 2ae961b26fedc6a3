// Splits what a model writes into text, reasoning and tool calls while it arrives.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "base/json.h"

namespace pensieve::chat {

enum class SegmentKind : uint8_t { kText, kReasoning, kToolCallStart, kToolCallArguments, kToolCallEnd };

struct Segment {
  SegmentKind kind = SegmentKind::kText;
  std::string text;       // text, reasoning, or the next piece of the arguments' JSON
  std::string tool_name;  // of kToolCallStart
  int call_index = -1;    // of the three tool call kinds, from 0
};

// Incremental: each Push appends the segments that have become certain. How the text is cut into pushes changes only
// how segments are cut, never what they say together. Markup never leaks; only a suffix that may become a marker, or a
// call whose name is not known yet, is held back. A call that cannot be read is given as plain text: nothing is lost.
// For each call: one start, any number of arguments, one end. Arguments make one JSON object, unless the output ends or
// stops being JSON inside of it. Not thread-safe; one parser per output.
class OutputParser {
 public:
  virtual ~OutputParser() = default;
  virtual void Push(std::string_view text, std::vector<Segment>& out) = 0;
  // The output is over: flushes what was held back. Call once.
  virtual void Finish(std::vector<Segment>& out) = 0;
};

enum class ToolFormat : uint8_t {
  kNone,
  kHermes,         // <tool_call>{"name": ..., "arguments": {...}}</tool_call>
  kQwenXml,        // <tool_call><function=f><parameter=k>v</parameter></function></tool_call>
  kLlama3,         // {"name": ..., "parameters": {...}} as the whole message, <|python_tag|> in front or not; or
                   // [f(k="v")], <|python_start|> around it or not
  kMistral,        // [TOOL_CALLS][{...}] and [TOOL_CALLS]f[ARGS]{...}
  kPhi4,           // functools[{...}] and <|tool_call|>[{...}]<|/tool_call|>
  kGlm,            // <tool_call>f<arg_key>k</arg_key><arg_value>v</arg_value></tool_call>
  kDeepSeek,       // <｜tool▁calls▁begin｜>...
  kKimi,           // <|tool_calls_section_begin|>...
  kMiniMax,        // <minimax:tool_call><invoke name="f"><parameter name="k">v</parameter></invoke></minimax:tool_call>
  kPythonic,       // <|tool_call_start|>[f(k="v")]<|tool_call_end|>
  kGemma,          // <|tool_call>call:f{k:<|"|>v<|"|>}<tool_call|>
  kFunctionGemma,  // <start_function_call>call:f{k:<escape>v<escape>}<end_function_call>
  kHarmony,        // channels of gpt-oss; reasoning and text come by them too
};

enum class ReasoningFormat : uint8_t {
  kNone,
  kThink,         // <think>...</think>
  kMistralThink,  // [THINK]...[/THINK]
  kSeedThink,     // <seed:think>...</seed:think>
};

struct OutputFormat {
  ToolFormat tool_format = ToolFormat::kNone;
  ReasoningFormat reasoning = ReasoningFormat::kNone;
  bool starts_in_reasoning = false;  // the prompt ends inside an open reasoning tag
  bool parse_tools = false;          // tools were given; else calls are ordinary text
};

struct ReasoningTags {
  const char* open;
  const char* close;
};
// Null for kNone.
const ReasoningTags* TagsOf(ReasoningFormat format);

// By what stands in the template; `rendered_prompt_tail` is the end of the prompt (some hundred bytes suffice).
OutputFormat DetectOutputFormat(const std::string& template_source, const std::string& rendered_prompt_tail,
                                bool tools_given);

// `tools`: array as in RenderInputs or null; their schemas decide the types of arguments that arrive as bare text.
std::unique_ptr<OutputParser> NewOutputParser(const OutputFormat& format, const Json& tools);

}  // namespace pensieve::chat
