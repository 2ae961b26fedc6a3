// One client connection: reading requests, writing bytes, noticing that the client left. Private to http/.
#pragma once

#include <boost/asio/awaitable.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/beast/core/flat_buffer.hpp>
#include <boost/beast/http/parser.hpp>
#include <boost/beast/http/string_body.hpp>
#include <functional>
#include <memory>
#include <optional>
#include <string_view>

#include "http/http_server.h"
#include "http/request.h"
#include "http/signal.h"

namespace pensieve::http {

// How reading ended.
enum class ReadOutcome : uint8_t {
  kOk,
  kClosed,    // by the client or by us, before or inside a request
  kTimedOut,  // the request came too slowly
  kMalformed,
  kHeadTooLarge,
  kBodyTooLarge,
  kNoRoom,  // the server holds too many bodies
};

// Lives on its socket's strand; only the coroutine of its session calls it. All waits end when the socket is closed.
class Connection : public std::enable_shared_from_this<Connection> {
 public:
  Connection(boost::asio::ip::tcp::socket socket, const HttpOptions& options);

  // Waits for the first byte of a request. False: the client or a deadline ended the connection.
  boost::asio::awaitable<bool> WaitForRequest(int64_t timeout_ms);
  // Reads a request up to the end of its headers, into `request`. The deadline for the whole request starts here.
  boost::asio::awaitable<ReadOutcome> ReadHead(Request& request);
  // What is known of the body after ReadHead: its length, or nothing when it is chunked.
  std::optional<uint64_t> body_length() const;
  bool has_body() const;
  // While a chunked body comes, `may_hold` is asked whether so many bytes of it may be kept; null: always.
  boost::asio::awaitable<ReadOutcome> ReadBody(Request& request, const std::function<bool(uint64_t bytes)>& may_hold);

  // Sends all bytes. False: the client is gone, took no byte for the write timeout, or let the writes since the last
  // ReadHead wait longer in all than the stall timeout; the socket is then closed.
  boost::asio::awaitable<bool> Write(std::string_view bytes);

  // From here on the client's departure sets gone() and notifies the signal. Bytes of a next request are kept, up to a
  // limit. A client that closes only its sending side counts as gone: HTTP clients do that only when they give up.
  void StartWatch();
  boost::asio::awaitable<void> StopWatch();
  bool gone() const { return gone_; }

  // Ends sending and reads on for a while, so that the client sees our last answer instead of a reset.
  boost::asio::awaitable<void> Linger();
  void Close();
  // Closes and marks the client as gone, which ends every wait.
  void Abort();

  const std::shared_ptr<Signal>& signal() const { return signal_; }
  bool is_open() const { return socket_.is_open(); }

 private:
  using Parser = boost::beast::http::request_parser<boost::beast::http::string_body>;

  void SetDeadline(int64_t timeout_ms);
  void ClearDeadline();
  ReadOutcome Outcome(const boost::system::error_code& error);
  void WatchOnce();
  bool TakeHead(Request& request);

  const HttpOptions& options_;
  boost::asio::ip::tcp::socket socket_;
  boost::asio::steady_timer deadline_timer_;
  Clock::time_point deadline_ = Clock::time_point::max();
  Clock::time_point request_deadline_;  // of the request being read
  Clock::duration stalled_{};           // by the client while its answer was written
  boost::beast::flat_buffer buffer_;
  std::optional<Parser> parser_;  // of the request being read
  std::shared_ptr<Signal> signal_;
  bool timed_out_ = false;
  bool watching_ = false;  // a read of the watch is under way
  bool stopping_watch_ = false;
  bool gone_ = false;
};

}  // namespace pensieve::http
