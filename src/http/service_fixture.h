// A deterministic service for the transport's tests: it stands behind the service seam where the real one would, and
// lets a test decide when each event of a generation happens.
#pragma once

#include <deque>

#include "base/mutex.h"
#include "service/service.h"

namespace pensieve::http {

using Kind = service::GenerationEvent::Kind;

// The events of one generation, fed by a test and read by the server.
class Script {
 public:
  void Push(service::GenerationEvent event) {
    std::function<void()> wake;
    {
      const MutexLock lock(mutex_);
      if (over_) return;
      over_ = event.terminal();
      events_.push_back(std::move(event));
      wake = wake_;
    }
    if (wake) wake();
  }
  void Text(const std::string& text) {
    service::GenerationEvent event;
    event.kind = Kind::kText;
    event.text = text;
    Push(std::move(event));
  }
  void Done() {
    service::GenerationEvent event;
    event.kind = Kind::kDone;
    event.usage = {.prompt_tokens = 7, .completion_tokens = 3, .first_token_s = 0.25, .total_s = 1.25};
    Push(std::move(event));
  }
  void Fail(Status error) {
    service::GenerationEvent event;
    event.kind = Kind::kError;
    event.error = std::move(error);
    Push(std::move(event));
  }
  void Cancel() {
    {
      const MutexLock lock(mutex_);
      cancelled_ = true;
    }
    changed_.notify_all();
    service::GenerationEvent event;
    event.kind = Kind::kCancelled;
    Push(std::move(event));
  }
  std::optional<service::GenerationEvent> Pop() {
    const MutexLock lock(mutex_);
    if (throws_) throw std::bad_alloc();
    if (endless_ && events_.empty()) {
      ++taken_;
      service::GenerationEvent event;
      event.text.assign(64 << 10, 'x');
      return event;
    }
    if (events_.empty()) return std::nullopt;
    auto event = std::move(events_.front());
    events_.pop_front();
    return event;
  }
  void SetWaker(std::function<void()> wake) {
    bool ready = false;
    {
      const MutexLock lock(mutex_);
      wake_ = wake;
      ready = !events_.empty() || endless_ || throws_;
    }
    if (ready && wake) wake();
  }
  // There is always one more event of 64 KiB.
  void BeEndless() {
    const MutexLock lock(mutex_);
    endless_ = true;
  }
  // Reading the next event throws.
  void BeBroken() {
    std::function<void()> wake;
    {
      const MutexLock lock(mutex_);
      throws_ = true;
      wake = wake_;
    }
    if (wake) wake();
  }
  // How many of those were taken.
  int64_t taken() const {
    const MutexLock lock(mutex_);
    return taken_;
  }
  // Whether the server cancelled it, or does so within a time that only a hanging server needs.
  bool WaitCancelled() {
    MutexLock lock(mutex_);
    return changed_.wait_for(lock, std::chrono::seconds(60), [this]() PENSIEVE_REQUIRES(mutex_) { return cancelled_; });
  }

 private:
  mutable Mutex mutex_;
  Condition changed_;
  std::deque<service::GenerationEvent> events_ PENSIEVE_GUARDED_BY(mutex_);
  std::function<void()> wake_ PENSIEVE_GUARDED_BY(mutex_);
  bool over_ PENSIEVE_GUARDED_BY(mutex_) = false;
  bool cancelled_ PENSIEVE_GUARDED_BY(mutex_) = false;
  bool endless_ PENSIEVE_GUARDED_BY(mutex_) = false;
  bool throws_ PENSIEVE_GUARDED_BY(mutex_) = false;
  int64_t taken_ PENSIEVE_GUARDED_BY(mutex_) = 0;
};

class ScriptedGeneration final : public service::Generation {
 public:
  explicit ScriptedGeneration(std::shared_ptr<Script> script) : script_(std::move(script)) {}
  ~ScriptedGeneration() override {
    script_->SetWaker(nullptr);
    script_->Cancel();
  }
  const std::string& model_name() const override { return name_; }
  int64_t prompt_tokens() const override { return 7; }
  const std::vector<int32_t>& prompt_ids() const override { return ids_; }
  std::optional<service::GenerationEvent> TryNext() override { return script_->Pop(); }
  std::optional<service::GenerationEvent> Next() override { return script_->Pop(); }
  void SetWaker(std::function<void()> wake) override { script_->SetWaker(std::move(wake)); }
  void Cancel() override { script_->Cancel(); }
  const std::vector<int32_t>& generated_ids() const override { return ids_; }

 private:
  const std::string name_ = "tiny";
  const std::vector<int32_t> ids_;
  const std::shared_ptr<Script> script_;
};

// What a request gets is decided by its model's name: "hold" waits for the test, "endless" never ends, "busy", "full",
// "memory" and "broken" are refused, "throws" throws, and any other name is answered at once with "echo: " and the last message.
class FixtureService final : public service::Service {
 public:
  Status AddModel(const std::string&, std::vector<std::string>, std::unique_ptr<model::LoadedModel>) override {
    return Unimplemented("the fixture has its own models");
  }
  void SetLoading(std::optional<service::LoadProgress> progress) override { loading = std::move(progress); }
  void SetKvBytesMax(int64_t) override {}

