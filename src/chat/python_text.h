// What Python's str does with text, over any bytes: see the second half of base/utf8.h. Pure functions.
#pragma once

#include <string>
#include <string_view>

namespace pensieve::chat {

// Python's str.isspace set.
bool IsSpace(char32_t c);
// Python's str.isprintable.
bool IsPrintable(char32_t c);
bool IsLetter(char32_t c);
bool IsDigit(char32_t c);
std::string ToUpper(std::string_view text);
std::string ToLower(std::string_view text);

// First position of `needle` at or after `from`, npos if there is none. Linear time.
size_t Find(std::string_view text, std::string_view needle, size_t from = 0);
// Last position of `needle`, npos if there is none. Linear time.
size_t FindLast(std::string_view text, std::string_view needle);

std::string_view StripSpaceLeft(std::string_view text);
std::string_view StripSpaceRight(std::string_view text);
inline std::string_view StripSpace(std::string_view text) { return StripSpaceLeft(StripSpaceRight(text)); }

}  // namespace pensieve::chat
