#include "chat/jinja_print.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <cmath>

#include "base/utf8.h"
#include "chat/python_text.h"

namespace pensieve::chat::jinja {
namespace {

Status CheckSize(const TracedText& out, size_t bytes_max) {
  if (out.size() <= bytes_max) return OkStatus();
  return InvalidArgument(fmt::format("the template makes a text of more than {} bytes", bytes_max));
}

Status CheckDepth(int depth) {
  if (depth <= kValueDepthMax) return OkStatus();
  return InvalidArgument(fmt::format("a printed value is nested deeper than {} levels", kValueDepthMax));
}

// The quotes that Python puts around a string.
char QuoteFor(std::string_view text) {
  const bool has_single = text.find('\'') != std::string_view::npos;
  return has_single && text.find('"') == std::string_view::npos ? '"' : '\'';
}

// What stands between the quotes.
std::string Escaped(std::string_view text, char quote) {
  std::string out;
  for (size_t i = 0; i < text.size(); i += CodePointBytes(text, i)) {
    const char32_t c = DecodeAt(text, i);
    if (c == static_cast<char32_t>(quote) || c == '\\') {
      out += '\\';
      out += static_cast<char>(c);
    } else if (c == '\n' || c == '\r' || c == '\t') {
      out += c == '\n' ? "\\n" : c == '\r' ? "\\r" : "\\t";
    } else if (IsPrintable(c)) {
      out += text.substr(i, CodePointBytes(text, i));
    } else if (c <= 0xff) {
      out += fmt::format("\\x{:02x}", static_cast<uint32_t>(c));
    } else {
      out += c <= 0xffff ? fmt::format("\\u{:04x}", static_cast<uint32_t>(c))
                         : fmt::format("\\U{:08x}", static_cast<uint32_t>(c));
    }
  }
  return out;
}

class ReprWriter {
 public:
  ReprWriter(size_t bytes_max, TracedText& out) : bytes_max_(bytes_max), out_(out) {}

  Status Write(const Value& value, int depth) {
    PENSIEVE_RETURN_IF_ERROR(CheckDepth(depth));
    PENSIEVE_RETURN_IF_ERROR(CheckSize(out_, bytes_max_));
    if (value.IsString()) {
      WriteString(value);
    } else if (value.list() != nullptr) {
      return WriteSequence(*value.list(), depth);
    } else if (value.dict() != nullptr) {
      return WriteDict(*value.dict(), depth);
    } else if (value.IsUndefined()) {
      out_.AppendAlike("Undefined");
    } else {
      return AppendStr(value, bytes_max_, out_);
    }
    return OkStatus();
  }

 private:
  void WriteString(const Value& value) {
    const char quote = QuoteFor(value.text());
    const std::string mark(1, quote);
    out_.AppendAlike(value.IsMarkup() ? "Markup(" + mark : mark);
    out_.Append(value.traced().Map([quote](std::string_view text) { return Escaped(text, quote); }));
    out_.AppendAlike(value.IsMarkup() ? mark + ")" : mark);
  }

  Status WriteSequence(const ListObject& list, int depth) {
    if (list.kind == SequenceKind::kRange) return WriteRange(list);
    if (list.kind == SequenceKind::kGenerator) {
      out_.AppendAlike("<generator object>");
      return OkStatus();
    }
    const bool tuple = list.kind == SequenceKind::kTuple;
    static constexpr const char* kOpen[] = {"[", "(", "", "", "dict_items([", "dict_keys([", "dict_values(["};
    static constexpr const char* kClose[] = {"]", ")", "", "", "])", "])", "])"};
    out_.AppendAlike(kOpen[static_cast<size_t>(list.kind)]);
    for (size_t i = 0; i < list.items.size(); ++i) {
      if (i != 0) out_.AppendAlike(", ");
      PENSIEVE_RETURN_IF_ERROR(Write(list.items[i], depth + 1));
    }
    if (tuple && list.items.size() == 1) out_.AppendAlike(",");
    out_.AppendAlike(kClose[static_cast<size_t>(list.kind)]);
    return OkStatus();
  }

  Status WriteRange(const ListObject& list) {
    const size_t count = list.items.size();
    const Int start = count == 0 ? Int{0} : list.items[0].integer();
    const Int step = count < 2 ? Int{1} : list.items[1].integer() - start;
    const Int stop = count == 0 ? Int{0} : list.items[count - 1].integer() + (step > 0 ? 1 : -1);
    out_.AppendAlike("range(" + IntRepr(start) + ", " + IntRepr(stop) + (step == 1 ? "" : ", " + IntRepr(step)) + ")");
    return OkStatus();
  }

