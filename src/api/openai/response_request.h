// OpenAI's POST /v1/responses: items and settings as a neutral chat request.
//
// Items: messages, function calls and their outputs, reasoning. Others are skipped, and so are tools that are no
// functions: clients send what a vendor's own servers would run. What the server cannot do at all (background,
// conversation, stored prompts) is an error.
#pragma once

#include <string>

#include "base/json.h"
#include "base/status.h"
#include "service/service.h"

namespace pensieve::api::openai {

struct ResponseRequest {
  service::ChatRequest chat;
  bool stream = false;
  bool store = true;
  bool encrypted_reasoning = false;  // `include` asks for reasoning.encrypted_content
  bool logprobs = false;             // ... for message.output_text.logprobs
  std::string previous_id;
  Json input;     // the items of this request, each with a type and an id
  Json settings;  // the fields of the response object that repeat the request
};

// The id of `previous_response_id`, "" for none; nothing else is read.
Result<std::string> PreviousResponseId(const Json& body);

// `history`: the items of all earlier responses, inputs and outputs, in order.
Result<ResponseRequest> FromResponses(const Json& body, const Json& history, const std::string& request_id);

// Reasoning as the opaque text that stateless clients send back.
std::string SealReasoning(std::string_view text);

}  // namespace pensieve::api::openai
