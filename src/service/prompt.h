// From a chat request to the text and tokens that the model reads. Pure but for the model's immutable parts.
//
// The whole rendered text is tokenized at once, as Hugging Face does, but special tokens are recognised only in what the
// template has written: a message that spells one ("<|im_end|>") holds plain text.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "base/status.h"
#include "chat/answer_grammar.h"
#include "chat/output_parser.h"
#include "chat/rendered_prompt.h"
#include "service/served_model.h"
#include "service/service.h"

namespace pensieve::service {

struct Prompt {
  chat::RenderedPrompt rendered;
  std::shared_ptr<const tokenizer::TokenLimits> limits;
  bool continues_answer = false;  // the prompt ends within an assistant's turn
  chat::OutputFormat format;      // how to read the answer
  std::string template_source;
  Json tools;  // what the model may call, or null
};

// What the answer must be, besides readable.
struct AnswerDemands {
  chat::AnswerRules rules;
  Json deferred_tools;    // may be called beside those of the prompt
  std::string beginning;  // of the answer, as the client gave it
};

// Reads `request` without changing it. InvalidArgument for two forms at once.
Result<AnswerDemands> ReadDemands(const ChatRequest& request);

// InvalidArgument for a conversation that the template refuses or a named tool that is not there.
Result<Prompt> RenderPrompt(const ServedModel& model, ChatRequest request);

struct PromptIds {
  std::vector<int32_t> ids;
  std::vector<engine::TokenRange> answers;  // assistant's turns of the history, without what ends them
  // Where the present answer's turn begins, for AnswerStore: behind `before`, with the ids of the prompt from
  // `answer_begin` on (those of a turn that is continued).
  PromptPrefix before;
  size_t answer_begin = 0;
  bool answer_known = true;  // false: an answer cannot be stored, for its begin lies within a token
};

// An answer that `partition` has seen generated behind the same text is given the ids that were drawn.
PromptIds TokenizePrompt(const ServedModel& model, const Prompt& prompt, uint64_t partition);

// InvalidArgument (kPromptTooLong): "prompt is too long: N tokens > M maximum", words that clients look for.
Status CheckPromptLen(int64_t prompt_tokens, int64_t tokens_max);

// kPromptTooLong for a long text that has more than `tokens_max` tokens, found without tokenizing much more of it than
// those; the number of its tokens is then an estimate. OK says nothing: the tokens must still be counted.
Status CheckTextLen(const tokenizer::Tokenizer& tokenizer, std::string_view text, int64_t tokens_max);

// Request over model defaults over ours (temperature 0.7, top_p 0.95). A fresh seed when none is asked for.
// InvalidArgument naming the field for values that cannot be sampled with.
Result<sampling::SamplingParams> ResolveSampling(const ServedModel& model, const SamplingRequest& request);

}  // namespace pensieve::service
