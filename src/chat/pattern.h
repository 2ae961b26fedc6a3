// Regular expressions of JSON Schema (ECMA-262 with the "u" flag), as automata. What no automaton can do (backward
// references, lookaround, word boundaries) is refused.
//
// \d, \w and \s are those of ECMA-262, but that \s matches ASCII's blanks alone and \S none of Unicode's, so that other
// engines agree on what was matched.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "base/status.h"
#include "chat/text_automata.h"
#include "sampling/automaton.h"

namespace pensieve::chat {

// A part of a regular expression.
struct PatternNode {
  enum class Kind : uint8_t { kSet, kSequence, kChoice, kRepeat, kTextBegin, kTextEnd };
  Kind kind = Kind::kSequence;
  CodePointSet set;                   // kSet
  std::vector<PatternNode> children;  // kRepeat: one
  int64_t min = 0;                    // kRepeat
  int64_t max = -1;                   // < 0: without end
};

// InvalidArgument saying what is wrong, or what cannot be enforced.
Result<PatternNode> ParsePattern(std::string_view pattern);
// A class that begins at text[at] ('['); moves `at` behind its end.
Result<CodePointSet> ParseCharacterClass(std::string_view text, size_t& at);

Result<sampling::Nfa::Part> AddPattern(sampling::Nfa& nfa, const PatternNode& node, Spelling spelling);

// Texts in which the pattern is found anywhere; or that it matches from beginning to end (`whole`). As JSON strings
// with their quotes when so spelled.
Result<sampling::Dfa> CompilePattern(std::string_view pattern, bool whole, Spelling spelling, sampling::Budget& budget);

}  // namespace pensieve::chat
