// Families that write calls as JSON between markers of their own: Llama 3, Mistral, Phi-4, DeepSeek and Kimi.
#include "chat/output_parser_parts.h"
#include "chat/python_text.h"

namespace pensieve::chat {
namespace {

constexpr size_t kNone = std::string_view::npos;

bool TakePrefix(std::string_view& rest, std::string_view prefix) {
  rest = StripSpaceLeft(rest);
  if (!rest.starts_with(prefix)) return false;
  rest.remove_prefix(prefix.size());
  return true;
}

// Takes one JSON object or array off the front.
std::optional<Json> TakeJson(std::string_view& rest) {
  rest = StripSpaceLeft(rest);
  const size_t bytes = JsonValueBytes(rest);
  if (bytes == 0) return std::nullopt;
  auto json = ParseJson(rest.substr(0, bytes));
  if (!json.has_value()) return std::nullopt;
  rest.remove_prefix(bytes);
  return *std::move(json);
}

bool TakeArguments(std::string_view& rest, std::string name, std::vector<ToolCall>& calls) {
  const auto arguments = TakeJson(rest);
  if (!arguments.has_value() || !arguments->is_object() || name.empty()) return false;
  calls.push_back(ToolCall{std::move(name), DumpJson(*arguments)});
  return true;
}

bool CallsFromArray(const Json& array, std::vector<ToolCall>& calls) {
  if (!array.is_array()) return false;
  for (const Json& element : array) {
    auto call = CallFromJson(element);
    if (!call.has_value()) return false;
    calls.push_back(*std::move(call));
  }
  return !calls.empty();
}

// {"name": ..., "parameters": {...}}, several with "; " between them; or, of the smallest and the newest models, Python.
bool ParseLlama(std::string_view rest, const Json&, std::vector<ToolCall>& calls) {
  for (const char* end : {"<|eom_id|>", "<|eot_id|>", "<|eom|>", "<|eot|>", "<|python_end|>"}) {
    rest = StripSpaceRight(rest);
    if (rest.ends_with(end)) rest.remove_suffix(std::string_view(end).size());
  }
  if (!TakePrefix(rest, "<|python_tag|>")) TakePrefix(rest, "<|python_start|>");
  if (StripSpaceLeft(rest).starts_with('[')) return ParsePythonic(rest, calls);
  do {
    const auto json = TakeJson(rest);
    const auto call = json.has_value() ? CallFromJson(*json) : std::nullopt;
    if (!call.has_value()) return false;
    calls.push_back(*call);
  } while (TakePrefix(rest, ";"));
  return StripSpace(rest).empty();
}

// [{"name": ..., "arguments": {...}, "id": ...}], or f[ARGS]{...} and f[CALL_ID]id[ARGS]{...}, repeated.
bool ParseMistral(std::string_view rest, const Json&, std::vector<ToolCall>& calls) {
  rest = StripSpaceLeft(rest);
  if (rest.starts_with('[')) {
    const auto array = TakeJson(rest);
    TakePrefix(rest, "</s>");
    return array.has_value() && StripSpace(rest).empty() && CallsFromArray(*array, calls);
  }
  do {
    const size_t mark = rest.find("[ARGS]");
    if (mark == kNone) return false;
    const std::string_view head = rest.substr(0, mark);
    const std::string name(StripSpace(head.substr(0, head.find("[CALL_ID]"))));
    rest.remove_prefix(mark + 6);
    if (!TakeArguments(rest, name, calls)) return false;
  } while (TakePrefix(rest, "[TOOL_CALLS]"));
  TakePrefix(rest, "</s>");
  return StripSpace(rest).empty();
}

bool ParsePhi(std::string_view rest, const Json&, std::vector<ToolCall>& calls) {
  if (!TakePrefix(rest, "functools")) TakePrefix(rest, "<|tool_call|>");
  const auto array = TakeJson(rest);
  TakePrefix(rest, "<|end|>");
  return array.has_value() && StripSpace(rest).empty() && CallsFromArray(*array, calls);
}

// "f{...}" of V3.1, or "function", the separator and "f\n```json\n{...}\n```" of V3 and R1, once per call.
bool ParseDeepSeek(std::string_view rest, const Json&, std::vector<ToolCall>& calls) {
  while (TakePrefix(rest, "<｜tool▁call▁begin｜>")) {
    constexpr std::string_view kSeparator = "<｜tool▁sep｜>";
    const size_t separator = rest.find(kSeparator);
    if (separator == kNone) return false;
    std::string name(StripSpace(rest.substr(0, separator)));
    rest.remove_prefix(separator + kSeparator.size());
    const size_t fence = rest.find("```json");
    const size_t brace = rest.find('{');
    const bool fenced = fence != kNone && fence < brace;
    if (fenced) {
      name = std::string(StripSpace(rest.substr(0, fence)));
      rest.remove_prefix(fence + 7);
    }
    if (!TakeArguments(rest, name, calls) || (fenced && !TakePrefix(rest, "```"))) return false;
    if (!TakePrefix(rest, "<｜tool▁call▁end｜>")) return false;
  }
  return StripSpace(rest).empty() && !calls.empty();
}

// functions.f:0 and JSON arguments.
bool ParseKimi(std::string_view rest, const Json&, std::vector<ToolCall>& calls) {
  while (TakePrefix(rest, "<|tool_call_begin|>")) {
    constexpr std::string_view kArguments = "<|tool_call_argument_begin|>";
    const size_t mark = rest.find(kArguments);
    if (mark == kNone) return false;
    std::string_view name = StripSpace(rest.substr(0, mark));
    rest.remove_prefix(mark + kArguments.size());
    if (name.starts_with("functions.")) name.remove_prefix(10);
    name = name.substr(0, name.rfind(':'));
    if (!TakeArguments(rest, std::string(name), calls) || !TakePrefix(rest, "<|tool_call_end|>")) return false;
  }
  return StripSpace(rest).empty() && !calls.empty();
}

}  // namespace

BlockFormat LlamaFormat() {
  return BlockFormat{.open = {"<|python_tag|>", "<|python_start|>", "{", "["},
                     .at_start_only = true,
                     .keep_open = true,
                     .parse = ParseLlama};
}
BlockFormat MistralFormat() { return BlockFormat{.open = {"[TOOL_CALLS]"}, .parse = ParseMistral}; }
BlockFormat PhiFormat() {
  return BlockFormat{
      .open = {"functools[", "<|tool_call|>"}, .close = {"", "<|/tool_call|>"}, .keep_open = true, .parse = ParsePhi};
}
BlockFormat DeepSeekFormat() {
  return BlockFormat{.open = {"<｜tool▁calls▁begin｜>"}, .close = {"<｜tool▁calls▁end｜>"}, .parse = ParseDeepSeek};
}
BlockFormat KimiFormat() {
  return BlockFormat{
      .open = {"<|tool_calls_section_begin|>"}, .close = {"<|tool_calls_section_end|>"}, .parse = ParseKimi};
}

}  // namespace pensieve::chat
