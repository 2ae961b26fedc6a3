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

// What all calls share.
struct CallLimits {
  std::atomic<int64_t> calls{0};  // Embed calls that have not answered
  std::atomic<int64_t> bytes{0};  // of their messages
};

// Both methods of wire::EmbeddingService. Embed is served as a call whose client streams messages, of which it takes one:
// to the client that is the same, but the library hands over such a call with its metadata, and reads the message of an
// unary call before anybody can ask for the key.
// Thread-safe. Must outlive every call: destroy it after the server.
class EmbeddingService final : public ::grpc::Service {
 public:
  EmbeddingService(const GrpcOptions& options, const GrpcContext& context);
  ~EmbeddingService() override;

 private:
  ::grpc::ServerReadReactor<::grpc::ByteBuffer>* Embed(::grpc::CallbackServerContext* call,
                                                       wire::EmbedResponse* response);
  ::grpc::ServerUnaryReactor* GetModelInfo(::grpc::CallbackServerContext* call, wire::GetModelInfoResponse* response);
  ::grpc::Status DescribeModel(wire::GetModelInfoResponse& response);

  const GrpcOptions& options_;
  const GrpcContext context_;
  CallLimits limits_;
  BoundedQueue<std::function<void()>> work_;
  std::vector<std::thread> workers_;
};

}  // namespace pensieve::grpc_server
