// POST /v1/messages and /v1/messages/count_tokens: the request body as a neutral chat request.
//
// Everything the Messages API knows is accepted and what is not known is ignored: only missing or ill-typed essentials
// are errors, in the API's style ("messages.0.content: ..."). How each part reaches the model:
//   system               one system turn in front; blocks that begin with "x-anthropic-billing-header" are dropped:
//                        they differ per conversation and would spoil every shared prefix
//   role system inside   a system turn where it stands (the service folds it when the template has no place for it)
//   neighbours           of one role become one turn; a string is the same as one text block; cache_control is nothing
//   thinking             reasoning of its turn; redacted thinking is dropped
//   tool_result          a tool turn, in front of the text of its message
//   image, PDF, url      a note in brackets that says what was left out: these models read text
//   document, search     their text in tags
//   tool_reference       the schema of that deferred tool, as text
//   server tools         dropped from the tools; their blocks in the history become text
//   typed client tools   (bash_20250124, ...) get the input schema that Anthropic documents for them
#pragma once

#include <string>

#include "base/json.h"
#include "base/status.h"
#include "service/service.h"

namespace pensieve::api::anthropic {

struct MessagesContext {
  std::string request_id = {};
  bool count_only = false;  // count_tokens: max_tokens may be absent
};

struct MessagesRequest {
  service::ChatRequest chat;
  bool stream = false;
  bool thinking_omitted = false;  // thinking.display "omitted": thinking blocks are sent without their text
};

// InvalidArgument in the API's words for a body that cannot be served.
Result<MessagesRequest> FromMessagesRequest(const Json& body, const MessagesContext& context);

}  // namespace pensieve::api::anthropic
