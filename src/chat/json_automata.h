// What all JSON grammars share, made once: equal automata must be the same object, for masks are kept by it.
#pragma once

#include <map>
#include <memory>
#include <string>

#include "base/status.h"
#include "chat/text_automata.h"
#include "sampling/grammar.h"

namespace pensieve::chat {

// Immutable; thread-safe. Blanks between JSON's parts are none, one space, or a line end and up to 32 spaces or tabs.
struct JsonAutomata {
  sampling::DfaPtr string;            // any spelling, counting characters
  sampling::DfaPtr canonical_string;  // as DumpJson writes it, counting characters
  sampling::DfaPtr number, integer, boolean, null;
  sampling::DfaPtr open_object, close_object, open_array, close_array, comma, colon;
  sampling::DfaPtr any_key;  // a canonical string, with the label 0 that is no name

  static const JsonAutomata& Get();
};

// The pattern of a string format (to be matched as a whole), or null for one that is not known.
const char* FormatPattern(const std::string& format);

}  // namespace pensieve::chat
