// What an answer may be, as one grammar: JSON of a schema, a regular expression or a grammar; calls of tools in the
// model family's own syntax; reasoning in front of them.
//
// Markers such as <tool_call> are special tokens in some vocabularies and text in others: both are allowed. Inside of
// reasoning, and in free text up to the marker that opens a call, anything goes.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "base/json.h"
#include "base/status.h"
#include "chat/output_parser.h"
#include "sampling/grammar.h"

namespace pensieve::chat {

enum class AnswerForm : uint8_t { kFree, kJsonSchema, kRegex, kGrammar };
enum class CallRule : uint8_t {
  kNone,     // no call is expected; whatever looks like one is text
  kAllowed,  // once a call is opened, it is one of the tools with arguments that match
  kDemanded  // the answer is a call, or several
};

struct AnswerRules {
  AnswerForm form = AnswerForm::kFree;
  Json schema;       // kJsonSchema
  std::string text;  // kRegex, kGrammar
  CallRule calls = CallRule::kNone;
  Json tools;  // those that may be called: [{type: "function", function: {name, parameters}}] or null
  std::vector<std::string> strict_tools;  // names of those whose arguments must match in any case
  bool parallel_calls = true;
  OutputFormat format;
  std::string template_source;  // some families write calls in two ways

  // Equal for equal rules.
  std::string Fingerprint() const;
};

// Null when the rules allow everything. InvalidArgument naming the keyword (and the tool) that cannot be enforced, or
// saying that this family's calls cannot be; the cost is bounded, whatever is asked. A schema of a tool that is neither
// strict nor demanded and cannot be enforced leaves that tool's arguments free.
Result<std::shared_ptr<const sampling::Grammar>> CompileAnswer(const AnswerRules& rules);

}  // namespace pensieve::chat
