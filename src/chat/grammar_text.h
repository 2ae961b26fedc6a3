// Grammars and regular expressions as clients write them.
//
//   root   ::= greeting ", " name "!"     # a comment runs to the end of the line
//   greeting ::= "Hello" | "Hi" | [Gg] "ood day"
//   name   ::= [A-Z] [a-z]{1,20} ("-" name)?
//
// Rules: name ::= expression. The text is what `root` matches. An expression is a sequence of literals in double quotes
// (escapes \n \r \t \\ \" \xHH \uHHHH), character classes as in regular expressions, "." for any character, names of
// rules and groups in round brackets; "|" separates alternatives; "*", "+", "?", "{n}", "{n,}" and "{n,m}" repeat what
// stands in front of them. A rule ends where the next begins. A rule that begins with itself is refused.
#pragma once

#include <string_view>

#include "base/status.h"
#include "sampling/grammar.h"

namespace pensieve::chat {

// InvalidArgument that says what is wrong and in which line, or that nothing can satisfy it; ResourceExhausted.
Result<sampling::NodeId> AddGrammarText(sampling::GrammarBuilder& builder, std::string_view text,
                                        sampling::Budget& budget);

// Texts that the pattern matches from beginning to end.
Result<sampling::NodeId> AddRegex(sampling::GrammarBuilder& builder, std::string_view pattern,
                                  sampling::Budget& budget);

}  // namespace pensieve::chat
