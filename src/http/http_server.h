// The HTTP/1.1 listener: bytes to and from the api/ dialects and the service. One port for all of them.
//
// I/O threads run one coroutine per connection; whatever parses, renders or tokenizes runs on a pool of worker threads.
// Every wait has a deadline and every size a limit. A client that leaves while its answer is being made cancels the
// request; one that reads slowly holds up only its own sequence.
//
// Safe by default, against DNS rebinding: a server on a loopback address answers only Host headers that name this
// machine, any other one without API keys only those that are an IP address or allowed. A request with an Origin header
// is refused unless the origin is configured or is the server itself.
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

namespace pensieve::http {

struct HttpOptions {
  std::string host = "127.0.0.1";  // an address or a name; a name is listened to on each of its addresses
  int64_t port = 8080;             // 0: any free one
  int64_t io_threads = 2;
  int64_t worker_threads = 4;  // of low priority: the models' own threads wait for nobody's tokenizing
  int64_t connections_max = 1024;
  int64_t head_bytes_max = 32 << 10;  // request line and headers
  int64_t body_bytes_max = int64_t{32} << 20;
  int64_t bodies_bytes_max = int64_t{512} << 20;  // all bodies that are being read, and what they become when parsed
  int64_t request_timeout_ms = 30'000;            // for a whole request, from its first byte
  int64_t write_timeout_ms = 60'000;              // without a byte taken by the client
  int64_t stall_timeout_ms = 300'000;             // of waiting for the client in all, over one answer
  int64_t idle_timeout_ms = 120'000;              // between requests
  int64_t linger_ms = 2'000;              // reading on after an early refusal, so that the client sees the answer
  int64_t ping_interval_ms = 10'000;      // of silence in a stream
  int64_t claude_keep_alive_ms = 60'000;  // as above; what older Claude Code counts as life
  int64_t response_store_bytes_max = int64_t{64} << 20;  // answers that clients may refer to; 0 keeps none
  std::vector<std::string> api_keys;                     // empty: open
  std::vector<std::string> cors_origins;                 // exact, or "*"
  std::vector<std::string> allowed_hosts;                // names beside the local ones; "*": any
  bool embedding_enabled = true;
  bool log_prompts = false;  // request bodies in the log
  std::string version = "0";
};

HttpOptions ToHttpOptions(const config::ServerConfig& config, const std::string& version);

// What the server reports to and asks. All must outlive the HttpServer.
struct HttpContext {
  service::Service& service;
  Logger& logger;
  Metrics& metrics;
};

// Thread-safe.
class HttpServer {
 public:
  // Listens and serves. Unavailable, naming the setting to change, when the port is taken; InvalidArgument for a host
  // that is no address of this machine.
  static Result<std::unique_ptr<HttpServer>> Start(const HttpOptions& options, const HttpContext& context);
  // Shutdown(0).
  virtual ~HttpServer() = default;

  virtual uint16_t port() const = 0;
  virtual int64_t connections() const = 0;

  // Closes the listener and idle connections. Requests under way go on; their connections close after them.
  virtual void StopAccepting() = 0;
  // StopAccepting, then waits up to `grace_ms` for the requests under way. What is left then is cancelled: streams end
  // with an error event of their dialect. Returns whether everything finished in time.
  virtual bool Shutdown(int64_t grace_ms) = 0;
};

}  // namespace pensieve::http
