// How values look as text: Python's str() and repr(), and json.dumps. Pure functions; InvalidArgument when a value is
// nested too deep or the text passes `bytes_max`.
#pragma once

#include <string>
#include <string_view>

#include "base/status.h"
#include "chat/jinja_value.h"

namespace pensieve::chat::jinja {

// The shortest digits that read back as the same number, laid out as Python does: 1.0, 1e+16, 1e-05, inf, nan.
std::string FloatRepr(double value);
std::string IntRepr(Int value);
std::string StringRepr(std::string_view text);
std::string EscapeHtml(std::string_view text);

// These three keep the origins of strings. What they write around and between the strings of a container has the origin
// of what stands before it.
Status AppendStr(const Value& value, size_t bytes_max, TracedText& out);
Status AppendRepr(const Value& value, size_t bytes_max, TracedText& out);

struct JsonStyle {
  bool ensure_ascii = false;
  bool sort_keys = false;
  bool indented = false;
  std::string indent;  // one level's worth; only if indented
  std::string item_separator = ", ";
  std::string key_separator = ": ";
};
Status AppendJson(const Value& value, const JsonStyle& style, size_t bytes_max, TracedText& out);

}  // namespace pensieve::chat::jinja
