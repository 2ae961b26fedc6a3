// From sampled tokens to generation events: detokenizes, splits reasoning and tool calls from text, finds stop
// sequences.
#pragma once

#include <deque>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "chat/output_parser.h"
#include "chat/stop_matcher.h"
#include "sampling/sampler.h"
#include "service/service.h"
#include "tokenizer/tokenizer.h"

namespace pensieve::service {

struct OutputOptions {
  chat::OutputFormat format;
  Json tools;                               // or null
  std::vector<std::string> stop_sequences;  // looked for in text only, neither in reasoning nor in arguments
  bool parallel_tool_calls = true;
  bool logprobs = false;
};

// Not thread-safe; one per output. The tokenizer must outlive it.
class OutputReader {
 public:
  OutputReader(const tokenizer::Tokenizer& tokenizer, OutputOptions options);

  // Appends the events that this token completes. Nothing more is taken once ended().
  void Push(const sampling::Sample& sample, std::deque<GenerationEvent>& out);
  // The model stopped by itself or by its limit: appends what was held back.
  void Finish(std::deque<GenerationEvent>& out);

  // A stop sequence was found, or the only tool call allowed is complete: the rest of the output is not wanted.
  bool ended() const { return ended_; }
  // Empty unless a stop sequence was found.
  const std::string& matched_stop() const { return matched_stop_; }
  int64_t tool_calls() const { return tool_calls_; }
  int64_t reasoning_tokens() const { return reasoning_tokens_; }

 private:
  void Append(std::vector<chat::Segment>& segments, std::deque<GenerationEvent>& out);
  void AppendText(const std::string& text, std::deque<GenerationEvent>& out);
  void FlushText(std::deque<GenerationEvent>& out);
  void Emit(GenerationEvent::Kind kind, std::string text, std::deque<GenerationEvent>& out);
  TokenLogprob ToLogprob(const sampling::Sample& sample) const;

  const tokenizer::Tokenizer& tokenizer_;
  const OutputOptions options_;
  std::unique_ptr<tokenizer::StreamDecoder> decoder_;
  std::unique_ptr<chat::OutputParser> parser_;
  std::optional<chat::StopMatcher> stops_;  // of the present run of text
  std::vector<chat::Segment> segments_;
  std::vector<TokenLogprob> logprobs_;  // of tokens whose text has not gone out yet
  std::string call_id_;
  bool in_reasoning_ = false;
  bool ended_ = false;
  std::string matched_stop_;
  int64_t tool_calls_ = 0;
  int64_t reasoning_tokens_ = 0;
};

}  // namespace pensieve::service
