// Families that write arguments as tagged text: Qwen3-Coder, GLM and MiniMax. The schema decides the types.
#include <algorithm>

#include "chat/output_parser_parts.h"
#include "chat/python_text.h"

namespace pensieve::chat {
namespace {

constexpr size_t kNone = std::string_view::npos;

// Takes the text up to `mark` off the front of `rest`, the mark too. False when there is none.
bool TakeUntil(std::string_view& rest, std::string_view mark, std::string_view& taken) {
  const size_t at = rest.find(mark);
  if (at == kNone) return false;
  taken = rest.substr(0, at);
  rest.remove_prefix(at + mark.size());
  return true;
}

bool TakePrefix(std::string_view& rest, std::string_view prefix) {
  rest = StripSpaceLeft(rest);
  if (!rest.starts_with(prefix)) return false;
  rest.remove_prefix(prefix.size());
  return true;
}

// Exactly one line end on either side belongs to the markup.
std::string Unwrapped(std::string_view value) {
  if (value.starts_with('\n')) value.remove_prefix(1);
  if (value.ends_with('\n')) value.remove_suffix(1);
  return std::string(value);
}

// <function=f>\n<parameter=k>\nv\n</parameter>...</function>, one or several.
bool ParseQwenXml(std::string_view rest, const Json& tools, std::vector<ToolCall>& calls) {
  while (TakePrefix(rest, "<function=")) {
    std::string_view name;
    std::string_view body;
    if (!TakeUntil(rest, ">", name) || !TakeUntil(rest, "</function>", body)) return false;
    Json arguments = Json::object();
    while (TakePrefix(body, "<parameter=")) {
      std::string_view key;
      std::string_view value;
      if (!TakeUntil(body, ">", key) || !TakeUntil(body, "</parameter>", value)) return false;
      arguments[std::string(key)] = ConvertArgument(tools, std::string(name), std::string(key), Unwrapped(value));
    }
    if (!StripSpace(body).empty() || name.empty()) return false;
    calls.push_back(ToolCall{std::string(name), DumpJson(arguments)});
  }
  return StripSpace(rest).empty() && !calls.empty();
}

// With <tool_call> around it the block ends there; without, at </function>, which is part of what is parsed.
bool ParseQwenBlock(std::string_view block, const Json& tools, std::vector<ToolCall>& calls) {
  if (block.starts_with("<tool_call>")) return ParseQwenXml(block.substr(11), tools, calls);
  return ParseQwenXml(std::string(block) + "</function>", tools, calls);
}

// f\n<arg_key>k</arg_key>\n<arg_value>v</arg_value>...
bool ParseGlm(std::string_view rest, const Json& tools, std::vector<ToolCall>& calls) {
  const size_t name_end = std::min(rest.find("<arg_key>"), rest.size());
  const std::string name(StripSpace(rest.substr(0, name_end)));
  if (name.empty() || name.find_first_of("<>{}\n\"") != std::string::npos) return false;
  rest.remove_prefix(name_end);
  Json arguments = Json::object();
  while (TakePrefix(rest, "<arg_key>")) {
    std::string_view key;
    std::string_view value;
    if (!TakeUntil(rest, "</arg_key>", key) || !TakePrefix(rest, "<arg_value>")) return false;
    if (!TakeUntil(rest, "</arg_value>", value)) return false;
    arguments[std::string(key)] = ConvertArgument(tools, name, std::string(key), std::string(value));
  }
  if (!StripSpace(rest).empty()) return false;
  calls.push_back(ToolCall{name, DumpJson(arguments)});
  return true;
}

// <invoke name="f"><parameter name="k">v</parameter></invoke>...
bool ParseMiniMax(std::string_view rest, const Json& tools, std::vector<ToolCall>& calls) {
  while (TakePrefix(rest, "<invoke name=\"")) {
    std::string_view name;
    std::string_view body;
    if (!TakeUntil(rest, "\">", name) || !TakeUntil(rest, "</invoke>", body)) return false;
    Json arguments = Json::object();
    while (TakePrefix(body, "<parameter name=\"")) {
      std::string_view key;
      std::string_view value;
      if (!TakeUntil(body, "\">", key) || !TakeUntil(body, "</parameter>", value)) return false;
      arguments[std::string(key)] = ConvertArgument(tools, std::string(name), std::string(key), Unwrapped(value));
    }
    if (!StripSpace(body).empty() || name.empty()) return false;
    calls.push_back(ToolCall{std::string(name), DumpJson(arguments)});
  }
  return StripSpace(rest).empty() && !calls.empty();
}

}  // namespace

BlockFormat QwenXmlFormat() {
  return BlockFormat{.open = {"<tool_call>", "<function="},
                     .close = {"</tool_call>", "</function>"},
                     .trailer = "</tool_call>",
                     .keep_open = true,
                     .parse = ParseQwenBlock};
}
BlockFormat GlmFormat() { return BlockFormat{.open = {"<tool_call>"}, .close = {"</tool_call>"}, .parse = ParseGlm}; }
BlockFormat MiniMaxFormat() {
  return BlockFormat{.open = {"<minimax:tool_call>"}, .close = {"</minimax:tool_call>"}, .parse = ParseMiniMax};
}

}  // namespace pensieve::chat
