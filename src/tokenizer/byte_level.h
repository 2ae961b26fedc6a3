// GPT-2's alphabet: every byte has a printable character, so that a vocabulary of strings can hold any bytes.
#pragma once

#include <string>
#include <string_view>

namespace pensieve::tokenizer {

// The character of a byte: 33..126, 161..172, 174..255 are themselves, the other 68 follow from U+0100.
char32_t CharacterOfByte(unsigned char byte);
// The byte of a character, or -1 for characters outside the alphabet.
int ByteOfCharacter(char32_t c);

std::string BytesToAlphabet(std::string_view bytes);
// The bytes that `token` stands for; `token` itself when a character is outside the alphabet.
std::string AlphabetToBytes(std::string_view token);

}  // namespace pensieve::tokenizer