  Status WriteDict(const DictObject& dict, int depth) {
    out_.AppendAlike("{");
    bool first = true;
    for (const auto& [key, value] : dict.entries()) {
      if (!first) out_.AppendAlike(", ");
      first = false;
      PENSIEVE_RETURN_IF_ERROR(Write(key, depth + 1));
      out_.AppendAlike(": ");
      PENSIEVE_RETURN_IF_ERROR(Write(value, depth + 1));
    }
    out_.AppendAlike("}");
    return OkStatus();
  }

  const size_t bytes_max_;
  TracedText& out_;
};

class JsonWriter {
 public:
  JsonWriter(const JsonStyle& style, size_t bytes_max, TracedText& out)
      : style_(style), bytes_max_(bytes_max), out_(out) {}

  Status Write(const Value& value, int depth) {
    PENSIEVE_RETURN_IF_ERROR(CheckDepth(depth));
    PENSIEVE_RETURN_IF_ERROR(CheckSize(out_, bytes_max_));
    if (value.IsString()) {
      WriteString(value.traced());
    } else if (value.IsNone()) {
      out_.AppendAlike("null");
    } else if (value.IsBool()) {
      out_.AppendAlike(value.bool_value() ? "true" : "false");
    } else if (value.IsInt()) {
      out_.AppendAlike(IntRepr(value.integer()));
    } else if (value.IsFloat()) {
      out_.AppendAlike(FloatText(value.number()));
    } else if (value.list() != nullptr && value.list()->kind <= SequenceKind::kTuple) {
      return WriteList(*value.list(), depth);
    } else if (value.dict() != nullptr) {
      return WriteDict(*value.dict(), depth);
    } else {
      return InvalidArgument(fmt::format("Object of type {} is not JSON serializable", value.TypeName()));
    }
    return OkStatus();
  }

 private:
  static std::string FloatText(double number) {
    if (std::isnan(number)) return "NaN";
    if (std::isinf(number)) return number < 0 ? "-Infinity" : "Infinity";
    return FloatRepr(number);
  }

  static void AppendEscape(char32_t c, std::string& out) { out += fmt::format("\\u{:04x}", static_cast<uint32_t>(c)); }

  std::string Escaped(std::string_view text) const {
    std::string out;
    out.reserve(text.size() + text.size() / 8);
    for (size_t i = 0; i < text.size(); i += CodePointBytes(text, i)) {
      const char32_t c = DecodeAt(text, i);
      static constexpr std::string_view kFrom = "\"\\\n\r\t\f\b";
      static constexpr std::string_view kTo = "\"\\nrtfb";
      const size_t simple = c < 0x80 ? kFrom.find(static_cast<char>(c)) : std::string_view::npos;
      if (simple != std::string_view::npos) {
        out += '\\';
        out += kTo[simple];
      } else if (c < 0x20) {
        AppendEscape(c, out);
      } else if (c < 0x80 || !style_.ensure_ascii) {
        out += text.substr(i, CodePointBytes(text, i));
      } else if (c < 0x10000) {
        AppendEscape(c, out);
      } else {
        AppendEscape(0xd800 + ((c - 0x10000) >> 10), out);
        AppendEscape(0xdc00 + ((c - 0x10000) & 0x3ff), out);
      }
    }
    return out;
  }

  void WriteString(const TracedText& text) {
    out_.AppendAlike("\"");
    out_.Append(text.Map([this](std::string_view run) { return Escaped(run); }));
    out_.AppendAlike("\"");
  }

  // What stands before the first item, between items and after the last one.
  void NewLine(int depth) {
    if (!style_.indented) return;
    out_.AppendAlike("\n");
    for (int i = 0; i < depth; ++i) out_.AppendAlike(style_.indent);
  }

  Status WriteList(const ListObject& list, int depth) {
    if (list.items.empty()) {
      out_.AppendAlike("[]");
      return OkStatus();
    }
    out_.AppendAlike("[");
    for (size_t i = 0; i < list.items.size(); ++i) {
      if (i != 0) out_.AppendAlike(style_.item_separator);
      NewLine(depth + 1);
      PENSIEVE_RETURN_IF_ERROR(Write(list.items[i], depth + 1));
    }
    NewLine(depth);
    out_.AppendAlike("]");
    return OkStatus();
  }

  static Result<TracedText> KeyText(const Value& key) {
    const auto own = [](std::string text) { return TracedText(std::move(text), kFromTemplate); };
    if (key.IsString()) return key.traced();
    if (key.IsNone()) return own("null");
    if (key.IsBool()) return own(key.bool_value() ? "true" : "false");
    if (key.IsInt()) return own(IntRepr(key.integer()));
    if (key.IsFloat()) return own(FloatText(key.number()));
    return InvalidArgument("keys must be str, int, float, bool or None, not tuple");
  }

