// AkiDB's service over the callback API. Private to grpc/.
#pragma once

#include <atomic>
#include <functional>
#include <thread>
#include <vector>

#include "akidb/embedding/v1/embedding.grpc.pb.h"
#include "base/bounded_queue.h"
#include "grpc/grpc_server.h"

namespace pensieve::grpc_server {

namespace wire = ::akidb::embedding::v1;

// Thread-safe. Must outlive every call: destroy it after the server.
class EmbeddingService final : public wire::EmbeddingService::CallbackService {
 public:
  EmbeddingService(const GrpcOptions& options, const GrpcContext& context);
  ~EmbeddingService() override;

  ::grpc::ServerUnaryReactor* Embed(::grpc::CallbackServerContext* call, const wire::EmbedRequest* request,
                                    wire::EmbedResponse* response) override;
  ::grpc::ServerUnaryReactor* GetModelInfo(::grpc::CallbackServerContext* call,
                                           const wire::GetModelInfoRequest* request,
                                           wire::GetModelInfoResponse* response) override;

 private:
  const GrpcOptions& options_;
  const GrpcContext context_;
  std::atomic<int64_t> in_flight_{0};  // Embed calls that have not answered
  BoundedQueue<std::function<void()>> work_;
  std::vector<std::thread> workers_;
};

}  // namespace pensieve::grpc_server
