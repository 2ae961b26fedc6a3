// Fits a conversation to what a template can show, so that every model gets every conversation. Pure functions.
#pragma once

#include <string>

#include "base/json.h"
#include "base/status.h"

namespace pensieve::chat {

// Found by probing the template; see template_probe.h.
struct TemplateAbilities {
  bool tools = false;                   // shows the tools it is given
  bool tools_none = true;               // renders when there are no tools; else it needs an empty list
  bool parallel_tool_calls = true;      // takes several calls of one assistant turn
  bool arguments_text = false;          // wants a call's arguments as JSON text; else as an object
  bool malformed_arguments = false;     // shows a call's arguments when they are text that is no JSON object
  bool system = true;                   // shows a system turn in first position
  bool system_mid_conversation = true;  // shows later system turns where they stand
  bool same_role_turns = true;          // shows two user turns, or two assistant turns, in a row
  bool user_after_tool = true;          // shows a user turn right behind a tool result
  bool content_text = true;             // shows content that is a string
  bool content_parts = false;           // shows content that is an array of parts
  bool content_null = false;            // tells null content from empty content
  bool nine_letter_call_ids = false;    // refuses tool call ids that are not nine letters or digits (Mistral)
};

struct AdaptedInputs {
  Json messages;
  Json tools;  // array or null
};

// The steps, in order:
//  * content null becomes "" (kept before tool calls for templates that look at it), text parts become one string, or
//    one text part where a template knows only parts; `developer` becomes `system`; reasoning is given under all names
//    in use (reasoning_content, thinking); tool call arguments become an object, or its JSON text where the template
//    wants that; arguments that are no object are shown as they are where the template can, else as {};
//  * without tool support, the tools are described at the end of the system turn in the Hermes form, calls of the
//    history become <tool_call> text in assistant turns, and results <tool_response> text in user turns;
//  * leading system turns become one, also an empty one; where the template shows none, the text opens the first user
//    turn;
//  * later system turns that cannot stand where they are join the turn before them, in <system-reminder> tags:
//    what came earlier keeps its bytes, so that a prefix cache stays valid;
//  * turns of the same role in a row are merged where the template wants them to alternate; an empty assistant turn
//    parts a tool result from the user turn behind it where the template demands an answer between them;
//  * several calls in one turn are spread over turns where only one is shown; call ids are shortened where demanded.
// InvalidArgument naming the message for what no template can show.
Result<AdaptedInputs> AdaptForTemplate(const Json& messages, const Json& tools, const TemplateAbilities& abilities);

// json.dumps(json, ensure_ascii=False): Python's separators and floats.
std::string PythonJson(const Json& json);

}  // namespace pensieve::chat