  Status WriteDict(const DictObject& dict, int depth) {
    if (dict.entries().empty()) {
      out_.AppendAlike("{}");
      return OkStatus();
    }
    std::vector<std::pair<TracedText, const Value*>> entries;
    for (const auto& [key, value] : dict.entries()) {
      PENSIEVE_TRY(TracedText text, KeyText(key));
      entries.emplace_back(std::move(text), &value);
    }
    if (style_.sort_keys) {
      std::stable_sort(entries.begin(), entries.end(),
                       [](const auto& a, const auto& b) { return a.first.bytes() < b.first.bytes(); });
    }
    out_.AppendAlike("{");
    for (size_t i = 0; i < entries.size(); ++i) {
      if (i != 0) out_.AppendAlike(style_.item_separator);
      NewLine(depth + 1);
      WriteString(entries[i].first);
      out_.AppendAlike(style_.key_separator);
      PENSIEVE_RETURN_IF_ERROR(Write(*entries[i].second, depth + 1));
    }
    NewLine(depth);
    out_.AppendAlike("}");
    return OkStatus();
  }

  const JsonStyle& style_;
  const size_t bytes_max_;
  TracedText& out_;
};

}  // namespace

std::string FloatRepr(double value) {
  if (std::isnan(value)) return "nan";
  if (std::isinf(value)) return value < 0 ? "-inf" : "inf";
  char buffer[64];
  const auto end = std::to_chars(buffer, buffer + sizeof(buffer), value, std::chars_format::scientific).ptr;
  const std::string_view text(buffer, static_cast<size_t>(end - buffer));
  const size_t mark = text.find('e');
  int exponent = 0;
  const size_t digits_at = mark + (text[mark + 1] == '+' ? 2 : 1);
  std::from_chars(text.data() + digits_at, end, exponent);
  std::string sign = text[0] == '-' ? "-" : "";
  std::string digits(text.substr(sign.size(), mark - sign.size()));
  std::erase(digits, '.');
  const int count = static_cast<int>(digits.size());
  if (exponent < -4 || exponent >= 16) {
    std::string mantissa = digits.substr(0, 1) + (count > 1 ? "." + digits.substr(1) : "");
    return fmt::format("{}{}e{}{:02}", sign, mantissa, exponent < 0 ? "-" : "+", std::abs(exponent));
  }
  if (exponent < 0) return sign + "0." + std::string(static_cast<size_t>(-exponent - 1), '0') + digits;
  if (count <= exponent + 1) return sign + digits + std::string(static_cast<size_t>(exponent + 1 - count), '0') + ".0";
  return sign + digits.substr(0, static_cast<size_t>(exponent + 1)) + "." +
         digits.substr(static_cast<size_t>(exponent + 1));
}

std::string IntRepr(Int value) { return fmt::format("{}", static_cast<__int128>(value)); }

std::string StringRepr(std::string_view text) {
  const char quote = QuoteFor(text);
  return quote + Escaped(text, quote) + quote;
}

std::string EscapeHtml(std::string_view text) {
  std::string out;
  for (const char c : text) {
    switch (c) {
      case '&': out += "&amp;"; break;
      case '<': out += "&lt;"; break;
      case '>': out += "&gt;"; break;
      case '\'': out += "&#39;"; break;
      case '"': out += "&#34;"; break;
      default: out += c;
    }
  }
  return out;
}

Status AppendStr(const Value& value, size_t bytes_max, TracedText& out) {
  if (value.IsString()) {
    out.Append(value.traced());
  } else if (value.IsNone()) {
    out.Append("None", kFromTemplate);
  } else if (value.IsBool()) {
    out.Append(value.bool_value() ? "True" : "False", kFromTemplate);
  } else if (value.IsInt()) {
    out.Append(IntRepr(value.integer()), kFromTemplate);
  } else if (value.IsFloat()) {
    out.Append(FloatRepr(value.number()), kFromTemplate);
  } else if (value.list() != nullptr || value.dict() != nullptr) {
    PENSIEVE_RETURN_IF_ERROR(AppendRepr(value, bytes_max, out));
  } else if (!value.IsUndefined()) {
    out.Append(fmt::format("<{}>", value.TypeName()), kFromTemplate);
  }
  return CheckSize(out, bytes_max);
}

Status AppendRepr(const Value& value, size_t bytes_max, TracedText& out) {
  return ReprWriter(bytes_max, out).Write(value, 0);
}

Status AppendJson(const Value& value, const JsonStyle& style, size_t bytes_max, TracedText& out) {
  return JsonWriter(style, bytes_max, out).Write(value, 0);
}

}  // namespace pensieve::chat::jinja
