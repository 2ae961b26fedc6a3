// From generation events, vectors and models to Ollama's answers. Durations are nanoseconds.
#pragma once

#include <string>
#include <vector>

#include "api/dialect.h"
#include "base/json.h"
#include "service/service.h"

namespace pensieve::api::ollama {

struct TextOptions {
  std::string model = {};  // as the request spelled it
  bool chat = true;        // /api/chat: `message`; /api/generate: `response`
  bool logprobs = false;
};

// One object, or a line for each piece; the last has "done": true with the counts. A tool call is told whole, once its
// arguments are complete.
class TextFormat final : public AnswerFormat {
 public:
  explicit TextFormat(TextOptions options) : options_(std::move(options)) {}

  void Add(size_t choice, const service::GenerationEvent& event) override;
  Json Finish() override;
  std::string Start() override { return ""; }
  std::string Write(size_t choice, const service::GenerationEvent& event) override;
  std::string_view StreamType() const override { return "application/x-ndjson"; }
  std::string Ping() const override { return ""; }

 private:
  Json Head() const;
  // An object with one part of the answer: text, thoughts or tool calls.
  Json Part(std::string_view text, std::string_view thinking, Json tool_calls) const;
  Json Call();
  Json Done(Json head, const service::GenerationEvent& event) const;

  const TextOptions options_;
  std::string text_;                 // of a whole answer
  std::string thinking_;             // likewise
  Json tool_calls_ = Json::array();  // likewise
  Json logprobs_ = Json::array();    // likewise
  service::GenerationEvent done_;
  service::GenerationEvent call_;  // the one whose arguments are coming
  std::string arguments_;
  int64_t calls_ = 0;
};

// The answer to a request without text, which only loads a model: it is loaded.
HttpReply ToLoadReply(const TextOptions& options, bool unload);

// {model, embeddings, total_duration, load_duration, prompt_eval_count}.
HttpReply ToEmbedReply(const service::EmbedResult& result, const std::string& model);
// {embedding}: of the first text.
HttpReply ToEmbeddingsReply(const service::EmbedResult& result);

// GET /api/tags, GET /api/ps and POST /api/show.
Json ToTags(const std::vector<service::ModelDescription>& models);
Json ToRunning(const std::vector<service::ModelDescription>& models);
Json ToShow(const service::ModelDescription& model);

}  // namespace pensieve::api::ollama
