#include "service/generation.h"

#include <utility>

namespace pensieve::service {
namespace {

using Kind = GenerationEvent::Kind;

class EngineGeneration final : public Generation {
 public:
  explicit EngineGeneration(GenerationSetup setup)
      : model_(std::move(setup.model)),
        prompt_ids_(std::move(setup.prompt_ids)),
        store_behind_(setup.store_behind),
        partition_(setup.partition),
        answer_begin_(setup.answer_begin),
        room_(setup.room),
        limited_by_room_(setup.limited_by_room),
        reader_(model_->tokenizer(), std::move(setup.output)),
        stream_(std::move(setup.stream)) {
    if (setup.first_text.empty()) return;
    ready_.emplace_back();
    ready_.back().text = std::move(setup.first_text);
  }

  const std::string& model_name() const override { return model_->name(); }
  int64_t prompt_tokens() const override { return static_cast<int64_t>(prompt_ids_.size()); }
  const std::vector<int32_t>& prompt_ids() const override { return prompt_ids_; }
  const std::vector<int32_t>& generated_ids() const override { return generated_ids_; }

  std::optional<GenerationEvent> TryNext() override {
    while (ready_.empty() && !over_) {
      auto event = stream_->TryNext();
      if (!event) return std::nullopt;
      Handle(std::move(*event));
    }
    return Take();
  }

  std::optional<GenerationEvent> Next() override {
    while (ready_.empty() && !over_) {
      auto event = stream_->Next();
      if (!event) return std::nullopt;
      Handle(std::move(*event));
    }
    return Take();
  }

  void SetWaker(std::function<void()> wake) override {
    const auto call_at_once = ready_.empty() ? std::function<void()>() : wake;
    stream_->SetWaker(std::move(wake));
    if (call_at_once) call_at_once();
  }

  void Cancel() override { stream_->Cancel(); }

 private:
  std::optional<GenerationEvent> Take() {
    if (ready_.empty()) return std::nullopt;
    GenerationEvent event = std::move(ready_.front());
    ready_.pop_front();
    return event;
  }

  void Handle(engine::Event event) {
    switch (event.kind) {
      case engine::Event::Kind::kPrefillProgress: {
        GenerationEvent progress;
        progress.kind = Kind::kProgress;
        progress.prefilled_tokens = event.prefilled_tokens;
        ready_.push_back(std::move(progress));
        return;
      }
      case engine::Event::Kind::kToken: return OnToken(event.sample);
      case engine::Event::Kind::kDone: return OnDone(event);
      case engine::Event::Kind::kError: return End(Kind::kError, event);
      case engine::Event::Kind::kCancelled:
        // We cancel the engine's request ourselves when the rest of the output is not wanted: that is an ordinary end.
        return reader_.ended() ? OnDone(event) : End(Kind::kCancelled, event);
    }
  }

  void OnToken(const sampling::Sample& sample) {
    if (reader_.ended()) return;  // drawn before the cancellation took effect
    generated_ids_.push_back(sample.id);
    reader_.Push(sample, ready_);
    if (reader_.ended()) stream_->Cancel();
  }

  void OnDone(const engine::Event& event) {
    reader_.Finish(ready_);
    Store();
    End(Kind::kDone, event);
  }

  // Keeps what was drawn, with the beginning of the turn when it was continued.
  void Store() const {
    if (!store_behind_) return;
    std::vector<DrawnToken> tokens;
    std::string text;
    const auto add = [&](int32_t id) {
      text += model_->tokenizer().TokenBytes(id);
      tokens.push_back({id, static_cast<uint32_t>(text.size())});
    };
    for (size_t i = answer_begin_; i < prompt_ids_.size(); ++i) add(prompt_ids_[i]);
    for (const int32_t id : generated_ids_) add(id);
    model_->answers().Put(partition_, *store_behind_, std::move(tokens), std::move(text));
  }

  StopReason ReasonOf(engine::FinishReason finish) const {
    if (!reader_.matched_stop().empty()) return StopReason::kStopSequence;
    if (reader_.ended()) return StopReason::kToolUse;
    switch (finish) {
      case engine::FinishReason::kStop: return reader_.tool_calls() > 0 ? StopReason::kToolUse : StopReason::kEnd;
      case engine::FinishReason::kContextFull: return StopReason::kContextFull;
      case engine::FinishReason::kLength: {
        const bool filled = limited_by_room_ && static_cast<int64_t>(generated_ids_.size()) >= room_;
        return filled ? StopReason::kContextFull : StopReason::kMaxTokens;
      }
    }
    PENSIEVE_UNREACHABLE();
  }

  void End(Kind kind, const engine::Event& event) {
    GenerationEvent last;
    last.kind = kind;
    last.error = event.error;
    last.stop_reason = ReasonOf(event.finish);
    last.stop_sequence = reader_.matched_stop();
    last.usage = {.prompt_tokens = event.stats.prompt_tokens,
                  .cached_prompt_tokens = event.stats.cached_prompt_tokens,
                  .completion_tokens = static_cast<int64_t>(generated_ids_.size()),
                  .reasoning_tokens = reader_.reasoning_tokens(),
                  .first_token_s = event.stats.first_token_s,
                  .total_s = event.stats.total_s};
    ready_.push_back(std::move(last));
    over_ = true;
  }

  const std::shared_ptr<ServedModel> model_;
  const std::vector<int32_t> prompt_ids_;
  const std::optional<PromptPrefix> store_behind_;
  const uint64_t partition_;
  const size_t answer_begin_;
  const int64_t room_;
  const bool limited_by_room_;
  OutputReader reader_;
  std::deque<GenerationEvent> ready_;
  std::vector<int32_t> generated_ids_;
  bool over_ = false;
  std::unique_ptr<engine::EventStream> stream_;  // destroyed first: its waker may reach into the consumer
};

}  // namespace

std::unique_ptr<Generation> NewGeneration(GenerationSetup setup) {
  return std::make_unique<EngineGeneration>(std::move(setup));
}

}  // namespace pensieve::service
