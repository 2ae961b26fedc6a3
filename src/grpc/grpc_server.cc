#include "grpc/grpc_server.h"

#include <fmt/format.h>
#include <grpc/impl/codegen/grpc_types.h>
#include <grpc/support/log.h>
#include <grpcpp/ext/proto_server_reflection_plugin.h>
#include <grpcpp/grpcpp.h>
#include <grpcpp/health_check_service_interface.h>

#include <chrono>
#include <thread>

#include "base/guarded.h"
#include "base/mutex.h"
#include "grpc/embedding_service.h"

namespace pensieve::grpc_server {
namespace {

// Further streams of the reflection service are refused.
constexpr int kReflectionThreadsMax = 16;
// How old the health service's answer may be.
constexpr auto kHealthInterval = std::chrono::milliseconds(200);

std::string Address(const std::string& host, int64_t port) {
  const bool bare_v6 = host.find(':') != std::string::npos && host.front() != '[';
  return fmt::format("{}{}{}:{}", bare_v6 ? "[" : "", host, bare_v6 ? "]" : "", port);
}

class Server final : public GrpcServer {
 public:
  Server(const GrpcOptions& options, const GrpcContext& context)
      : options_(options), context_(context), embedding_(options_, context) {}

  ~Server() override {
    if (server_) Shutdown(0);
  }

  Status Listen() {
    ::grpc::EnableDefaultHealthCheckService(true);
    ::grpc::reflection::InitProtoReflectionServerBuilderPlugin();
    ::grpc::ServerBuilder builder;
    int port = 0;
    builder.AddListeningPort(Address(options_.host, options_.port), ::grpc::InsecureServerCredentials(), &port);
    // Else a second server would share the port in silence, and take half of the calls.
    builder.AddChannelArgument(GRPC_ARG_ALLOW_REUSEPORT, 0);
    builder.SetMaxReceiveMessageSize(options_.message_bytes_max);
    builder.AddChannelArgument(GRPC_ARG_MAX_CONCURRENT_STREAMS, options_.streams_max);
    builder.SetResourceQuota(::grpc::ResourceQuota("pensieve")
                                 .Resize(static_cast<size_t>(options_.buffers_bytes_max))
                                 .SetMaxThreads(kReflectionThreadsMax));
    // Only reflection takes threads of its own, one for each open stream.
    builder.SetSyncServerOption(::grpc::ServerBuilder::NUM_CQS, 1);
    if (options_.embedding_enabled) builder.RegisterService(&embedding_);
    // A port that cannot be had is told below, in one sentence and not in the library's half page.
    gpr_set_log_function([](gpr_log_func_args*) {});
    server_ = builder.BuildAndStart();
    gpr_set_log_function(nullptr);
    if (!server_ || port == 0) {
      return Unavailable(fmt::format(
          "cannot listen for gRPC on {}: the port is in use by another process or not allowed; stop that, or "
          "choose another port with the setting server.grpc_port (--grpc-port, PENSIEVE_GRPC_PORT)",
          Address(options_.host, options_.port)));
    }
    port_ = static_cast<uint16_t>(port);
    SetHealth(context_.service.GetHealth().ready);
    health_thread_ = std::thread([this]() noexcept { FollowHealth(); });
    return OkStatus();
  }

  uint16_t port() const override { return port_; }

  void Shutdown(int64_t grace_ms) override {
    {
      const MutexLock lock(mutex_);
      if (stopping_) return;
      stopping_ = true;
    }
    stop_.notify_all();
    if (health_thread_.joinable()) health_thread_.join();
    if (server_ == nullptr) return;
    server_->GetHealthCheckService()->Shutdown();
    server_->Shutdown(std::chrono::system_clock::now() + std::chrono::milliseconds(grace_ms));
    server_->Wait();
  }

 private:
  void SetHealth(bool serving) {
    auto* health = server_->GetHealthCheckService();
    health->SetServingStatus(serving);  // ""
    if (options_.embedding_enabled) health->SetServingStatus(wire::EmbeddingService::service_full_name(), serving);
  }

  void FollowHealth() {
    MutexLock lock(mutex_);
    while (!stop_.wait_for(lock, kHealthInterval, [this]() PENSIEVE_REQUIRES(mutex_) { return stopping_; })) {
      lock.unlock();
      // An answer that cannot be had now comes with the next turn.
      (void)Guarded([this] {
        const service::Health health = context_.service.GetHealth();
        SetHealth(health.ready && !health.draining);
      }).ok();
      lock.lock();
    }
  }

  const GrpcOptions options_;
  const GrpcContext context_;
  EmbeddingService embedding_;
  std::unique_ptr<::grpc::Server> server_;
  uint16_t port_ = 0;

  Mutex mutex_;
  Condition stop_;
  bool stopping_ PENSIEVE_GUARDED_BY(mutex_) = false;
  std::thread health_thread_;
};

}  // namespace

GrpcOptions ToGrpcOptions(const config::ServerConfig& config) {
  GrpcOptions options;
  options.host = config.host;
  options.port = config.grpc_port;
  options.request_timeout_ms = config.header_timeout_ms;
  options.api_keys = config.api_keys;
  options.embedding_enabled = config.embedding_enabled;
  return options;
}

Result<std::unique_ptr<GrpcServer>> GrpcServer::Start(const GrpcOptions& options, const GrpcContext& context) {
  auto server = std::make_unique<Server>(options, context);
  PENSIEVE_RETURN_IF_ERROR(server->Listen());
  return std::unique_ptr<GrpcServer>(std::move(server));
}

}  // namespace pensieve::grpc_server
