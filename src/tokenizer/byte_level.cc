#include "tokenizer/byte_level.h"

#include <array>

#include "base/utf8.h"

namespace pensieve::tokenizer {
namespace {

struct Alphabet {
  std::array<char32_t, 256> characters{};
  std::array<int, 256 + 68> bytes{};
};

constexpr Alphabet MakeAlphabet() {
  Alphabet alphabet;
  for (int& byte : alphabet.bytes) byte = -1;
  char32_t next = 0x100;
  for (int byte = 0; byte < 256; ++byte) {
    const bool printable = (byte >= 33 && byte <= 126) || (byte >= 161 && byte <= 172) || byte >= 174;
    const char32_t c = printable ? static_cast<char32_t>(byte) : next++;
    alphabet.characters[static_cast<size_t>(byte)] = c;
    alphabet.bytes[c] = byte;
  }
  return alphabet;
}

constexpr Alphabet kAlphabet = MakeAlphabet();

}  // namespace

char32_t CharacterOfByte(unsigned char byte) { return kAlphabet.characters[byte]; }

int ByteOfCharacter(char32_t c) { return c < kAlphabet.bytes.size() ? kAlphabet.bytes[c] : -1; }

std::string BytesToAlphabet(std::string_view bytes) {
  std::string out;
  out.reserve(bytes.size() * 2);
  for (const char byte : bytes) AppendUtf8(CharacterOfByte(static_cast<unsigned char>(byte)), out);
  return out;
}

std::string AlphabetToBytes(std::string_view token) {
  std::string bytes;
  bytes.reserve(token.size());
  for (size_t at = 0; at < token.size();) {
    const int byte = ByteOfCharacter(NextCodePoint(token, at));
    if (byte < 0) return std::string(token);
    bytes.push_back(static_cast<char>(byte));
  }
  return bytes;
}

}  // namespace pensieve::tokenizer
