// What a template can do and how it writes turns, found by rendering small conversations and looking for their words.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "base/json.h"
#include "base/status.h"
#include "chat/adapt_messages.h"
#include "chat/jinja_ast.h"
#include "chat/jinja_text.h"
#include "chat/rendered_prompt.h"

namespace pensieve::chat {

using SpecialTokenTexts = std::map<std::string, std::string>;

// What one rendering gets beside the template.
struct TemplateInputs {
  const Json& messages;
  const Json& tools;  // array or null
  bool add_generation_prompt = true;
  const Json& extra;  // object or null
  int64_t now_s = 0;
};

// Special tokens are the template's own words; messages, tools and extra variables are the request's (kFirstMessage,
// kRequestOrigin). InvalidArgument with the template's words or the line of the error.
Result<jinja::TracedText> RenderWith(const jinja::Block& block, const SpecialTokenTexts& special_tokens,
                                     const TemplateInputs& inputs);

struct TemplateProbe {
  TemplateAbilities abilities;
  TurnFrame frame;
  std::string answer_end;    // all that stands behind an answer at the end of a conversation
  std::string turn_borders;  // what stands between an answer and a user's text, and behind that
  Status runs;               // the template's error on a user's turn; raise_exception's words are none
};

TemplateProbe ProbeTemplate(const jinja::Block& block, const SpecialTokenTexts& special_tokens,
                            const std::string& source);

}  // namespace pensieve::chat
