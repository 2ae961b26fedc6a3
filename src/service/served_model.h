// A loaded model with its engine, and everything that requests need to know of it.
#pragma once

#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "engine/engine.h"
#include "model/loader.h"
#include "sampling/token_masks.h"
#include "service/answer_store.h"
#include "service/chat_templates.h"
#include "service/service.h"

namespace pensieve::service {

// Immutable after Create but for its engine, which has its own thread, and the store of its answers. Thread-safe.
class ServedModel {
 public:
  // Starts the engine. A template that does not parse is an error; a model without any can still complete and embed.
  static Result<std::shared_ptr<ServedModel>> Create(const std::string& name, std::vector<std::string> aliases,
                                                     std::unique_ptr<model::LoadedModel> loaded,
                                                     const engine::EngineOptions& options);

  const std::string& name() const { return description_.name; }
  const std::vector<std::string>& aliases() const { return aliases_; }
  const ModelDescription& description() const { return description_; }
  const model::ModelConfig& config() const { return loaded_->config; }
  const model::ModelText& text() const { return loaded_->text; }
  const tokenizer::Tokenizer& tokenizer() const { return *loaded_->text.tokenizer; }
  engine::Engine& engine() const { return *engine_; }
  // See LoadedModel::CheckWeights.
  Status CheckWeights() const { return loaded_->CheckWeights(/*quick=*/false); }
  // FailedPrecondition for a model without a chat template.
  Result<const ChatTemplates::Guarded*> Template(bool with_tools) const;
  // Answers of this model.
  AnswerStore& answers() const { return answers_; }
  // Ids that have a text.
  int32_t vocab_size() const;
  // The tokens as grammars see them. Made by the first call.
  std::shared_ptr<sampling::TokenMasks> token_masks() const;

 private:
  ServedModel() = default;

  ModelDescription description_;
  std::vector<std::string> aliases_;
  std::unique_ptr<model::LoadedModel> loaded_;
  std::optional<ChatTemplates> templates_;
  mutable AnswerStore answers_;  // locks itself
  mutable std::once_flag masks_made_;
  mutable std::shared_ptr<sampling::TokenMasks> token_masks_;
  std::unique_ptr<engine::Engine> engine_;  // uses loaded_: declared behind it, so destroyed before it
};

}  // namespace pensieve::service
