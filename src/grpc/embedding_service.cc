#include "grpc/embedding_service.h"

#include <google/protobuf/io/coded_stream.h>
#include <google/protobuf/wire_format_lite.h>
#include <grpcpp/alarm.h>
#include <grpcpp/support/proto_buffer_reader.h>

#include <chrono>

#include "api/akidb/dialect.h"
#include "api/akidb/embed.h"
#include "base/check.h"
#include "base/constant_time.h"
#include "base/guarded.h"
#include "base/mutex.h"
#include "base/processors.h"
#include "base/random_id.h"
#include "observe/request_log.h"

namespace pensieve::grpc_server {
namespace {

constexpr const char* kService = "akidb.embedding.v1.EmbeddingService";

bool IsOverload(const Status& status) {
  switch (status.reason()) {
    case ErrorReason::kQueueFull:
    case ErrorReason::kMemoryPressure:
    case ErrorReason::kShuttingDown: return true;
    default: return status.code() == StatusCode::kResourceExhausted;
  }
}

// Our codes have gRPC's numbers; only overload is named anew, since AkiDB's clients retry UNAVAILABLE alone.
::grpc::Status ToGrpc(const Status& status) {
  if (status.ok()) return ::grpc::Status::OK;
  const auto code =
      IsOverload(status) ? ::grpc::StatusCode::UNAVAILABLE : static_cast<::grpc::StatusCode>(status.code());
  if (code == ::grpc::StatusCode::INTERNAL) return {code, "Embedding generation failed: " + status.message()};
  // AkiDB's own sentence for a full queue, by the table that the HTTP route uses too.
  return {code, api::akidb::ErrorMessage(status)};
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
      const MutexLock lock(mutex_);
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
      const MutexLock lock(mutex_);
      cancelled_ = true;
      cancel = std::move(cancel_);
      cancel_ = nullptr;
    }
    if (cancel) cancel();
  }
  bool cancelled() const {
    const MutexLock lock(mutex_);
    return cancelled_;
  }

 private:
  mutable Mutex mutex_;
  std::function<void()> cancel_ PENSIEVE_GUARDED_BY(mutex_);
  bool cancelled_ PENSIEVE_GUARDED_BY(mutex_) = false;
};

// Cancels a call whose message does not come, unless the call is told apart before. What the alarm's callback needs
// outlives both the alarm and the call.
class ReadDeadline {
 public:
  ReadDeadline(::grpc::CallbackServerContext* call, int64_t timeout_ms) : watched_(std::make_shared<Watched>()) {
    watched_->call = call;
    alarm_.Set(std::chrono::system_clock::now() + std::chrono::milliseconds(timeout_ms),
               [watched = watched_](bool expired) {
                 const MutexLock lock(watched->mutex);
                 if (expired && watched->call != nullptr) watched->call->TryCancel();
               });
  }
  ~ReadDeadline() {
    const MutexLock lock(watched_->mutex);
    watched_->call = nullptr;
  }

 private:
  struct Watched {
    Mutex mutex;
    ::grpc::CallbackServerContext* call PENSIEVE_GUARDED_BY(mutex) = nullptr;  // null once the message is here
  };
  const std::shared_ptr<Watched> watched_;
  ::grpc::Alarm alarm_;
};

// How many texts a serialized EmbedRequest has, without building them: two bytes of it can make a string.
int64_t CountTexts(::grpc::ByteBuffer message) {
  ::grpc::ProtoBufferReader reader(&message);
  google::protobuf::io::CodedInputStream input(&reader);
  using Wire = google::protobuf::internal::WireFormatLite;
  int64_t count = 0;
  while (const uint32_t tag = input.ReadTag()) {
    if (Wire::GetTagFieldNumber(tag) == wire::EmbedRequest::kTextsFieldNumber) ++count;
    if (!Wire::SkipField(&input, tag)) break;
  }
  return count;
}

// One Embed call; deletes itself when gRPC is done with it.
class EmbedReactor final : public ::grpc::ServerReadReactor<::grpc::ByteBuffer> {
 public:
  using Queue = BoundedQueue<std::function<void()>>;

