#include "http/connection.h"

#include <array>

#include <boost/asio/as_tuple.hpp>
#include <boost/asio/buffer.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <boost/beast/http/error.hpp>
#include <boost/beast/http/read.hpp>

namespace pensieve::http {

namespace asio = boost::asio;
namespace beast = boost::beast;
using boost::system::error_code;

namespace {

// Bytes of further requests that are kept while one is being answered.
constexpr size_t kPipelinedBytesMax = 64 << 10;
constexpr size_t kLingerBytesMax = 4 << 20;
constexpr auto kToken = asio::as_tuple(asio::use_awaitable);

bool IsWellFormed(const beast::http::request_parser<beast::http::string_body>& parser) {
  // Beast ignores codings it does not know, and the body that follows would be taken for a request.
  const auto& message = parser.get();
  return message.count(beast::http::field::transfer_encoding) == 0 || parser.chunked();
}

}  // namespace

Connection::Connection(asio::ip::tcp::socket socket, const HttpOptions& options)
    : options_(options),
      socket_(std::move(socket)),
      deadline_timer_(socket_.get_executor()),
      buffer_(std::max(kPipelinedBytesMax, static_cast<size_t>(options.head_bytes_max)) + 4096),
      signal_(std::make_shared<Signal>(socket_.get_executor())) {}

void Connection::SetDeadline(int64_t timeout_ms) {
  timed_out_ = false;
  deadline_ = Clock::now() + std::chrono::milliseconds(timeout_ms);
  deadline_timer_.expires_at(deadline_);
  deadline_timer_.async_wait([weak = weak_from_this()](error_code error) {
    const auto self = weak.lock();
    // A newer deadline may have been set while this handler was on its way.
    if (error || !self || Clock::now() < self->deadline_) return;
    self->timed_out_ = true;
    error_code ignored;
    self->socket_.cancel(ignored);
  });
}

void Connection::ClearDeadline() {
  deadline_ = Clock::time_point::max();
  deadline_timer_.cancel();
}

asio::awaitable<bool> Connection::WaitForRequest(int64_t timeout_ms) {
  if (buffer_.size() > 0) co_return socket_.is_open();
  SetDeadline(timeout_ms);
  const auto [error] = co_await socket_.async_wait(asio::ip::tcp::socket::wait_read, kToken);
  ClearDeadline();
  co_return !error && !timed_out_ && socket_.is_open();
}

ReadOutcome Connection::Outcome(const error_code& code) {
  if (!code) return ReadOutcome::kOk;
  if (timed_out_) return ReadOutcome::kTimedOut;
  using beast::http::error;
  if (code == error::header_limit || code == error::buffer_overflow) return ReadOutcome::kHeadTooLarge;
  if (code == error::body_limit) return ReadOutcome::kBodyTooLarge;
  if (code == error::end_of_stream || code == error::partial_message) return ReadOutcome::kClosed;
  // What remains of Beast's own errors is about syntax; all others come from the socket.
  const bool is_syntax = code.category() == beast::http::make_error_code(error::bad_method).category();
  return is_syntax ? ReadOutcome::kMalformed : ReadOutcome::kClosed;
}

asio::awaitable<ReadOutcome> Connection::ReadHead(Request& request) {
  parser_.emplace();
  parser_->header_limit(static_cast<uint32_t>(options_.head_bytes_max));
  // The body's length is judged by the session, which first wants to know the route.
  parser_->body_limit(boost::none);
  SetDeadline(options_.request_timeout_ms);
  request_deadline_ = deadline_;
  stalled_ = Clock::duration::zero();
  const auto [error, size] = co_await beast::http::async_read_header(socket_, buffer_, *parser_, kToken);
  if (error) co_return Outcome(error);
  co_return TakeHead(request) ? ReadOutcome::kOk : ReadOutcome::kMalformed;
}

bool Connection::TakeHead(Request& request) {
  const auto& message = parser_->get();
  request.method = std::string(message.method_string());
  request.http_1_1 = message.version() == 11;
  request.keep_alive = message.keep_alive();
  for (const auto& field : message) {
    request.headers.emplace_back(ToLower({field.name_string().data(), field.name_string().size()}),
                                 std::string(field.value()));
  }
  request.host = std::string(request.Header("host"));
  if (message.version() != 11 && message.version() != 10) return false;
  return ParseTarget({message.target().data(), message.target().size()}, request) && IsWellFormed(*parser_);
}

std::optional<uint64_t> Connection::body_length() const {
  if (parser_->chunked()) return std::nullopt;
  const auto length = parser_->content_length();
  return length ? *length : 0;
}

bool Connection::has_body() const { return !parser_->is_done(); }

asio::awaitable<ReadOutcome> Connection::ReadBody(Request& request,
                                                  const std::function<bool(uint64_t bytes)>& may_hold) {
  if (!parser_->is_done()) {
    parser_->body_limit(static_cast<uint64_t>(options_.body_bytes_max));
    // Writing "100 Continue" in between has ended the deadline that ReadHead set.
    const auto left = std::chrono::duration_cast<std::chrono::milliseconds>(request_deadline_ - Clock::now());
    SetDeadline(std::max<int64_t>(left.count(), 0));
    while (!parser_->is_done()) {
      const auto [error, size] = co_await beast::http::async_read_some(socket_, buffer_, *parser_, kToken);
      if (error) co_return Outcome(error);
      // A length that was announced has its room already.
      if (parser_->chunked() && may_hold && !may_hold(parser_->get().body().size())) co_return ReadOutcome::kNoRoom;
    }
  }
  ClearDeadline();
  request.body = std::move(parser_->get().body());
  co_return ReadOutcome::kOk;
}

asio::awaitable<bool> Connection::Write(std::string_view bytes) {
  while (!bytes.empty() && !gone_) {
    const auto start = Clock::now();
    const auto stall_left_ms = options_.stall_timeout_ms - stalled_ / std::chrono::milliseconds(1);
    SetDeadline(std::clamp<int64_t>(stall_left_ms, 0, options_.write_timeout_ms));
    const auto [error, size] = co_await socket_.async_write_some(asio::buffer(bytes.data(), bytes.size()), kToken);
    bytes.remove_prefix(size);
    stalled_ += Clock::now() - start;
    if (error || timed_out_) {
      gone_ = true;
      Close();
    }
  }
  ClearDeadline();
  co_return !gone_;
}

void Connection::StartWatch() {
  stopping_watch_ = false;
  WatchOnce();
}

void Connection::WatchOnce() {
  constexpr size_t kStep = 4096;
  // Past the limit the client's departure is noticed by the next write.
  if (gone_ || watching_ || buffer_.size() + kStep > kPipelinedBytesMax) return;
  watching_ = true;
  socket_.async_read_some(buffer_.prepare(kStep), [self = shared_from_this()](error_code error, size_t size) {
    self->watching_ = false;
    self->buffer_.commit(size);
    if (error && !self->stopping_watch_) self->gone_ = true;
    if (error || self->stopping_watch_) {
      self->signal_->Notify();
      return;
    }
    self->WatchOnce();
  });
}

asio::awaitable<void> Connection::StopWatch() {
  stopping_watch_ = true;
  error_code ignored;
  if (watching_) socket_.cancel(ignored);
  while (watching_) co_await signal_->WaitUntil(Clock::time_point::max());
}

asio::awaitable<void> Connection::Linger() {
  if (!socket_.is_open() || gone_) co_return;
  error_code ignored;
  socket_.shutdown(asio::ip::tcp::socket::shutdown_send, ignored);
  SetDeadline(options_.linger_ms);
  std::array<char, 16384> scrap;
  for (size_t total = 0; total < kLingerBytesMax && !timed_out_;) {
    const auto [error, size] = co_await socket_.async_read_some(asio::buffer(scrap), kToken);
    if (error) break;
    total += size;
  }
  ClearDeadline();
}

void Connection::Close() {
  ClearDeadline();
  error_code ignored;
  socket_.close(ignored);
}

void Connection::Abort() {
  gone_ = true;
  Close();
  signal_->Notify();
}

}  // namespace pensieve::http
