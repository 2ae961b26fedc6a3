#include "http/generation.h"

#include <algorithm>

namespace pensieve::http {

using Kind = service::GenerationEvent::Kind;

Result<GenerationGroup> GenerationGroup::Submit(api::GenerationCall& call, uint64_t cache_partition,
                                                service::Service& service) {
  GenerationGroup group;
  for (auto& choice : call.choices) {
    std::visit([&](auto& request) { request.cache_partition = cache_partition; }, choice);
    auto generation = std::holds_alternative<service::ChatRequest>(choice)
                          ? service.Chat(std::move(std::get<service::ChatRequest>(choice)))
                          : service.Complete(std::move(std::get<service::CompletionRequest>(choice)));
    if (!generation.has_value()) return generation.error();
    group.generations_.push_back(*std::move(generation));
  }
  group.open_ = group.generations_.size();
  group.done_.resize(group.open_);
  return group;
}

std::vector<api::Accepted> GenerationGroup::accepted() const {
  std::vector<api::Accepted> accepted;
  for (const auto& generation : generations_)
    accepted.push_back({.model_name = generation->model_name(), .prompt_tokens = generation->prompt_tokens()});
  return accepted;
}

int64_t GenerationGroup::prompt_tokens() const {
  int64_t tokens = 0;
  for (const auto& generation : generations_) tokens += generation->prompt_tokens();
  return tokens;
}

int64_t GenerationGroup::generated_tokens() const {
  int64_t tokens = 0;
  for (const auto& generation : generations_) tokens += static_cast<int64_t>(generation->generated_ids().size());
  return tokens;
}

std::optional<ChoiceEvent> GenerationGroup::TryNext() {
  for (size_t asked = 0; asked < generations_.size() && !over(); ++asked) {
    const size_t choice = next_;
    next_ = (next_ + 1) % generations_.size();
    if (done_[choice]) continue;
    auto event = generations_[choice]->TryNext();
    if (!event) continue;
    if (event->terminal()) {
      done_[choice] = true;
      --open_;
      failed_ = event->kind != Kind::kDone;
      usage_.prompt_tokens += event->usage.prompt_tokens;
      usage_.cached_prompt_tokens += event->usage.cached_prompt_tokens;
      usage_.completion_tokens += event->usage.completion_tokens;
      usage_.reasoning_tokens += event->usage.reasoning_tokens;
      usage_.first_token_s = std::max(usage_.first_token_s, event->usage.first_token_s);
      usage_.total_s = std::max(usage_.total_s, event->usage.total_s);
    }
    return ChoiceEvent{.choice = choice, .event = *std::move(event)};
  }
  return std::nullopt;
}

void GenerationGroup::SetWaker(const std::function<void()>& wake) {
  for (const auto& generation : generations_) generation->SetWaker(wake);
}

void GenerationGroup::Cancel() {
  for (const auto& generation : generations_) generation->Cancel();
}

}  // namespace pensieve::http
