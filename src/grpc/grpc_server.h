// The gRPC listener: akidb.embedding.v1.EmbeddingService, grpc.health.v1.Health and server reflection.
//
// Calls take the same path through api/akidb and the service as POST /api/v1/embed. Status codes are the service's own;
// overload of every kind is UNAVAILABLE, which clients retry. With API keys configured, a call must carry one in its
// metadata, as x-api-key or as "authorization: Bearer"; health and reflection stay open. The key is checked before the
// call's message is read.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "base/status.h"
#include "config/server_config.h"
#include "observe/log.h"
#include "observe/metrics.h"
#include "service/service.h"

// Not the folder's own name: inside pensieve, that would hide the library's namespace ::grpc.
namespace pensieve::grpc_server {

struct GrpcOptions {
  std::string host = "127.0.0.1";
  int64_t port = 9090;         // 0: any free one
  int64_t worker_threads = 2;  // that tokenize
  // Beyond these limits calls are UNAVAILABLE.
  int64_t calls_waiting_max = 256;                  // for a worker
  int64_t calls_max = 512;                          // in all, from their metadata to their answer
  int64_t messages_bytes_max = int64_t{256} << 20;  // of all messages that were read and not answered
  // What one message, one connection and the library itself may take.
  int32_t message_bytes_max = 4 << 20;
  int32_t streams_max = 128;                       // of one connection at once; further ones wait at the client
  int64_t buffers_bytes_max = int64_t{256} << 20;  // of connections; beyond, the library drops the hungriest
  int64_t request_timeout_ms = 30'000;             // for a call's message to arrive
  std::vector<std::string> api_keys;
  bool embedding_enabled = true;  // false: the service is UNIMPLEMENTED, as AkiDB's without a model
};

// `config.grpc_port` must not be -1, which means off.
GrpcOptions ToGrpcOptions(const config::ServerConfig& config);

// What the server reports to and asks. All must outlive the GrpcServer.
struct GrpcContext {
  service::Service& service;
  Logger& logger;
  Metrics& metrics;
};

// Thread-safe.
class GrpcServer {
 public:
  // Listens and serves. Null, and a line in the log, where the program was built without gRPC. Unavailable, naming the setting to change, when the port cannot be had.
  static Result<std::unique_ptr<GrpcServer>> Start(const GrpcOptions& options, const GrpcContext& context);
  // Shutdown(0).
  virtual ~GrpcServer() = default;

  virtual uint16_t port() const = 0;

  // Health turns to NOT_SERVING, new calls are refused, and calls under way get `grace_ms` before they are cancelled.
  virtual void Shutdown(int64_t grace_ms) = 0;
};

}  // namespace pensieve::grpc_server