  Result<std::unique_ptr<service::Generation>> Chat(service::ChatRequest request) override {
    const Json& last = request.messages.back();
    const Json& content = last["content"];
    return Begin(request.model, content.is_string() ? content.get<std::string>() : DumpJson(content));
  }
  Result<std::unique_ptr<service::Generation>> Complete(service::CompletionRequest request) override {
    return Begin(request.model, request.prompt);
  }
  Result<int64_t> CountTokens(const service::ChatRequest& request) override {
    PENSIEVE_RETURN_IF_ERROR(Refusal(request.model));
    return static_cast<int64_t>(request.messages.size());
  }
  Result<std::string> Render(const service::ChatRequest&) override { return std::string("prompt"); }

  std::function<void()> Embed(service::EmbedRequest request,
                              std::function<void(Result<service::EmbedResult>)> done) override {
    if (Status status = Refusal(request.model); !status.ok()) {
      done(status);
      return [] {};
    }
    const auto script = std::make_shared<Script>();
    if (request.model == "hold") {
      Remember(script);
      return [script] { script->Cancel(); };
    }
    const size_t rows = std::max(request.texts.size(), request.token_ids.size());
    service::EmbedResult result{.model_name = "tiny-embed",
                                .dimension = 2,
                                .embeddings = {},
                                .tokens = {},
                                .prompt_tokens = 5,
                                .total_s = 0.01};
    for (size_t i = 0; i < rows; ++i) result.embeddings.push_back({static_cast<float>(i), 0.5f});
    // From a thread of its own, as the real service does.
    std::thread([done = std::move(done), result = std::move(result)]() mutable { done(std::move(result)); }).detach();
    return [] {};
  }

  std::vector<service::ModelDescription> Models() const override {
    service::ModelDescription model;
    model.name = "org/tiny";
    model.display_name = "Tiny";
    model.path = "/models/tiny.gguf";
    model.generates = true;
    model.context_max = 128;
    return {model};
  }
  Result<service::ModelDescription> FindModel(const std::string& name, bool embedding) const override {
    if (name == "org/tiny" && !embedding) return Models().front();
    return NotFound("model: there is no model \"" + name + "\"");
  }
  service::Health GetHealth() const override {
    if (health_throws) throw std::bad_alloc();
    service::Health health;
    health.ready = ready && !loading && lost.empty();
    health.loading = loading;
    health.lost = lost;
    health.memory_status = "safe";
    health.memory_available_gb = 1.5;
    return health;
  }
  std::vector<service::ModelMetrics> GetMetrics() const override {
    service::ModelMetrics metrics;
    metrics.model = "tiny";
    metrics.engine.running = 3;
    return {metrics};
  }
  void ClearCaches() override { caches_cleared = true; }
  bool Drain(int64_t) override { return true; }

  // The script of the next "hold" or "endless" request that was not asked for yet; waits until it is there.
  std::shared_ptr<Script> NextScript() {
    MutexLock lock(mutex_);
    if (!arrived_.wait_for(lock, std::chrono::seconds(60),
                           [this]() PENSIEVE_REQUIRES(mutex_) { return !scripts_.empty(); }))
      return nullptr;
    auto script = scripts_.front();
    scripts_.pop_front();
    return script;
  }

  std::atomic<bool> ready = true;
  std::atomic<bool> health_throws = false;
  // Set while no request is under way.
  std::vector<std::string> lost;
  std::optional<service::LoadProgress> loading;
  std::atomic<bool> caches_cleared = false;

 private:
  static Status Refusal(const std::string& model) {
    if (model == "busy")
      return ResourceExhausted("the queue is full").WithReason(ErrorReason::kQueueFull).WithRetryAfterMs(1500);
    if (model == "memory") return Unavailable("too little memory").WithReason(ErrorReason::kMemoryPressure);
    if (model == "broken") return Internal("lost the device");
    if (model == "throws") throw std::runtime_error("a secret of the library");
    return OkStatus();
  }

  Result<std::unique_ptr<service::Generation>> Begin(const std::string& model, const std::string& text) {
    PENSIEVE_RETURN_IF_ERROR(Refusal(model));
    const auto script = std::make_shared<Script>();
    if (model == "endless") script->BeEndless();
    if (model == "hold" || model == "endless") {
      Remember(script);
    } else {
      script->Text("echo: ");
      script->Text(text);
      script->Done();
    }
    return std::unique_ptr<service::Generation>(new ScriptedGeneration(script));
  }

  void Remember(const std::shared_ptr<Script>& script) {
    {
      const MutexLock lock(mutex_);
      scripts_.push_back(script);
    }
    arrived_.notify_all();
  }

  Mutex mutex_;
  Condition arrived_;
  std::deque<std::shared_ptr<Script>> scripts_ PENSIEVE_GUARDED_BY(mutex_);
};

}  // namespace pensieve::http
