#include "chat/jinja_lexer.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>

#include "base/utf8.h"
#include "chat/python_text.h"

namespace pensieve::chat::jinja {
namespace {

constexpr size_t kNone = std::string_view::npos;

// "\r\n" and "\r" become "\n"; one final newline of the template is dropped.
std::string NormalizeNewlines(std::string_view source) {
  std::string text;
  text.reserve(source.size());
  for (size_t i = 0; i < source.size(); ++i) {
    if (source[i] != '\r') {
      text += source[i];
      continue;
    }
    text += '\n';
    if (i + 1 < source.size() && source[i + 1] == '\n') ++i;
  }
  if (!text.empty() && text.back() == '\n') text.pop_back();
  return text;
}

bool IsAsciiDigit(char c) { return c >= '0' && c <= '9'; }
bool IsNameStart(char c) {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_' || static_cast<unsigned char>(c) >= 0x80;
}
bool IsNamePart(char c) { return IsNameStart(c) || IsAsciiDigit(c); }

int HexValue(char c) {
  if (IsAsciiDigit(c)) return c - '0';
  if (c >= 'a' && c <= 'f') return c - 'a' + 10;
  if (c >= 'A' && c <= 'F') return c - 'A' + 10;
  return -1;
}

class Lexer {
 public:
  explicit Lexer(std::string_view source) : source_(NormalizeNewlines(source)) {}

  Result<std::vector<Token>> Run() && {
    while (pos_ < source_.size()) PENSIEVE_RETURN_IF_ERROR(NextPiece());
    Emit(TokenType::kEnd, "");
    return std::move(tokens_);
  }

 private:
  Status Error(std::string_view what) const { return InvalidArgument(fmt::format("line {}: {}", line_, what)); }

  void Emit(TokenType type, std::string text) { tokens_.push_back(Token{type, std::move(text), line_}); }

  void Advance(size_t to) {
    line_ += static_cast<int>(std::count(source_.begin() + static_cast<std::ptrdiff_t>(pos_),
                                         source_.begin() + static_cast<std::ptrdiff_t>(to), '\n'));
    pos_ = to;
  }
  char At(size_t pos) const { return pos < source_.size() ? source_[pos] : '\0'; }
  size_t SkipSpace(size_t pos) const {
    while (pos < source_.size() && IsSpace(DecodeAt(source_, pos))) pos += CodePointBytes(source_, pos);
    return pos;
  }

  // Start of the next "{{", "{%" or "{#", kNone when only text is left.
  size_t FindOpening() const {
    for (size_t at = source_.find('{', pos_); at != kNone; at = source_.find('{', at + 1)) {
      const char second = At(at + 1);
      if (second == '{' || second == '%' || second == '#') return at;
    }
    return kNone;
  }

  // Applies "{%-" (strips all whitespace before) or lstrip_blocks (strips blanks back to the line's start).
  std::string_view TrimBefore(std::string_view text, char sign, bool is_variable) const {
    if (sign == '-') return StripSpaceRight(text);
    if (sign == '+' || is_variable) return text;
    const size_t newline = text.rfind('\n');
    const size_t line_begin = newline == kNone ? 0 : newline + 1;
    if (line_begin == 0 && !line_starting_) return text;
    return StripSpace(text.substr(line_begin)).empty() ? text.substr(0, line_begin) : text;
  }

  // Takes the end delimiter at `at` ("%}", "-%}", "+%}" or the like) and the whitespace that it swallows.
  void CloseAt(size_t at, bool swallow_newline) {
    const char sign = source_[at];
    size_t end = at + (sign == '-' || sign == '+' ? 3 : 2);
    if (sign == '-') {
      end = SkipSpace(end);
    } else if (sign != '+' && swallow_newline && At(end) == '\n') {
      ++end;
    }
    line_starting_ = source_[end - 1] == '\n';
    Advance(end);
  }

