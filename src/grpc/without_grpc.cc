// In place of everything else in this folder where the program is built with -DPENSIEVE_GRPC=OFF.
#include "grpc/grpc_server.h"

namespace pensieve::grpc_server {

GrpcOptions ToGrpcOptions(const config::ServerConfig& config) {
  GrpcOptions options;
  options.host = config.host;
  options.port = config.grpc_port;
  return options;
}

Result<std::unique_ptr<GrpcServer>> GrpcServer::Start(const GrpcOptions&, const GrpcContext& context) {
  context.logger.Log(LogLevel::kWarn, "this program was built without gRPC: nothing listens for it");
  return std::unique_ptr<GrpcServer>();
}

}  // namespace pensieve::grpc_server
