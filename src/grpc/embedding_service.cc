#include "grpc/embedding_service.h"

#include <chrono>

#include "api/akidb/embed.h"
#include "api/errors.h"
#include "base/check.h"
#include "base/constant_time.h"
#include "base/random_id.h"
#include "observe/request_log.h"

namespace pensieve::grpc_server {
namespace {

constexpr const char* kService = "akidb.embedding.v1.EmbeddingService";

bool IsOverload(const Status& status) {
  switch (status.reason()) {
    case ErrorReason::kQueueFull:
    case ErrorReason::kMemoryPressure:
    case ErrorReason::kShuttingDown:
      return true;
    default:
      return status.code() == StatusCode::kResourceExhausted;
  }
}

// Our codes have gRPC's numbers; only overload is named anew, since AkiDB's clients retry UNAVAILABLE alone.
::grpc::Status ToGrpc(const Status& status) {
  if (status.ok()) return ::grpc::Status::OK;
  const auto code =
      IsOverload(status) ? ::grpc::StatusCode::UNAVAILABLE : static_cast<::grpc::StatusCode>(status.code());
  if (code == ::grpc::StatusCode::INTERNAL) return {code, "Embedding generation failed: " + status.message()};
  // AkiDB's own sentence for a full queue, by the table that the HTTP route uses too.
  return {code, api::ErrorBody(status, api::Dialect::kAkiDb, "")["error"].get<std::string>()};
}

std::string_view Metadata(const ::grpc::CallbackServerContext& call, const char* name) {
  const auto found = call.client_metadata().find(name);
  return found == call.client_metadata().end() ? std::string_view()
                                               : std::string_view(found->second.data(), found->second.size());
}

Status CheckApiKey(const ::grpc::CallbackServerContext& call, const std::vector<std::string>& api_keys) {
  if (api_keys.empty()) return OkStatus();
  const std::string_view key = Metadata(call, "x-api-key");
  std::string_view bearer = Metadata(call, "authorization");
  bearer = bearer.substr(0, 7) == "Bearer " ? bearer.substr(7) : std::string_view();
  bool known = false;
  for (const std::string& valid : api_keys) {
    const bool by_key = EqualInConstantTime(key, valid);
    const bool by_bearer = EqualInConstantTime(bearer, valid);
    known = known | by_key | by_bearer;
  }
  return known ? OkStatus() : Unauthenticated("an API key is required, as x-api-key or as authorization: Bearer");
}

// Measures one call and reports it when it ends.
class CallRecord {
 public:
  CallRecord(const GrpcContext& context, const char* method) : context_(context) {
    record_.id = NewId("req_");
    record_.transport = "grpc";
    record_.method = method;
    record_.route = kService;
  }

  const std::string& id() const { return record_.id; }
  RequestRecord& record() { return record_; }
  double Seconds() const { return std::chrono::duration<double>(std::chrono::steady_clock::now() - start_).count(); }

  void Report(const ::grpc::Status& status) {
    const auto code = static_cast<StatusCode>(status.error_code());
    record_.status = status.error_code();
    record_.error = status.error_message();
    record_.total_s = Seconds();
    record_.outcome = status.ok()                        ? "done"
                      : code == StatusCode::kCancelled   ? "cancelled"
                      : code == StatusCode::kUnavailable ? "refused"
                                                         : "error";
    context_.metrics.CountGrpc(kService, record_.method, status.ok() ? "OK" : StatusCodeName(code), record_.total_s);
    LogRequest(context_.logger, record_);
  }

 private:
  const GrpcContext& context_;
  const std::chrono::steady_clock::time_point start_ = std::chrono::steady_clock::now();
  RequestRecord record_;
};

// What a call that may already be over leaves to those who still hold it.
class Canceller {
 public:
  // Once Cancel was called, at once; else later by Cancel.
  void Set(std::function<void()> cancel) {
    {
      const std::lock_guard lock(mutex_);
      if (!cancelled_) {
        cancel_ = std::move(cancel);
        return;
      }
    }
    cancel();
  }
  void Cancel() {
    std::function<void()> cancel;
    {
      const std::lock_guard lock(mutex_);
      cancelled_ = true;
      cancel = std::move(cancel_);
      cancel_ = nullptr;
    }
    if (cancel) cancel();
  }
  bool cancelled() const {
    const std::lock_guard lock(mutex_);
    return cancelled_;
  }

 private:
  mutable std::mutex mutex_;
  std::function<void()> cancel_;  // guarded by mutex_
  bool cancelled_ = false;        // guarded by mutex_
};

// One Embed call; deletes itself when gRPC is done with it.
class EmbedReactor final : public ::grpc::ServerUnaryReactor {
 public:
  // Counts itself in `in_flight` until it has answered and uses the context no more.
  EmbedReactor(const GrpcContext& context, std::atomic<int64_t>& in_flight, wire::EmbedResponse* response)
      : context_(context), in_flight_(in_flight), record_(context, "Embed"), response_(response) {
    in_flight_.fetch_add(1, std::memory_order_relaxed);
  }

