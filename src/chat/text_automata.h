// Automata of texts: characters as bytes, JSON's strings and numbers, and the pieces that patterns are made of.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/json.h"
#include "base/status.h"
#include "sampling/automaton.h"

namespace pensieve::chat {

// How a character stands in the text.
enum class Spelling : uint8_t {
  kPlain,       // UTF-8
  kJsonString,  // UTF-8 inside of a JSON string, in the one spelling that DumpJson gives it
};

// Ranges of code points, in any order; may overlap until Normalize.
class CodePointSet {
 public:
  struct Range {
    char32_t first;
    char32_t last;
  };
  static CodePointSet All();  // every Unicode scalar value
  void Add(char32_t first, char32_t last) { ranges_.push_back({first, last}); }
  void Add(const CodePointSet& other) { ranges_.insert(ranges_.end(), other.ranges_.begin(), other.ranges_.end()); }
  // Sorted, apart from each other, without surrogates.
  void Normalize();
  // What All() holds and this (normalized) set does not.
  CodePointSet Complement() const;
  const std::vector<Range>& ranges() const { return ranges_; }

 private:
  std::vector<Range> ranges_;
};

// One character of the (normalized) set.
sampling::Nfa::Part AddCharacter(sampling::Nfa& nfa, const CodePointSet& set, Spelling spelling);
// All of `text`, which is valid UTF-8.
std::string Spell(std::string_view text, Spelling spelling);

// A JSON string with its quotes. With any escapes that JSON allows (surrogates in pairs only), counting characters; or
// with only those that DumpJson writes.
Result<sampling::Dfa> JsonString(bool any_spelling, sampling::Budget& budget);

// A number as digits: minus, integer part without leading zeros, fraction without trailing ones.
struct Decimal {
  bool negative = false;
  std::string whole = "0";
  std::string fraction = "";
};
// Of a JSON number.
Decimal ToDecimal(const Json& number);
// -1, 0 or 1.
int Compare(const Decimal& a, const Decimal& b);

struct NumberLimits {
  bool integer = false;
  std::optional<Decimal> min;
  std::optional<Decimal> max;
  bool min_excluded = false;
  bool max_excluded = false;
  int64_t multiple_of = 1;             // > 1: whole numbers only, those that it divides
  std::optional<int> fraction_digits;  // at most so many
};
// JSON numbers within the limits, in decimal notation. Without limits: up to 18 digits, or 15 before and behind the
// point and two of an exponent, so that every reader finds the same value.
Result<sampling::Dfa> JsonNumber(const NumberLimits& limits, sampling::Budget& budget);

}  // namespace pensieve::chat
