// OpenAI's POST /v1/chat/completions, /v1/completions and /v1/embeddings: request bodies as neutral requests.
// Unknown fields are ignored; null counts as absent; fields that this server cannot honour without lying are errors,
// fields without effect on the answer are not.
#pragma once

#include <string>

#include "base/json.h"
#include "base/status.h"
#include "service/service.h"

namespace pensieve::api::openai {

struct StreamOptions {
  bool stream = false;
  bool include_usage = false;  // a last chunk with usage and no choices
};

// Choices that one request may ask for, over all of its prompts.
inline constexpr size_t kChoicesMax = 128;

struct ChatCompletionRequest {
  service::ChatRequest chat;
  size_t n = 1;  // choices
  StreamOptions stream;
};
Result<ChatCompletionRequest> FromChatCompletion(const Json& body, const std::string& request_id);

// `prompt`: a string, token ids, or a list of either. `echo` puts the prompt in front of the answer and `suffix` asks
// for what stands between the two; neither goes with what the other needs.
struct TextCompletionRequest {
  std::vector<service::CompletionRequest> completions;  // one for each prompt
  size_t n = 1;                                         // choices for each of them
  StreamOptions stream;
};
Result<TextCompletionRequest> FromCompletion(const Json& body, const std::string& request_id);

struct EmbeddingsRequest {
  service::EmbedRequest embed;
  bool base64 = false;  // encoding_format
};
// `input`: a string, strings, token ids, or lists of token ids; 1 to 2048 of them. A text past the model's limit is
// cut, as the model's makers do, or an error (as at OpenAI) with the extension `truncate`: false. `dimensions` asks for a
// leading part of the vector. Another extension: `pooling`.
Result<EmbeddingsRequest> FromEmbeddings(const Json& body, const std::string& request_id);

}  // namespace pensieve::api::openai
