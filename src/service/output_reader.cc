#include "service/output_reader.h"

#include "base/random_id.h"

namespace pensieve::service {
namespace {

using Kind = GenerationEvent::Kind;

// Parsers of reasoning and calls must see the markers, which often are special tokens; plain text shall not show them.
bool NeedsSpecialTokens(const chat::OutputFormat& format) {
  return format.parse_tools || format.reasoning != chat::ReasoningFormat::kNone ||
         format.tool_format == chat::ToolFormat::kHarmony;
}

}  // namespace

OutputReader::OutputReader(const tokenizer::Tokenizer& tokenizer, OutputOptions options)
    : tokenizer_(tokenizer),
      options_(std::move(options)),
      decoder_(tokenizer.NewStreamDecoder(/*skip_special=*/!NeedsSpecialTokens(options_.format))),
      parser_(chat::NewOutputParser(options_.format, options_.tools)),
      in_reasoning_(options_.format.starts_in_reasoning) {}

TokenLogprob OutputReader::ToLogprob(const sampling::Sample& sample) const {
  TokenLogprob out{.id = sample.id, .bytes = tokenizer_.TokenBytes(sample.id), .logprob = sample.logprob, .top = {}};
  for (const auto& other : sample.top) {
    out.top.push_back({.id = other.id, .bytes = tokenizer_.TokenBytes(other.id), .logprob = other.logprob, .top = {}});
  }
  return out;
}

void OutputReader::Push(const sampling::Sample& sample, std::deque<GenerationEvent>& out) {
  if (ended_) return;
  if (options_.logprobs) logprobs_.push_back(ToLogprob(sample));
  if (in_reasoning_) ++reasoning_tokens_;
  const std::string text = decoder_->Push(sample.id);
  if (text.empty()) return;
  parser_->Push(text, segments_);
  Append(segments_, out);
}

void OutputReader::Finish(std::deque<GenerationEvent>& out) {
  if (ended_) return;
  parser_->Push(decoder_->Flush(), segments_);
  parser_->Finish(segments_);
  Append(segments_, out);
  if (!ended_) FlushText(out);
  // Tokens without any text of their own (special tokens that are not shown) still have their place in the list.
  if (!logprobs_.empty()) Emit(Kind::kText, "", out);
}

void OutputReader::Append(std::vector<chat::Segment>& segments, std::deque<GenerationEvent>& out) {
  for (chat::Segment& segment : segments) {
    if (ended_) break;
    in_reasoning_ = segment.kind == chat::SegmentKind::kReasoning;
    if (segment.kind == chat::SegmentKind::kText) {
      AppendText(segment.text, out);
      continue;
    }
    FlushText(out);
    switch (segment.kind) {
      case chat::SegmentKind::kText: break;
      case chat::SegmentKind::kReasoning: Emit(Kind::kReasoning, std::move(segment.text), out); break;
      case chat::SegmentKind::kToolCallStart:
        ++tool_calls_;
        call_id_ = NewId("");
        Emit(Kind::kToolCallStart, "", out);
        out.back().tool_name = std::move(segment.tool_name);
        break;
      case chat::SegmentKind::kToolCallArguments: Emit(Kind::kToolCallArguments, std::move(segment.text), out); break;
      case chat::SegmentKind::kToolCallEnd:
        Emit(Kind::kToolCallEnd, "", out);
        ended_ = !options_.parallel_tool_calls;
        break;
    }
  }
  segments.clear();
}

void OutputReader::AppendText(const std::string& text, std::deque<GenerationEvent>& out) {
  if (options_.stop_sequences.empty()) return Emit(Kind::kText, text, out);
  if (!stops_) stops_.emplace(options_.stop_sequences);
  std::string sure;
  if (stops_->Push(text, sure)) {
    ended_ = true;
    matched_stop_ = options_.stop_sequences[static_cast<size_t>(stops_->matched())];
  }
  if (!sure.empty()) Emit(Kind::kText, std::move(sure), out);
}

// A run of text ends where reasoning or a call begins: what looked like the start of a stop sequence is none.
void OutputReader::FlushText(std::deque<GenerationEvent>& out) {
  if (!stops_) return;
  std::string rest;
  stops_->Finish(rest);
  stops_.reset();
  if (!rest.empty()) Emit(Kind::kText, std::move(rest), out);
}

void OutputReader::Emit(GenerationEvent::Kind kind, std::string text, std::deque<GenerationEvent>& out) {
  GenerationEvent event;
  event.kind = kind;
  event.text = std::move(text);
  const bool is_call = kind == Kind::kToolCallStart || kind == Kind::kToolCallArguments || kind == Kind::kToolCallEnd;
  if (is_call) event.call_id = call_id_;
  event.logprobs = std::move(logprobs_);
  logprobs_.clear();
  out.push_back(std::move(event));
}

}  // namespace pensieve::service