  // Text up to the next opening delimiter, then what it opens.
  Status NextPiece() {
    const size_t opening = FindOpening();
    if (opening == kNone) {
      Emit(TokenType::kText, source_.substr(pos_));
      Advance(source_.size());
      return OkStatus();
    }
    const char kind = source_[opening + 1];
    const char sign = At(opening + 2);
    const bool signed_delimiter = sign == '-' || sign == '+';
    const std::string_view text = std::string_view(source_).substr(pos_, opening - pos_);
    const std::string_view kept = TrimBefore(text, signed_delimiter ? sign : '\0', kind == '{');
    if (!kept.empty()) Emit(TokenType::kText, std::string(kept));
    Advance(opening + (signed_delimiter ? 3 : 2));
    if (kind == '#') return Comment();
    if (kind == '%') {
      const size_t raw_end = RawOpeningEnd();
      if (raw_end != kNone) return Raw(raw_end);
    }
    Emit(kind == '{' ? TokenType::kVariableBegin : TokenType::kBlockBegin, "");
    return Expression(kind == '{' ? '}' : '%');
  }

  Status Comment() {
    size_t end = source_.find("#}", pos_);
    if (end == kNone) return Error("missing end of comment tag");
    if (end > pos_ && (source_[end - 1] == '-' || source_[end - 1] == '+')) --end;
    Advance(end);
    CloseAt(end, true);
    return OkStatus();
  }

  // After "{%": the position behind "raw %}" when this is a raw block. Raw swallows no newline, only "-%}" does.
  size_t RawOpeningEnd() const {
    size_t at = SkipSpace(pos_);
    if (source_.compare(at, 3, "raw") != 0 || IsNamePart(At(at + 3))) return kNone;
    at = SkipSpace(at + 3);
    if (source_.compare(at, 2, "%}") == 0) return at + 2;
    if (source_.compare(at, 3, "-%}") == 0) return SkipSpace(at + 3);
    return kNone;
  }

  Status Raw(size_t begin) {
    line_starting_ = source_[begin - 1] == '\n';
    Advance(begin);
    for (size_t open = source_.find("{%", begin); open != kNone; open = source_.find("{%", open + 2)) {
      const char sign = At(open + 2);
      const bool is_signed = sign == '-' || sign == '+';
      size_t at = SkipSpace(open + (is_signed ? 3 : 2));
      if (source_.compare(at, 6, "endraw") != 0) continue;
      at = SkipSpace(at + 6);
      const bool closes =
          source_.compare(at, 2, "%}") == 0 || source_.compare(at, 3, "-%}") == 0 || source_.compare(at, 3, "+%}") == 0;
      if (!closes) continue;
      const std::string_view text = std::string_view(source_).substr(begin, open - begin);
      const std::string_view kept = TrimBefore(text, is_signed ? sign : '\0', false);
      if (!kept.empty()) Emit(TokenType::kText, std::string(kept));
      Advance(at);
      CloseAt(at, true);
      return OkStatus();
    }
    return Error("missing end of raw directive");
  }

  // True when the construct that ends with `closing` + '}' ends at pos_.
  bool AtEnd(char closing) const {
    const size_t at = pos_ + (At(pos_) == '-' || (At(pos_) == '+' && closing == '%') ? 1 : 0);
    return At(at) == closing && At(at + 1) == '}';
  }

  Status Expression(char closing) {
    std::string open_brackets;
    while (true) {
      Advance(SkipSpace(pos_));
      if (pos_ >= source_.size()) return Error("unexpected end of template inside a tag");
      if (open_brackets.empty() && AtEnd(closing)) {
        Emit(closing == '}' ? TokenType::kVariableEnd : TokenType::kBlockEnd, "");
        CloseAt(pos_, closing == '%');
        return OkStatus();
      }
      PENSIEVE_RETURN_IF_ERROR(OneToken(open_brackets));
    }
  }

  Status OneToken(std::string& open_brackets) {
    const char c = source_[pos_];
    if (IsAsciiDigit(c)) return Number();
    if (IsNameStart(c)) {
      size_t end = pos_;
      while (IsNamePart(At(end))) ++end;
      Emit(TokenType::kName, source_.substr(pos_, end - pos_));
      Advance(end);
      return OkStatus();
    }
    if (c == '\'' || c == '"') return String(c);
    return Operator(open_brackets);
  }

