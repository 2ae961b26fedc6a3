// From generation events and vectors to OpenAI's response objects and chunk streams.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "api/reply.h"
#include "base/json.h"
#include "service/service.h"

namespace pensieve::api::openai {

struct CompletionOptions {
  std::string id = {};              // "chatcmpl-..." or "cmpl-..."
  std::string model = {};           // the name in the answer
  int64_t created_unix_s = 0;
  bool include_usage = false;  // streams: a last chunk with usage
  bool logprobs = false;
  bool chat = true;            // else text completions
};

// "stop", "length" or "tool_calls".
std::string_view ToFinishReason(service::StopReason reason);
// prompt_tokens include the cached ones, unlike Anthropic's.
Json ToUsage(const service::Usage& usage);

// Collects the events of one generation into chat.completion or text_completion. Feed events up to kDone; not for
// errors.
class CompletionBuilder {
 public:
  explicit CompletionBuilder(CompletionOptions options);
  void Add(const service::GenerationEvent& event);
  Json Finish();  // valid after kDone

 private:
  const CompletionOptions options_;
  std::string text_;
  std::string reasoning_;
  Json tool_calls_ = Json::array();
  std::vector<service::TokenLogprob> logprobs_;
  service::GenerationEvent done_;
};

// Writes `data:` records; the last is "data: [DONE]", except after an error. Not thread-safe.
class CompletionStreamWriter {
 public:
  explicit CompletionStreamWriter(CompletionOptions options);
  // Chat: the chunk with the role. Completions: nothing.
  std::string Start();
  std::string Write(const service::GenerationEvent& event);
  // A comment, which every client skips: keep-alive.
  static std::string Ping();
  bool finished() const { return finished_; }

 private:
  std::string Chunk(Json choice) const;
  std::string TextChunk(const service::GenerationEvent& event);
  std::string DeltaChunk(Json delta, const service::GenerationEvent& event) const;
  std::string Done(const service::GenerationEvent& event) const;

  const CompletionOptions options_;
  int64_t tool_calls_ = 0;
  size_t text_offset_ = 0;  // of the next token's text, for completions with logprobs
  bool finished_ = false;
};

// The whole body of /v1/embeddings, vectors as numbers or base64.
HttpReply ToEmbeddingsReply(const service::EmbedResult& result, bool base64);

}  // namespace pensieve::api::openai
