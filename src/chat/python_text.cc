#include "chat/python_text.h"

#include <utf8proc.h>

#include <cstring>

#include "base/utf8.h"

namespace pensieve::chat {

bool IsSpace(char32_t c) {
  return (c >= 9 && c <= 13) || (c >= 28 && c <= 32) || c == 0x85 || c == 0xa0 || c == 0x1680 ||
         (c >= 0x2000 && c <= 0x200a) || c == 0x2028 || c == 0x2029 || c == 0x202f || c == 0x205f || c == 0x3000;
}

bool IsPrintable(char32_t c) {
  if (c == ' ') return true;
  switch (utf8proc_category(static_cast<utf8proc_int32_t>(c))) {
    case UTF8PROC_CATEGORY_CN:
    case UTF8PROC_CATEGORY_ZS:
    case UTF8PROC_CATEGORY_ZL:
    case UTF8PROC_CATEGORY_ZP:
    case UTF8PROC_CATEGORY_CC:
    case UTF8PROC_CATEGORY_CF:
    case UTF8PROC_CATEGORY_CS:
    case UTF8PROC_CATEGORY_CO: return false;
    default: return true;
  }
}

bool IsLetter(char32_t c) {
  const auto category = utf8proc_category(static_cast<utf8proc_int32_t>(c));
  return category >= UTF8PROC_CATEGORY_LU && category <= UTF8PROC_CATEGORY_LO;
}

bool IsDigit(char32_t c) { return utf8proc_category(static_cast<utf8proc_int32_t>(c)) == UTF8PROC_CATEGORY_ND; }

std::string ToUpper(std::string_view text) {
  std::string out;
  out.reserve(text.size());
  for (size_t i = 0; i < text.size(); i += CodePointBytes(text, i)) {
    const char32_t c = DecodeAt(text, i);
    if (c == 0xdf) {
      out += "SS";  // the one common letter whose upper case is two letters
    } else if (c >= 0xdc80 && c <= 0xdcff) {
      out += text[i];
    } else {
      AppendUtf8(static_cast<char32_t>(utf8proc_toupper(static_cast<utf8proc_int32_t>(c))), out);
    }
  }
  return out;
}

std::string ToLower(std::string_view text) {
  std::string out;
  out.reserve(text.size());
  for (size_t i = 0; i < text.size(); i += CodePointBytes(text, i)) {
    const char32_t c = DecodeAt(text, i);
    if (c >= 0xdc80 && c <= 0xdcff) {
      out += text[i];
    } else {
      AppendUtf8(static_cast<char32_t>(utf8proc_tolower(static_cast<utf8proc_int32_t>(c))), out);
    }
  }
  return out;
}

size_t Find(std::string_view text, std::string_view needle, size_t from) {
  if (from > text.size()) return std::string_view::npos;
  if (needle.empty()) return from;
  // The plain search is quicker for the usual short needle; for a long one it could be quadratic, and this one is not.
  if (needle.size() <= 32) return text.find(needle, from);
  const void* hit = memmem(text.data() + from, text.size() - from, needle.data(), needle.size());
  return hit == nullptr ? std::string_view::npos : static_cast<const char*>(hit) - text.data();
}

size_t FindLast(std::string_view text, std::string_view needle) {
  if (needle.empty()) return text.size();
  const std::string text_reversed(text.rbegin(), text.rend());
  const std::string needle_reversed(needle.rbegin(), needle.rend());
  const size_t hit = Find(text_reversed, needle_reversed);
  return hit == std::string_view::npos ? hit : text.size() - hit - needle.size();
}

std::string_view StripSpaceLeft(std::string_view text) {
  while (!text.empty() && IsSpace(DecodeAt(text, 0))) text.remove_prefix(CodePointBytes(text, 0));
  return text;
}

std::string_view StripSpaceRight(std::string_view text) {
  while (!text.empty()) {
    const size_t start = PreviousCodePoint(text, text.size());
    if (!IsSpace(DecodeAt(text, start))) break;
    text = text.substr(0, start);
  }
  return text;
}

}  // namespace pensieve::chat
