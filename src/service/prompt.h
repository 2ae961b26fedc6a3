// From a chat request to the text and tokens that the model reads. Pure but for the model's immutable parts.
//
// The whole rendered text is tokenized at once with special tokens recognised, as Hugging Face does: a message that
// spells a special token ("<|im_end|>") therefore contains it.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "base/status.h"
#include "chat/output_parser.h"
#include "service/served_model.h"
#include "service/service.h"

namespace pensieve::service {

struct Prompt {
  std::string text;
  chat::OutputFormat format;  // how to read the answer
  Json tools;                 // what the model may call, or null
};

// InvalidArgument for a conversation that the template refuses or a named tool that is not there.
Result<Prompt> RenderPrompt(const ServedModel& model, ChatRequest request);

std::vector<int32_t> TokenizePrompt(const ServedModel& model, const Prompt& prompt);

// InvalidArgument (kPromptTooLong): "prompt is too long: N tokens > M maximum", words that clients look for.
Status CheckPromptLen(int64_t prompt_tokens, int64_t tokens_max);

// kPromptTooLong for a long text that has more than `tokens_max` tokens, found without tokenizing much more of it than
// those; the number of its tokens is then an estimate. OK says nothing: the tokens must still be counted.
Status CheckTextLen(const tokenizer::Tokenizer& tokenizer, std::string_view text, int64_t tokens_max);

// Request over model defaults over ours (temperature 0.7, top_p 0.95). A fresh seed when none is asked for.
// InvalidArgument naming the field for values that cannot be sampled with.
Result<sampling::SamplingParams> ResolveSampling(const ServedModel& model, const SamplingRequest& request);

}  // namespace pensieve::service
