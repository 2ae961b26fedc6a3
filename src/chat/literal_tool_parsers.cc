// Families that write calls as literals of a language: Python's in Llama 4 and LFM2, one of their own in Gemma 4 and
// FunctionGemma.
#include <algorithm>

#include "base/utf8.h"
#include "chat/output_parser_parts.h"
#include "chat/python_text.h"

namespace pensieve::chat {
namespace {

constexpr int kDepthMax = 64;
constexpr size_t kNone = std::string_view::npos;

bool IsWordByte(char c) {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_' || c == '.' ||
         c == '-' || c == '+';
}

// Reads values off the front of a text. Each function is false, in an undefined place, when what it wants is not there.
class LiteralReader {
 public:
  // `quote`: stands around strings, without escapes; empty: Python's strings.
  LiteralReader(std::string_view text, std::string_view quote) : rest_(text), quote_(quote) {}

  bool Take(std::string_view wanted) {
    rest_ = StripSpaceLeft(rest_);
    if (!rest_.starts_with(wanted)) return false;
    rest_.remove_prefix(wanted.size());
    return true;
  }
  bool AtEnd() const { return StripSpace(rest_).empty(); }

  bool Word(std::string& word) {
    rest_ = StripSpaceLeft(rest_);
    const size_t size = static_cast<size_t>(std::find_if_not(rest_.begin(), rest_.end(), IsWordByte) - rest_.begin());
    word = rest_.substr(0, size);
    rest_.remove_prefix(size);
    return size > 0;
  }

  bool Value(Json& value, int depth = 0) {
    if (depth > kDepthMax) return false;
    if (AtString()) {
      std::string text;
      if (!String(text)) return false;
      value = std::move(text);
      return true;
    }
    if (Take("[")) return List("]", value, depth);
    if (quote_.empty() && Take("(")) return List(")", value, depth);
    if (Take("{")) return Object(value, depth);
    return Constant(value);
  }

  // What follows "{": keys and values up to "}".
  bool Object(Json& value, int depth) {
    value = Json::object();
    while (!Take("}")) {
      std::string key;
      if (!(AtString() ? String(key) : quote_.empty() ? false : Word(key)) || !Take(":")) return false;
      if (!Value(value[key], depth + 1)) return false;
      if (!Take(",")) return Take("}");
    }
    return true;
  }

  // What follows "(": name=value up to ")".
  bool Keywords(Json& value) {
    value = Json::object();
    while (!Take(")")) {
      std::string key;
      if (!Word(key) || !Take("=") || !Value(value[key])) return false;
      if (!Take(",")) return Take(")");
    }
    return true;
  }

 private:
  bool AtString() {
    rest_ = StripSpaceLeft(rest_);
    return quote_.empty() ? rest_.starts_with('"') || rest_.starts_with('\'') : rest_.starts_with(quote_);
  }

  bool String(std::string& text) {
    if (quote_.empty()) return PythonString(text);
    const size_t end = rest_.find(quote_, quote_.size());
    if (end == kNone) return false;
    text = rest_.substr(quote_.size(), end - quote_.size());
    rest_.remove_prefix(end + quote_.size());
    return true;
  }

  bool PythonString(std::string& text) {
    const char quote = rest_.front();
    for (size_t at = 1; at < rest_.size();) {
      const char c = rest_[at++];
      if (c == quote) {
        rest_.remove_prefix(at);
        return true;
      }
      if (c != '\\') {
        text += c;
      } else if (!Escape(at, text)) {
        return false;
      }
    }
    return false;
  }

