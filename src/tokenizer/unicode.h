// Character properties and normal forms exactly as the Hugging Face `tokenizers` package (0.23) applies them. Its parts
// use several versions of Unicode at once (12 for normal forms, older ones for the BERT classes, newer ones for its
// regular expressions); the tables in unicode_tables.inc were measured on the package, class by class and code point by
// code point (tools/tokenizer_golden.py --write-unicode-tables).
#pragma once

#include <string>
#include <string_view>

namespace pensieve::tokenizer {

bool IsWhitespace(char32_t c);        // White_Space
bool IsNumeric(char32_t c);           // Nd, Nl, No: the Digits pre-tokenizer
bool IsWordCharacter(char32_t c);     // \w of the Whitespace pre-tokenizer and of single_word tokens
bool IsPunctuation(char32_t c);       // ASCII punctuation and P*: Punctuation and BertPreTokenizer
bool IsMark(char32_t c);              // M*: StripAccents
bool IsNonspacingMark(char32_t c);    // Mn: BertNormalizer's strip_accents
bool IsBertControl(char32_t c);       // what BertNormalizer's clean_text drops: C* without \t \n \r, U+0000, U+FFFD
bool IsChineseCharacter(char32_t c);  // the CJK blocks that BertNormalizer surrounds with spaces

// A code point of the same UTF-8 length whose classes in the regex library are those that `c` has in the package;
// `c` itself for all but a few characters. Lets an older (or differing) PCRE2 split newer scripts rightly.
char32_t RegexProxy(char32_t c);

void AppendLowercase(char32_t c, std::string& out);
std::string Lowercase(std::string_view text);

enum class NormalForm { kNfc, kNfd, kNfkc, kNfkd };

// O(n log n) also for endless runs of combining marks.
std::string Normalize(std::string_view text, NormalForm form);

}  // namespace pensieve::tokenizer
