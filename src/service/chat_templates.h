// The chat templates of one model, parsed once: its own (or one that its vocabulary suggests), and the variant for tools.
#pragma once

#include <optional>

#include "base/status.h"
#include "chat/chat_template.h"
#include "model/loader.h"

namespace pensieve::service {

// Immutable, thread-safe.
class ChatTemplates {
 public:
  // InvalidArgument when a template does not parse; FailedPrecondition when the model has none and none can be guessed.
  static Result<ChatTemplates> Make(const model::ModelText& text);

  const chat::ChatTemplate& Choose(bool with_tools) const { return with_tools && for_tools_ ? *for_tools_ : standard_; }

 private:
  ChatTemplates(chat::ChatTemplate standard, std::optional<chat::ChatTemplate> for_tools)
      : standard_(std::move(standard)), for_tools_(std::move(for_tools)) {}

  chat::ChatTemplate standard_;
  std::optional<chat::ChatTemplate> for_tools_;
};

}  // namespace pensieve::service
