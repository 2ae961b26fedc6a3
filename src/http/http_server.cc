#include "http/http_server.h"

#include <fmt/format.h>
#include <pthread.h>

#include <boost/asio/as_tuple.hpp>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/executor_work_guard.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/redirect_error.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/strand.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <future>

#include "base/guarded.h"
#include "base/mutex.h"
#include "base/processors.h"
#include "http/session.h"

namespace pensieve::http {

namespace asio = boost::asio;
using asio::ip::tcp;
using boost::system::error_code;

namespace {

constexpr auto kToken = asio::as_tuple(asio::use_awaitable);
// Connections beyond the limit that are being told so; further ones are closed without a word.
constexpr size_t kRefusalsMax = 64;
// For streams that were cut off to say so.
constexpr auto kLastWords = std::chrono::milliseconds(1000);

Status ListenError(const std::string& address, int64_t port, const error_code& error) {
  if (error == asio::error::address_in_use)
    return Unavailable(
        fmt::format("port {} of {} is in use by another process; stop it, or choose another port with the setting "
                    "server.http_port (--port, PENSIEVE_PORT)",
                    port, address));
  if (error == asio::error::access_denied)
    return Unavailable(
        fmt::format("this user may not listen on port {} of {}; choose one above 1023 with the setting "
                    "server.http_port (--port, PENSIEVE_PORT)",
                    port, address));
  return InvalidArgument(fmt::format("cannot listen on {} port {} (settings server.host and server.http_port): {}",
                                     address, port, error.message()));
}

class Server final : public HttpServer {
 public:
  Server(const HttpOptions& options, const HttpContext& context)
      : options_(options), context_(context), workers_(static_cast<size_t>(options.worker_threads)) {}

  ~Server() override {
    if (!threads_.empty()) Shutdown(0);
  }

  Status Listen() {
    tcp::resolver resolver(io_);
    error_code error;
    const auto found = resolver.resolve(options_.host, "0", tcp::resolver::passive, error);
    if (error || found.empty())
      return InvalidArgument(fmt::format("server.host = {}: no such address ({})", options_.host, error.message()));
    Status first_error;
    for (const auto& entry : found) {
      Status status = ListenOn(entry.endpoint().address());
      // One family may be missing on this machine; a port that is taken is an error on either.
      if (status.code() == StatusCode::kUnavailable) return status;
      if (!status.ok() && first_error.ok()) first_error = status;
    }
    return acceptors_.empty() ? first_error : OkStatus();
  }

  void Run() {
    for (auto& acceptor : acceptors_)
      asio::co_spawn(acceptor->get_executor(), AcceptAll(*acceptor), [](std::exception_ptr) {});
    for (int64_t i = 0; i < options_.io_threads; ++i)
      threads_.emplace_back([this]() noexcept {
#ifdef __linux__
        pthread_setname_np(pthread_self(), "http-io");
#endif
        // Sessions end their own exceptions; what is left comes from what asio itself does between them.
        while (true) {
          const Status failure = Guarded([this] { io_.run(); });
          if (failure.ok()) break;
          (void)Guarded([&] { context_.logger.Error("an I/O thread caught an exception: " + failure.message()); }).ok();
        }
      });
  }

  uint16_t port() const override { return port_; }

  int64_t connections() const override {
    const MutexLock lock(mutex_);
    return static_cast<int64_t>(sessions_.size());
  }

  void StopAccepting() override {
    if (stopping_.exchange(true)) return;
    for (auto& acceptor : acceptors_) {
      std::promise<void> closed;
      asio::post(acceptor->get_executor(), [&] {
        error_code ignored;
        acceptor->close(ignored);
        closed.set_value();
      });
      closed.get_future().wait();
    }
    for (const auto& session : Sessions()) session->CloseIfIdle();
  }

  bool Shutdown(int64_t grace_ms) override {
    const MutexLock once(shutdown_mutex_);
    if (threads_.empty()) return finished_in_time_;
    StopAccepting();
    finished_in_time_ = WaitUntilEmpty(std::chrono::milliseconds(grace_ms));
    if (!finished_in_time_) {
      for (const auto& session : Sessions()) session->CutOff();
      if (!WaitUntilEmpty(kLastWords)) {
        for (const auto& session : Sessions()) session->Abort();
        WaitUntilEmpty(std::chrono::hours(24 * 365));
      }
    }
    work_.reset();
    io_.stop();
    for (auto& thread : threads_) thread.join();
    threads_.clear();
    workers_.join();
    return finished_in_time_;
  }

 private:
  Status ListenOn(const asio::ip::address& address) {
    // All addresses of one name share a port, also when the system chose it.
    const int64_t port = port_ != 0 ? port_ : options_.port;
    const tcp::endpoint endpoint(address, static_cast<uint16_t>(port));
    auto acceptor = std::make_unique<tcp::acceptor>(asio::make_strand(io_));
    error_code error;
    acceptor->open(endpoint.protocol(), error);
    // Lets a restart bind while old connections are in TIME_WAIT; two listeners are still refused.
    if (!error) acceptor->set_option(tcp::acceptor::reuse_address(true), error);
    if (!error) acceptor->bind(endpoint, error);
    if (!error) acceptor->listen(asio::socket_base::max_listen_connections, error);
    if (error) return ListenError(address.to_string(), port, error);
    port_ = acceptor->local_endpoint(error).port();
    acceptors_.push_back(std::move(acceptor));
    return OkStatus();
  }