  // `at` is behind the backslash. An unknown escape keeps its backslash, as in Python.
  bool Escape(size_t& at, std::string& text) const {
    if (at >= rest_.size()) return false;
    const char c = rest_[at++];
    constexpr std::string_view kNames = "ntrbfv\\'\"\n";
    constexpr std::string_view kValues = "\n\t\r\b\f\v\\'\"";
    if (const size_t known = kNames.find(c); known != kNone) {
      if (known < kValues.size()) text += kValues[known];  // a backslash at the end of a line joins the lines
      return true;
    }
    const size_t digits = c == 'x' ? 2 : c == 'u' ? 4 : c == 'U' ? 8 : 0;
    if (digits == 0) {
      text += '\\';
      text += c;
      return true;
    }
    uint32_t code = 0;
    for (size_t i = 0; i < digits; ++i, ++at) {
      if (at >= rest_.size()) return false;
      const char digit = rest_[at];
      const int value = digit >= '0' && digit <= '9'   ? digit - '0'
                        : digit >= 'a' && digit <= 'f' ? digit - 'a' + 10
                        : digit >= 'A' && digit <= 'F' ? digit - 'A' + 10
                                                       : -1;
      if (value < 0) return false;
      code = code << 4 | static_cast<uint32_t>(value);
    }
    const bool surrogate = code >= 0xD800 && code <= 0xDFFF;
    if (code > 0x10FFFF) return false;
    AppendUtf8(surrogate ? 0xFFFD : static_cast<char32_t>(code), text);
    return true;
  }

  bool List(std::string_view close, Json& value, int depth) {
    value = Json::array();
    while (!Take(close)) {
      Json element;
      if (!Value(element, depth + 1)) return false;
      value.push_back(std::move(element));
      if (!Take(",")) return Take(close);
    }
    return true;
  }

  // A number, true, false or nothing, in Python's spelling or JSON's.
  bool Constant(Json& value) {
    std::string word;
    if (!Word(word)) return false;
    if (word == "None") word = "null";
    if (word == "True") word = "true";
    if (word == "False") word = "false";
    const auto json = ParseJson(word);
    if (!json.has_value()) return false;
    value = *json;
    return true;
  }

  std::string_view rest_;
  const std::string_view quote_;
};

// call:f{k:v,...}
bool ParseNamedObject(std::string_view block, std::string_view quote, std::vector<ToolCall>& calls) {
  LiteralReader reader(block, quote);
  std::string name;
  Json arguments;
  if (!reader.Take("call:") || !reader.Word(name) || !reader.Take("{")) return false;
  if (!reader.Object(arguments, 0) || !reader.AtEnd()) return false;
  calls.push_back(ToolCall{std::move(name), DumpJson(arguments)});
  return true;
}

bool ParseGemma(std::string_view block, const Json&, std::vector<ToolCall>& calls) {
  return ParseNamedObject(block, "<|\"|>", calls);
}

bool ParseFunctionGemma(std::string_view block, const Json&, std::vector<ToolCall>& calls) {
  return ParseNamedObject(block, "<escape>", calls);
}

bool ParsePythonicBlock(std::string_view block, const Json&, std::vector<ToolCall>& calls) {
  return ParsePythonic(block, calls);
}

}  // namespace

bool ParsePythonic(std::string_view text, std::vector<ToolCall>& calls) {
  LiteralReader reader(text, "");
  if (!reader.Take("[")) return false;
  do {
    std::string name;
    Json arguments;
    if (!reader.Word(name) || !reader.Take("(") || !reader.Keywords(arguments)) return false;
    calls.push_back(ToolCall{std::move(name), DumpJson(arguments)});
  } while (reader.Take(","));
  return reader.Take("]") && reader.AtEnd();
}

BlockFormat PythonicFormat() {
  return BlockFormat{.open = {"<|tool_call_start|>"}, .close = {"<|tool_call_end|>"}, .parse = ParsePythonicBlock};
}
BlockFormat GemmaFormat() {
  return BlockFormat{.open = {"<|tool_call>"}, .close = {"<tool_call|>"}, .parse = ParseGemma};
}
BlockFormat FunctionGemmaFormat() {
  return BlockFormat{.open = {"<start_function_call>"}, .close = {"<end_function_call>"}, .parse = ParseFunctionGemma};
}

}  // namespace pensieve::chat