  Status Operator(std::string& open_brackets) {
    static constexpr std::array<std::string_view, 26> kOperators = {"**", "//", "==", "!=", ">=", "<=", "+", "-", "/",
                                                                    "*",  "%",  "~",  "[",  "]",  "(",  ")", "{", "}",
                                                                    ">",  "<",  "=",  ".",  ":",  "|",  ",", ";"};
    for (const std::string_view op : kOperators) {
      if (source_.compare(pos_, op.size(), op) != 0) continue;
      if (op == "(" || op == "[" || op == "{") {
        open_brackets += op == "(" ? ')' : op == "[" ? ']' : '}';
      } else if (op == ")" || op == "]" || op == "}") {
        if (open_brackets.empty()) return Error(fmt::format("unexpected '{}'", op));
        if (open_brackets.back() != op[0]) {
          return Error(fmt::format("unexpected '{}', expected '{}'", op, open_brackets.back()));
        }
        open_brackets.pop_back();
      }
      Emit(TokenType::kOperator, std::string(op));
      Advance(pos_ + op.size());
      return OkStatus();
    }
    return Error(fmt::format("unexpected character '{}'", source_.substr(pos_, CodePointBytes(source_, pos_))));
  }

  // Digits with single underscores between them.
  size_t SkipDigits(size_t at) const {
    while (IsAsciiDigit(At(at)) || (At(at) == '_' && IsAsciiDigit(At(at + 1)))) ++at;
    return at;
  }

  Status Number() {
    size_t end = SkipDigits(pos_);
    bool is_float = false;
    const bool after_dot = pos_ > 0 && source_[pos_ - 1] == '.';
    if (!after_dot && At(end) == '.' && IsAsciiDigit(At(end + 1))) {
      is_float = true;
      end = SkipDigits(end + 1);
    }
    if (!after_dot && (At(end) == 'e' || At(end) == 'E')) {
      const size_t digits = end + 1 + (At(end + 1) == '+' || At(end + 1) == '-' ? 1 : 0);
      if (IsAsciiDigit(At(digits))) {
        is_float = true;
        end = SkipDigits(digits);
      }
    }
    std::string text = source_.substr(pos_, end - pos_);
    if (text.size() > 400) return Error("a number has more than 400 digits");
    std::erase(text, '_');
    Emit(is_float ? TokenType::kFloat : TokenType::kInteger, std::move(text));
    Advance(end);
    return OkStatus();
  }

  Status String(char quote) {
    std::string value;
    size_t at = pos_ + 1;
    while (at < source_.size() && source_[at] != quote) {
      if (source_[at] != '\\') {
        value += source_[at++];
        continue;
      }
      if (at + 1 >= source_.size()) break;
      PENSIEVE_RETURN_IF_ERROR(Escape(at, value));
    }
    if (at >= source_.size()) return Error("a string is not closed");
    Emit(TokenType::kString, std::move(value));
    Advance(at + 1);
    return OkStatus();
  }

  // Python's escapes; an unknown one keeps its backslash. `at` is on the backslash and moves behind the escape.
  Status Escape(size_t& at, std::string& value) {
    static constexpr std::string_view kFrom = "\\'\"abfnrtv";
    static constexpr std::string_view kTo = "\\'\"\a\b\f\n\r\t\v";
    const char c = source_[at + 1];
    if (const size_t simple = kFrom.find(c); simple != kNone) {
      value += kTo[simple];
      at += 2;
      return OkStatus();
    }
    if (c == '\n') {
      at += 2;
      return OkStatus();
    }
    if (c >= '0' && c <= '7') {
      char32_t code = 0;
      size_t end = at + 1;
      while (end < at + 4 && At(end) >= '0' && At(end) <= '7') code = code * 8 + static_cast<char32_t>(At(end++) - '0');
      AppendUtf8(code, value);
      at = end;
      return OkStatus();
    }
    const size_t digits = c == 'x' ? 2 : c == 'u' ? 4 : c == 'U' ? 8 : 0;
    if (digits == 0) {
      value += '\\';
      ++at;
      return OkStatus();
    }
    char32_t code = 0;
    for (size_t i = 0; i < digits; ++i) {
      const int digit = HexValue(At(at + 2 + i));
      if (digit < 0) return Error(fmt::format("truncated \\{} escape", c));
      code = code * 16 + static_cast<char32_t>(digit);
    }
    if (code > 0x10ffff || (code >= 0xd800 && code <= 0xdfff)) {
      return Error(fmt::format("\\{} escape is no Unicode character", c));
    }
    AppendUtf8(code, value);
    at += 2 + digits;
    return OkStatus();
  }

  const std::string source_;
  size_t pos_ = 0;
  int line_ = 1;
  bool line_starting_ = true;  // the construct before pos_ ended a line
  std::vector<Token> tokens_;
};

}  // namespace

Result<std::vector<Token>> Tokenize(std::string_view source) { return Lexer(source).Run(); }

}  // namespace pensieve::chat::jinja
