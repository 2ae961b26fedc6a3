// UTF-8 as Python sees strings: sequences of code points. Bytes that are no valid UTF-8 count as one code point each,
// so that every function here is total. Pure functions.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

namespace pensieve::chat {

// Bytes of the code point at `pos` (1..4); 1 for an invalid byte. Needs pos < text.size().
size_t CodePointBytes(std::string_view text, size_t pos);
// The code point at `pos`; an invalid byte b is 0xDC00 + b (Python's surrogateescape), which no valid text contains.
char32_t DecodeAt(std::string_view text, size_t pos);
void AppendUtf8(char32_t code_point, std::string& out);

size_t CodePointCount(std::string_view text);
// Byte offset of code point number `index`, text.size() when there are fewer.
size_t ByteOffset(std::string_view text, size_t index);

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