  Status Prepare(const wire::EmbedRequest& request) {
    api::akidb::EmbedFields fields;
    fields.texts.assign(request.texts().begin(), request.texts().end());
    if (request.has_model()) fields.model = request.model();
    if (request.has_pooling()) fields.pooling = request.pooling();
    if (request.has_normalize()) fields.normalize = request.normalize();
    texts_ = request.texts_size();
    PENSIEVE_TRY(call_, api::akidb::FromEmbedFields(std::move(fields), record_.id()));
    return OkStatus();
  }

  // On a worker. `this` may be gone as soon as the service has called back.
  void Submit() {
    const auto canceller = canceller_;
    if (canceller->cancelled()) {
      End(Cancelled("the client cancelled the call"));
      return;
    }
    service::EmbedRequest request = std::move(call_.request);
    canceller->Set(context_.service.Embed(std::move(request),
                                          [this](Result<service::EmbedResult> result) { Receive(std::move(result)); }));
  }

  void End(const Status& status) {
    EmbeddingMetrics counted{.ok = status.ok(), .busy = IsOverload(status), .texts = texts_};
    counted.prompt_tokens = record_.record().prompt_tokens;
    counted.total_s = record_.Seconds();
    context_.metrics.CountEmbedding(counted);
    const ::grpc::Status answer = ToGrpc(status);
    record_.Report(answer);
    in_flight_.fetch_sub(1, std::memory_order_release);
    Finish(answer);
  }

  void OnCancel() override { canceller_->Cancel(); }
  void OnDone() override { delete this; }

 private:
  void Receive(Result<service::EmbedResult> result) {
    if (!result.has_value()) {
      End(result.error());
      return;
    }
    for (const auto& row : result->embeddings)
      response_->add_embeddings()->mutable_values()->Add(row.begin(), row.end());
    response_->set_model(call_.model);
    response_->set_dimension(static_cast<uint32_t>(result->dimension));
    response_->mutable_usage()->set_total_tokens(static_cast<uint64_t>(call_.total_tokens_estimate));
    response_->mutable_usage()->set_duration_ms(static_cast<uint64_t>(result->total_s * 1000));
    record_.record().model = result->model_name;
    record_.record().prompt_tokens = result->prompt_tokens;
    End(OkStatus());
  }

  const GrpcContext& context_;
  std::atomic<int64_t>& in_flight_;
  CallRecord record_;
  wire::EmbedResponse* const response_;
  api::akidb::EmbedCall call_;
  int64_t texts_ = 0;
  const std::shared_ptr<Canceller> canceller_ = std::make_shared<Canceller>();
};

}  // namespace

EmbeddingService::EmbeddingService(const GrpcOptions& options, const GrpcContext& context)
    : options_(options), context_(context), work_(static_cast<size_t>(options.calls_waiting_max)) {
  for (int64_t i = 0; i < options.worker_threads; ++i)
    workers_.emplace_back([this]() noexcept {
      while (auto task = work_.Pop()) (*task)();
    });
}

EmbeddingService::~EmbeddingService() {
  work_.Close();
  for (auto& worker : workers_) worker.join();
  // The server is gone, so every call was answered, on whatever thread.
  PENSIEVE_CHECK(in_flight_.load(std::memory_order_acquire) == 0);
}

::grpc::ServerUnaryReactor* EmbeddingService::Embed(::grpc::CallbackServerContext* call,
                                                    const wire::EmbedRequest* request, wire::EmbedResponse* response) {
  auto* reactor = new EmbedReactor(context_, in_flight_, response);
  Status status = CheckApiKey(*call, options_.api_keys);
  if (status.ok()) status = reactor->Prepare(*request);
  if (!status.ok()) {
    reactor->End(status);
    return reactor;
  }
  if (!work_.TryPush([reactor] { reactor->Submit(); }))
    reactor->End(ResourceExhausted("too many calls are waiting").WithReason(ErrorReason::kQueueFull));
  return reactor;
}

::grpc::ServerUnaryReactor* EmbeddingService::GetModelInfo(::grpc::CallbackServerContext* call,
                                                           const wire::GetModelInfoRequest*,
                                                           wire::GetModelInfoResponse* response) {
  CallRecord record(context_, "GetModelInfo");
  ::grpc::Status answer = ToGrpc(CheckApiKey(*call, options_.api_keys));
  if (answer.ok()) {
    const auto model = context_.service.FindModel("", true);
    if (model.has_value()) {
      response->set_model(model->name);
      response->set_dimension(static_cast<uint32_t>(model->dimension));
      response->set_max_tokens(static_cast<uint64_t>(std::min(model->embed_context_max, api::akidb::kTokensMax)));
    } else {
      answer = {static_cast<::grpc::StatusCode>(model.error().code()),
                "Failed to get model info: " + model.error().message()};
    }
  }
  record.Report(answer);
  auto* reactor = call->DefaultReactor();
  reactor->Finish(answer);
  return reactor;
}

}  // namespace pensieve::grpc_server
