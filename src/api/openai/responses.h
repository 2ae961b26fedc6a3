// From generation events and vectors to OpenAI's response objects and chunk streams.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "api/reply.h"
#include "base/json.h"
#include "service/service.h"

namespace pensieve::api::openai {

struct CompletionOptions {
  std::string id = {};     // "chatcmpl-..." or "cmpl-..."
  std::string model = {};  // the name in the answer
  int64_t created_unix_s = 0;
  bool include_usage = false;  // streams: a last chunk with usage
  bool logprobs = false;
  bool chat = true;  // else text completions
  size_t choices = 1;
  size_t choices_per_prompt = 1;  // `n`: of these, all but the first have a prompt that is counted already
};

// "stop", "length" or "tool_calls".
std::string_view ToFinishReason(service::StopReason reason);
// prompt_tokens include the cached ones, unlike Anthropic's.
Json ToUsage(const service::Usage& usage);

// The logprobs.content of chat answers, for as many tokens.
Json ChatLogprobList(const std::vector<service::TokenLogprob>& tokens);

// Sums what the choices of one request used.
class UsageSum {
 public:
  explicit UsageSum(const CompletionOptions& options) : choices_per_prompt_(options.choices_per_prompt) {}
  void Add(size_t choice, const service::Usage& usage);
  const service::Usage& total() const { return total_; }

 private:
  const size_t choices_per_prompt_;
  service::Usage total_;
};

// Collects the events of all choices into chat.completion or text_completion. Feed events up to kDone; not for errors.
class CompletionBuilder {
 public:
  explicit CompletionBuilder(CompletionOptions options);
  void Add(size_t choice, const service::GenerationEvent& event);
  Json Finish();  // valid after the kDone of each choice

 private:
  struct Choice {
    std::string text;
    std::string reasoning;
    Json tool_calls = Json::array();
    std::vector<service::TokenLogprob> logprobs;
    service::StopReason stop_reason = service::StopReason::kEnd;
  };
  Json ToChoice(size_t index);

  const CompletionOptions options_;
  std::vector<Choice> choices_;
  UsageSum usage_;
};

// Writes `data:` records; the last is "data: [DONE]", except after an error. Not thread-safe.
class CompletionStreamWriter {
 public:
  explicit CompletionStreamWriter(CompletionOptions options);
  // Chat: a chunk with the role for each choice. Completions: nothing.
  std::string Start();
  std::string Write(size_t choice, const service::GenerationEvent& event);
  // A comment, which every client skips: keep-alive.
  static std::string Ping();
  // The stream is whole, or has failed.
  bool finished() const { return finished_; }

 private:
  struct Choice {
    int64_t tool_calls = 0;
    size_t text_offset = 0;  // of the next token's text, for completions with logprobs
  };
  std::string Chunk(Json choice) const;
  std::string TextChunk(size_t choice, const service::GenerationEvent& event);
  std::string DeltaChunk(size_t choice, Json delta, const service::GenerationEvent& event) const;
  std::string Done(size_t choice, const service::GenerationEvent& event);

  const CompletionOptions options_;
  std::vector<Choice> choices_;
  size_t open_ = 0;  // choices that are not done
  UsageSum usage_;
  bool finished_ = false;
};

// The whole body of /v1/embeddings, vectors as numbers or base64.
HttpReply ToEmbeddingsReply(const service::EmbedResult& result, bool base64);

}  // namespace pensieve::api::openai
