// Ollama's POST /api/chat, /api/generate, /api/embed and /api/embeddings: request bodies as neutral requests.
//
// Unknown fields and options are ignored, and so is keep_alive: models stay loaded. null counts as absent. Streaming is
// on unless `stream` is false. Images become a note in brackets: these models read text.
#pragma once

#include <string>
#include <variant>

#include "base/json.h"
#include "base/status.h"
#include "service/service.h"

namespace pensieve::api::ollama {

struct TextRequest {
  // A chat; a completion for /api/generate with `raw` or `suffix`. Nothing when the request only asks for the model to
  // be loaded (or unloaded): no messages, or an empty prompt.
  std::variant<std::monostate, service::ChatRequest, service::CompletionRequest> text;
  std::string model;  // as the client wrote it
  bool stream = true;
  bool unload = false;  // keep_alive 0
};

// {model, messages, tools, format, options, stream, think, keep_alive, logprobs, top_logprobs}.
Result<TextRequest> FromChat(const Json& body, const std::string& request_id);

// {model, prompt, suffix, system, raw, format, options, stream, think, keep_alive, ...}. Without `raw` the prompt is a
// user's turn. InvalidArgument for `context` and `template`: no conversation is kept here, and templates are the
// model's own.
Result<TextRequest> FromGenerate(const Json& body, const std::string& request_id);

// /api/embed: `input` is a string or a list of strings, which may be empty. Texts past the model's limit are cut unless
// `truncate` is false.
Result<service::EmbedRequest> FromEmbed(const Json& body, const std::string& request_id);
// /api/embeddings, its predecessor: one `prompt`.
Result<service::EmbedRequest> FromEmbeddings(const Json& body, const std::string& request_id);

}  // namespace pensieve::api::ollama
