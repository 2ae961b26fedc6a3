// The routes of the first Pensieve that no vendor has: POST /generate and POST /cache/clear. Errors: {"detail": message}.
#pragma once

#include <string>

#include "api/dialect.h"

namespace pensieve::api::pensieve1 {

extern const Dialect kDialect;

// {prompt, max_tokens (1 to 2048, 100), temperature (0 to 2, 0.7), stream (false)}: the prompt is raw text.
// FailedPrecondition (422) for missing fields and wrong types.
struct GenerateRequest {
  service::CompletionRequest completion;
  bool stream = false;
};
Result<GenerateRequest> FromGenerate(const Json& body, const std::string& request_id);

// Whole: {text, tokens, elapsed_seconds, tokens_per_second, memory_status}, where tokens are real ones. Streamed: lines
// {"type":"chunk","text"}, then {"type":"complete"} or {"type":"error","error"}.
class GenerateFormat final : public AnswerFormat {
 public:
  explicit GenerateFormat(std::string memory_status) : memory_status_(std::move(memory_status)) {}

  void Add(size_t choice, const service::GenerationEvent& event) override;
  Json Finish() override;
  std::string Start() override { return ""; }
  std::string Write(size_t choice, const service::GenerationEvent& event) override;
  std::string_view StreamType() const override { return "application/x-ndjson"; }
  std::string Ping() const override { return ""; }

 private:
  const std::string memory_status_;
  std::string text_;
  service::Usage usage_;
};

}  // namespace pensieve::api::pensieve1
