// The chat templates of one model, parsed once: its own (or one that its vocabulary suggests), and the variant for tools.
#pragma once

#include <memory>
#include <optional>

#include "base/status.h"
#include "chat/chat_template.h"
#include "tokenizer/added_tokens.h"
#include "model/loader.h"

namespace pensieve::service {

// Immutable, thread-safe.
class ChatTemplates {
 public:
  // InvalidArgument when a template does not parse; FailedPrecondition when the model has none and none can be guessed.
  static Result<ChatTemplates> Make(const model::ModelText& text);

  // A template, and who may write which tokens in its prompts.
  struct Guarded {
    chat::ChatTemplate text;
    std::shared_ptr<const tokenizer::TokenLimits> limits;
  };
  const Guarded& Choose(bool with_tools) const { return with_tools && for_tools_ ? *for_tools_ : standard_; }

 private:
  ChatTemplates(Guarded standard, std::optional<Guarded> for_tools)
      : standard_(std::move(standard)), for_tools_(std::move(for_tools)) {}

  Guarded standard_;
  std::optional<Guarded> for_tools_;
};

}  // namespace pensieve::service
