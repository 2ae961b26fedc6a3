// UTF-8 in two views, both of pure functions. Text that came through ToValidUtf8 is valid, and the first half assumes it:
// the lossy rule is the Unicode standard's (and Rust's and Python's), every maximal invalid subpart becomes one U+FFFD.
// The second half takes any bytes, as Python's surrogateescape does: what is no character counts as one code point a byte.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>

namespace pensieve {

inline constexpr std::string_view kReplacementCharacter = "\xEF\xBF\xBD";

// The code point that starts at text[position] and moves `position` behind it. `text` must be valid UTF-8.
inline char32_t NextCodePoint(std::string_view text, size_t& position) {
  const auto byte = [&](size_t i) { return static_cast<char32_t>(static_cast<unsigned char>(text[i])); };
  const char32_t lead = byte(position);
  if (lead < 0x80) {
    position += 1;
    return lead;
  }
  if (lead < 0xE0) {
    position += 2;
    return ((lead & 0x1F) << 6) | (byte(position - 1) & 0x3F);
  }
  if (lead < 0xF0) {
    position += 3;
    return ((lead & 0x0F) << 12) | ((byte(position - 2) & 0x3F) << 6) | (byte(position - 1) & 0x3F);
  }
  position += 4;
  return ((lead & 0x07) << 18) | ((byte(position - 3) & 0x3F) << 12) | ((byte(position - 2) & 0x3F) << 6) |
         (byte(position - 1) & 0x3F);
}

// Bytes of the character whose first byte is `lead` (valid text): 1 to 4.
inline size_t Utf8Length(char lead) {
  const auto byte = static_cast<unsigned char>(lead);
  return byte < 0x80 ? 1 : byte < 0xE0 ? 2 : byte < 0xF0 ? 3 : 4;
}

// Whether a byte goes on with a character that began before it.
inline bool IsContinuationByte(char byte) { return (static_cast<unsigned char>(byte) & 0xC0) == 0x80; }

// Start of the character that ends right before `end` (> 0, valid text).
inline size_t PreviousCharacter(std::string_view text, size_t end) {
  do --end;
  while (end > 0 && IsContinuationByte(text[end]));
  return end;
}

void AppendUtf8(char32_t code_point, std::string& out);

bool IsValidUtf8(std::string_view bytes);

// `bytes` with every maximal invalid subpart replaced by U+FFFD.
std::string ToValidUtf8(std::string_view bytes);

// ToValidUtf8 for bytes that arrive in pieces: holds back at most 3 bytes that may still become a character.
class Utf8LossyStream {
 public:
  void Push(std::string_view bytes, std::string& out);
  void Flush(std::string& out);

 private:
  std::string held_;
};

// --- any bytes
// ----------------------------------------------------------------------------------------------------------

// Bytes of the code point at `pos` (1..4); 1 for an invalid byte. Needs pos < text.size().
size_t CodePointBytes(std::string_view text, size_t pos);
// The code point at `pos`; an invalid byte b is 0xDC00 + b, which no valid text contains.
char32_t DecodeAt(std::string_view text, size_t pos);

// Start of the code point that ends right before `end` (> 0).
size_t PreviousCodePoint(std::string_view text, size_t end);

size_t CodePointCount(std::string_view text);
// Byte offset of code point number `index`, text.size() when there are fewer.
size_t ByteOffset(std::string_view text, size_t index);

}  // namespace pensieve