  // Counts itself in `limits` until it has answered and uses the context no more.
  EmbedReactor(const GrpcOptions& options, const GrpcContext& context, CallLimits& limits,
               wire::EmbedResponse* response)
      : options_(options), context_(context), limits_(limits), record_(context, "Embed"), response_(response) {
    calls_before_ = limits_.calls.fetch_add(1, std::memory_order_relaxed);
  }

  // Checks what the metadata tells, and asks for the message, which then goes to a worker by `work`.
  void Begin(::grpc::CallbackServerContext* call, Queue& work) {
    work_ = &work;
    EndOnFailure([&]() -> Status {
      PENSIEVE_RETURN_IF_ERROR(CheckApiKey(*call, options_.api_keys));
      if (calls_before_ >= options_.calls_max)
        return ResourceExhausted("too many calls are under way").WithReason(ErrorReason::kQueueFull);
      read_deadline_.emplace(call, options_.request_timeout_ms);
      StartRead(&message_);
      return OkStatus();
    });
  }

  void OnReadDone(bool ok) override {
    read_deadline_.reset();
    EndOnFailure([&]() -> Status {
      if (canceller_->cancelled()) return Cancelled("the client cancelled the call");
      if (!ok) return InvalidArgument("the call has no message");
      PENSIEVE_RETURN_IF_ERROR(TakeMessage());
      if (work_->TryPush([this] { Submit(); })) return OkStatus();
      return ResourceExhausted("too many calls are waiting").WithReason(ErrorReason::kQueueFull);
    });
  }

  void OnCancel() override { canceller_->Cancel(); }
  void OnDone() override { delete this; }

 private:
  // Ends the call with the error that `step` returns or that an exception in it means. After a success others own it.
  template <typename Step>
  void EndOnFailure(Step step) {
    Status status;
    if (const Status failure = Guarded([&] { status = step(); }); !failure.ok()) status = failure;
    if (!status.ok()) End(status);
  }

  Status TakeMessage() {
    bytes_ = static_cast<int64_t>(message_.Length());
    if (limits_.bytes.fetch_add(bytes_, std::memory_order_relaxed) + bytes_ > options_.messages_bytes_max)
      return ResourceExhausted("too many large calls are under way").WithReason(ErrorReason::kQueueFull);
    const int64_t texts = CountTexts(message_);
    wire::EmbedRequest request;
    if (texts > static_cast<int64_t>(api::akidb::kTextsMax)) {
      // As many as it takes to be refused in AkiDB's words.
      for (size_t i = 0; i <= api::akidb::kTextsMax; ++i) request.add_texts();
    } else if (!::grpc::SerializationTraits<wire::EmbedRequest>::Deserialize(&message_, &request).ok()) {
      return InvalidArgument("the message is no EmbedRequest");
    }
    message_.Clear();
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
    EndOnFailure([&]() -> Status {
      if (canceller->cancelled()) return Cancelled("the client cancelled the call");
      service::EmbedRequest request = std::move(call_.request);
      canceller->Set(context_.service.Embed(
          std::move(request), [this](Result<service::EmbedResult> result) { Receive(std::move(result)); }));
      return OkStatus();
    });
  }

  void Receive(Result<service::EmbedResult> result) {
    if (!result.has_value()) {
      End(result.error());
      return;
    }
    const Status failure = Guarded([&] {
      for (const auto& row : result->embeddings)
        response_->add_embeddings()->mutable_values()->Add(row.begin(), row.end());
      response_->set_model(call_.model);
      response_->set_dimension(static_cast<uint32_t>(result->dimension));
      response_->mutable_usage()->set_total_tokens(static_cast<uint64_t>(call_.total_tokens_estimate));
      response_->mutable_usage()->set_duration_ms(static_cast<uint64_t>(result->total_s * 1000));
      record_.record().model = result->model_name;
      record_.record().prompt_tokens = result->prompt_tokens;
    });
    End(failure);
  }

  void End(const Status& status) {
    ::grpc::Status answer(::grpc::StatusCode::INTERNAL, "");
    // The answer goes out also when there is no memory to count and log it.
    (void)Guarded([&] {
      EmbeddingMetrics counted{.ok = status.ok(), .busy = IsOverload(status), .texts = texts_};
      counted.prompt_tokens = record_.record().prompt_tokens;
      counted.total_s = record_.Seconds();
      answer = ToGrpc(status);
      context_.metrics.CountEmbedding(counted);
      record_.Report(answer);
    }).ok();
    limits_.bytes.fetch_sub(bytes_, std::memory_order_relaxed);
    limits_.calls.fetch_sub(1, std::memory_order_release);
    Finish(answer);
  }

