#include "engine/engine.h"

#include <pthread.h>

#include <algorithm>
#include <chrono>
#include <thread>
#include <utility>

#include "base/mutex.h"
#include "engine/engine_core.h"
#include "engine/event_queue.h"
#include "engine/request.h"

namespace pensieve::engine {
namespace {

constexpr int64_t kDeadlineMaxMs = int64_t{365} * 24 * 3600 * 1000;

class RequestStream : public EventStream {
 public:
  RequestStream(std::shared_ptr<Request> request, std::shared_ptr<WakeSignal> wake)
      : request_(std::move(request)), wake_(std::move(wake)) {}
  ~RequestStream() override {
    request_->events.SetWaker(nullptr);
    CancelRequest();
  }

  std::optional<Event> TryNext() override { return request_->events.TryNext(); }
  std::optional<Event> Next() override { return request_->events.Next(); }
  void SetWaker(std::function<void()> wake) override { request_->events.SetWaker(std::move(wake)); }
  void Cancel() override { CancelRequest(); }

 private:
  void CancelRequest() {
    request_->cancelled.store(true, std::memory_order_release);
    wake_->Raise();
  }

  const std::shared_ptr<Request> request_;
  const std::shared_ptr<WakeSignal> wake_;
};

class ThreadedEngine : public Engine {
 public:
  ThreadedEngine(std::unique_ptr<EngineCore> core, int64_t stream_depth_max, std::shared_ptr<WakeSignal> wake)
      : wake_(std::move(wake)),
        core_(std::move(core)),
        stream_depth_max_(stream_depth_max),
        thread_([this] { Run(); }) {}

  ~ThreadedEngine() override {
    CloseInbox();
    cancel_all_.store(true);
    stopping_.store(true);
    wake_->Raise();
  }

  Result<std::unique_ptr<EventStream>> Generate(GenerateRequest request) override {
    PENSIEVE_RETURN_IF_ERROR(core_->Check(request));
    // A short answer needs no deep queue; one place more for progress.
    const int64_t depth = std::min(stream_depth_max_, std::min(request.new_tokens_max, stream_depth_max_) + 1);
    return Submit([&] { return std::make_shared<Request>(std::move(request), depth, wake_); });
  }

  Result<std::unique_ptr<EventStream>> Embed(EmbedRequest request) override {
    PENSIEVE_RETURN_IF_ERROR(core_->Check(request));
    return Submit([&] { return std::make_shared<Request>(std::move(request), wake_); });
  }

  EngineSnapshot Snapshot() const override { return core_->Snapshot(); }
  int64_t context_max() const override { return core_->context_max(); }
  void ClearCache() override {
    core_->ClearCache();
    wake_->Raise();
  }

  bool Drain(int64_t deadline_ms) override {
    CloseInbox();
    const auto is_empty = [this] { return core_->requests_in() == 0; };
    const std::chrono::milliseconds deadline(std::clamp<int64_t>(deadline_ms, 0, kDeadlineMaxMs));
    MutexLock lock(empty_mutex_);
    if (empty_.wait_for(lock, deadline, is_empty)) return true;
    cancel_all_.store(true);
    wake_->Raise();
    empty_.wait(lock, is_empty);
    return false;
  }

 private:
  template <typename MakeRequest>
  Result<std::unique_ptr<EventStream>> Submit(MakeRequest make_request) {
    // All that asks for memory comes before the request counts as in: nobody would count it out again.
    const std::shared_ptr<Request> request = make_request();
    std::unique_ptr<EventStream> stream = std::make_unique<RequestStream>(request, wake_);
    {
      const MutexLock lock(inbox_mutex_);
      if (closed_) {
        core_->CountRefusal();
        return Unavailable("the server is shutting down").WithReason(ErrorReason::kShuttingDown);
      }
      inbox_.reserve(inbox_.size() + 1);
      PENSIEVE_RETURN_IF_ERROR(core_->Reserve());
      inbox_.push_back(request);
    }
    wake_->Raise();
    return stream;
  }

  void CloseInbox() {
    const MutexLock lock(inbox_mutex_);
    closed_ = true;
  }

  void Run() noexcept {
#ifdef __APPLE__
    pthread_setname_np("engine");
#else
    pthread_setname_np(pthread_self(), "engine");
#endif
    std::vector<std::shared_ptr<Request>> arrived;
    while (true) {
      {
        const MutexLock lock(inbox_mutex_);
        arrived.swap(inbox_);
      }
      for (auto& request : arrived) core_->Add(std::move(request));
      arrived.clear();
      if (cancel_all_.load()) core_->CancelAll();
      const bool worked = core_->Step();
      if (core_->requests_in() == 0) {
        const MutexLock lock(empty_mutex_);
        empty_.notify_all();
      }
      if (worked) continue;
      if (stopping_.load() && core_->requests_in() == 0) return;
      wake_->Wait();
    }
  }

  const std::shared_ptr<WakeSignal> wake_;
  const std::unique_ptr<EngineCore> core_;
  const int64_t stream_depth_max_;
  std::atomic<bool> cancel_all_{false};
  std::atomic<bool> stopping_{false};
  Mutex inbox_mutex_;
  std::vector<std::shared_ptr<Request>> inbox_ PENSIEVE_GUARDED_BY(inbox_mutex_);  // bounded by EngineCore::Reserve
  bool closed_ PENSIEVE_GUARDED_BY(inbox_mutex_) = false;
  Mutex empty_mutex_;
  Condition empty_;      // no request is in any more
  std::jthread thread_;  // last: it uses all of the above
};

}  // namespace

Result<std::unique_ptr<Engine>> Engine::Create(backend::Backend& backend, model::Model& network,
                                               const EngineOptions& options) {
  const auto wake = std::make_shared<WakeSignal>();
  PENSIEVE_TRY(auto core, EngineCore::Create(backend, network, options, [wake] { wake->Raise(); }));
  return std::unique_ptr<Engine>(std::make_unique<ThreadedEngine>(std::move(core), options.stream_depth_max, wake));
}

}  // namespace pensieve::engine