  asio::awaitable<void> AcceptAll(tcp::acceptor& acceptor) {
    while (acceptor.is_open()) {
      const asio::any_io_executor strand = asio::make_strand(io_);
      error_code error;
      tcp::socket socket = co_await acceptor.async_accept(strand, asio::redirect_error(asio::use_awaitable, error));
      if (error == asio::error::operation_aborted || !acceptor.is_open()) co_return;
      if (error) {
        // Mostly a lack of file descriptors: connections end and free some.
        asio::steady_timer pause(acceptor.get_executor(), std::chrono::milliseconds(100));
        co_await pause.async_wait(kToken);
        continue;
      }
      error_code ignored;
      socket.set_option(tcp::no_delay(true), ignored);
      // Whatever goes wrong costs this connection; the next one is accepted.
      (void)Guarded([&] { Begin(std::move(socket)); }).ok();
    }
  }

  void Begin(tcp::socket socket) {
    const auto strand = socket.get_executor();
    auto session = std::make_shared<Session>(std::move(socket), SessionContext{.options = options_,
                                                                               .server = context_,
                                                                               .workers = workers_,
                                                                               .stopping = stopping_,
                                                                               .bodies_bytes = bodies_bytes_,
                                                                               .records = records_});
    bool refuse = false;
    {
      const MutexLock lock(mutex_);
      const auto limit = static_cast<size_t>(options_.connections_max);
      if (stopping_ || sessions_.size() >= limit + kRefusalsMax) return;
      refuse = sessions_.size() >= limit;
      sessions_.emplace(session.get(), session);
    }
    Session* const key = session.get();
    const Status spawned = Guarded([&] {
      asio::co_spawn(strand, refuse ? Session::Refuse(std::move(session)) : Session::Run(std::move(session)),
                     [this, key](std::exception_ptr failure) { End(key, failure); });
    });
    if (!spawned.ok()) End(key, std::make_exception_ptr(std::bad_alloc()));
  }

  void End(Session* session, const std::exception_ptr& failure) {
    // Ours do not throw: this is a library's, such as bad_alloc. It costs the connection and nothing more.
    if (failure) context_.logger.Error("a connection ended by an exception");
    const MutexLock lock(mutex_);
    sessions_.erase(session);
    if (sessions_.empty()) empty_.notify_all();
  }

  std::vector<std::shared_ptr<Session>> Sessions() const {
    const MutexLock lock(mutex_);
    std::vector<std::shared_ptr<Session>> all;
    for (const auto& [key, session] : sessions_) all.push_back(session);
    return all;
  }

  bool WaitUntilEmpty(std::chrono::milliseconds timeout) {
    MutexLock lock(mutex_);
    return empty_.wait_for(lock, timeout, [this]() PENSIEVE_REQUIRES(mutex_) { return sessions_.empty(); });
  }

  const HttpOptions options_;
  const HttpContext context_;
  asio::io_context io_;
  asio::executor_work_guard<asio::io_context::executor_type> work_ = asio::make_work_guard(io_);
  asio::thread_pool workers_;
  std::vector<std::unique_ptr<tcp::acceptor>> acceptors_;
  std::vector<std::thread> threads_;
  uint16_t port_ = 0;
  std::atomic<bool> stopping_ = false;
  std::atomic<int64_t> bodies_bytes_ = 0;
  api::RecordStore records_{{.bytes_max = options_.response_store_bytes_max}};

  mutable Mutex mutex_;
  Condition empty_;
  std::unordered_map<Session*, std::shared_ptr<Session>> sessions_ PENSIEVE_GUARDED_BY(mutex_);

  Mutex shutdown_mutex_;
  bool finished_in_time_ PENSIEVE_GUARDED_BY(shutdown_mutex_) = true;
};

}  // namespace

HttpOptions ToHttpOptions(const config::ServerConfig& config, const std::string& version) {
  HttpOptions options;
  options.host = config.host;
  options.port = config.http_port;
  options.io_threads = config.http_threads;
  options.worker_threads = std::clamp(UsableProcessors(), 2, 4);
  options.connections_max = config.connections_max;
  options.body_bytes_max = config.body_bytes_max;
  options.response_store_bytes_max = config.response_store_bytes_max;
  options.bodies_bytes_max = std::max(options.bodies_bytes_max, 4 * config.body_bytes_max);
  options.request_timeout_ms = config.header_timeout_ms;
  options.write_timeout_ms = config.write_timeout_ms;
  options.stall_timeout_ms = config.stall_timeout_ms;
  options.idle_timeout_ms = config.idle_timeout_ms;
  options.api_keys = config.api_keys;
  options.cors_origins = config.cors_origins;
  options.allowed_hosts = config.allowed_hosts;
  options.embedding_enabled = config.embedding_enabled;
  options.log_prompts = config.log_prompts;
  options.version = version;
  return options;
}

Result<std::unique_ptr<HttpServer>> HttpServer::Start(const HttpOptions& options, const HttpContext& context) {
  auto server = std::make_unique<Server>(options, context);
  PENSIEVE_RETURN_IF_ERROR(server->Listen());
  server->Run();
  return std::unique_ptr<HttpServer>(std::move(server));
}

}  // namespace pensieve::http