  const GrpcOptions& options_;
  const GrpcContext& context_;
  CallLimits& limits_;
  int64_t calls_before_ = 0;
  Queue* work_ = nullptr;
  std::optional<ReadDeadline> read_deadline_;
  ::grpc::ByteBuffer message_;
  int64_t bytes_ = 0;  // counted in limits_
  CallRecord record_;
  wire::EmbedResponse* const response_;
  api::akidb::EmbedCall call_;
  int64_t texts_ = 0;
  const std::shared_ptr<Canceller> canceller_ = std::make_shared<Canceller>();
};

}  // namespace

EmbeddingService::EmbeddingService(const GrpcOptions& options, const GrpcContext& context)
    : options_(options), context_(context), work_(static_cast<size_t>(options.calls_waiting_max)) {
  using ::grpc::internal::RpcMethod;
  using ::grpc::internal::RpcServiceMethod;
  // As the generated class does it, but for the kind of Embed.
  AddMethod(new RpcServiceMethod("/akidb.embedding.v1.EmbeddingService/Embed", RpcMethod::CLIENT_STREAMING, nullptr));
  MarkMethodCallback(0, new ::grpc::internal::CallbackClientStreamingHandler<::grpc::ByteBuffer, wire::EmbedResponse>(
                            [this](::grpc::CallbackServerContext* call, wire::EmbedResponse* response) {
                              return Embed(call, response);
                            }));
  AddMethod(new RpcServiceMethod("/akidb.embedding.v1.EmbeddingService/GetModelInfo", RpcMethod::NORMAL_RPC, nullptr));
  MarkMethodCallback(1,
                     new ::grpc::internal::CallbackUnaryHandler<wire::GetModelInfoRequest, wire::GetModelInfoResponse>(
                         [this](::grpc::CallbackServerContext* call, const wire::GetModelInfoRequest*,
                                wire::GetModelInfoResponse* response) { return GetModelInfo(call, response); }));
  for (int64_t i = 0; i < options.worker_threads; ++i)
    workers_.emplace_back([this]() noexcept {
      LowerThreadPriority();  // as the HTTP server's workers
      // Calls end their own exceptions.
      while (auto task = work_.Pop()) (void)Guarded(*task).ok();
    });
}

EmbeddingService::~EmbeddingService() {
  work_.Close();
  for (auto& worker : workers_) worker.join();
  // The server is gone, so every call was answered, on whatever thread.
  PENSIEVE_CHECK(limits_.calls.load(std::memory_order_acquire) == 0);
}

::grpc::ServerReadReactor<::grpc::ByteBuffer>* EmbeddingService::Embed(::grpc::CallbackServerContext* call,
                                                                       wire::EmbedResponse* response) {
  auto* reactor = new EmbedReactor(options_, context_, limits_, response);
  reactor->Begin(call, work_);
  return reactor;
}

::grpc::ServerUnaryReactor* EmbeddingService::GetModelInfo(::grpc::CallbackServerContext* call,
                                                           wire::GetModelInfoResponse* response) {
  ::grpc::Status answer(::grpc::StatusCode::INTERNAL, "");
  (void)Guarded([&] {
    CallRecord record(context_, "GetModelInfo");
    answer = ToGrpc(CheckApiKey(*call, options_.api_keys));
    if (answer.ok()) answer = DescribeModel(*response);
    record.Report(answer);
  }).ok();
  auto* reactor = call->DefaultReactor();
  reactor->Finish(answer);
  return reactor;
}

::grpc::Status EmbeddingService::DescribeModel(wire::GetModelInfoResponse& response) {
  const auto model = context_.service.FindModel("", true);
  if (!model.has_value()) {
    return {static_cast<::grpc::StatusCode>(model.error().code()),
            "Failed to get model info: " + model.error().message()};
  }
  response.set_model(model->name);
  response.set_dimension(static_cast<uint32_t>(model->dimension));
  response.set_max_tokens(static_cast<uint64_t>(std::min(model->embed_context_max, api::akidb::kTokensMax)));
  return ::grpc::Status::OK;
}

}  // namespace pensieve::grpc_server
