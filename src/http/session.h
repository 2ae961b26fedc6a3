// Serves the requests of one connection, one after another. Private to http/.
#pragma once

#include <atomic>
#include <boost/asio/awaitable.hpp>
#include <boost/asio/thread_pool.hpp>
#include <memory>
#include <optional>

#include "api/reply.h"
#include "http/connection.h"
#include "http/generation.h"
#include "http/http_server.h"
#include "http/response.h"
#include "http/routes.h"
#include "observe/request_log.h"

namespace pensieve::http {

// What all sessions of a server share. Outlives them.
struct SessionContext {
  const HttpOptions& options;
  const HttpContext& server;
  boost::asio::thread_pool& workers;
  std::atomic<bool>& stopping;         // no request after the present one
  std::atomic<int64_t>& bodies_bytes;  // held by all sessions, for bodies_bytes_max
  api::RecordStore& records;
};

struct PreparedGeneration {
  GenerationGroup group;
  std::unique_ptr<api::AnswerFormat> format;
  bool stream = false;
  std::optional<api::HttpReply> reply = std::nullopt;  // then there is no generation
};

// Lives on its connection's strand, except where noted.
class Session : public std::enable_shared_from_this<Session> {
 public:
  Session(boost::asio::ip::tcp::socket socket, const SessionContext& context);

  // Serves until either side ends the connection.
  static boost::asio::awaitable<void> Run(std::shared_ptr<Session> self);
  // For connections beyond the limit: answers 503 without reading and closes.
  static boost::asio::awaitable<void> Refuse(std::shared_ptr<Session> self);

  // Any thread; effective soon after.
  void CloseIfIdle();
  void CutOff();  // cancels what is being generated, so that its stream ends in an error event
  void Abort();   // closes the socket

 private:
  // Bytes of bodies_bytes that this session holds.
  class BodyBudget {
   public:
    explicit BodyBudget(std::atomic<int64_t>& total) : total_(total) {}
    ~BodyBudget() { Release(); }
    BodyBudget(const BodyBudget&) = delete;
    BodyBudget& operator=(const BodyBudget&) = delete;
    bool Take(int64_t bytes, int64_t limit);
    void Release();
    int64_t taken() const { return taken_; }

   private:
    std::atomic<int64_t>& total_;
    int64_t taken_ = 0;
  };

  boost::asio::awaitable<void> ServeAll();
  // Whether the connection may serve another.
  boost::asio::awaitable<bool> ServeOne();
  // ServeHead; an exception that gets here is answered 500, or closes the connection when an answer has begun.
  boost::asio::awaitable<void> ServeGuarded(ReadOutcome outcome);
  boost::asio::awaitable<void> ServeHead(ReadOutcome outcome);
  boost::asio::awaitable<void> ReadBodyAndDispatch();
  boost::asio::awaitable<void> AnswerBadRead(ReadOutcome outcome);
  boost::asio::awaitable<void> AnswerEarly(api::HttpReply reply);
  boost::asio::awaitable<void> Dispatch();
  boost::asio::awaitable<void> Generate();
  boost::asio::awaitable<void> Collect(PreparedGeneration& prepared);
  boost::asio::awaitable<void> Stream(PreparedGeneration& prepared);
  boost::asio::awaitable<void> Embed();
  boost::asio::awaitable<Result<service::EmbedResult>> AwaitEmbedding(service::EmbedRequest call);
  boost::asio::awaitable<void> Reply(api::HttpReply reply);
  // Appends the bytes of the events that are ready, up to some limit; whether the last one was among them. An exception on
  // the way becomes an error event, which is the last.
  bool TakeEvents(PreparedGeneration& prepared, std::string& bytes);
  boost::asio::awaitable<bool> WriteStream(std::string events, bool last);
  template <typename Work>
  auto OnWorker(Work work) -> boost::asio::awaitable<std::invoke_result_t<Work&>>;

  // The answer to a request that its headers already condemn.
  std::optional<api::HttpReply> CheckHead();
  std::optional<api::HttpReply> CheckBodyHeaders();
  // Nothing when there is nobody to answer.
  std::optional<api::HttpReply> BadReadReply(ReadOutcome outcome);
  api::HttpReply AnswerForServer();
  api::RouteCall Call() const;
  // For a worker thread.
  Result<PreparedGeneration> Prepare(const api::Generate& action) const;
  api::HttpReply OrError(Result<api::HttpReply> reply);
  api::HttpReply WholeAnswer(PreparedGeneration& prepared, const service::GenerationEvent& terminal);
  // Shares of bodies_bytes_max: for the body that is coming, and for the values that a body read becomes. Refusals that
  // hold now or, for a body that could never be parsed, always.
  Status Reserve();
  // The share of a chunked body, whose length nobody knows, grows with it.
  bool ReserveChunked(uint64_t bytes);
  static Status NoRoom();
  Status ReserveParsed(int64_t values);
  Status TakeBudget(int64_t bytes);
  api::HttpReply Error(const Status& status);
  HeadOptions ReplyHead() const;
  std::chrono::milliseconds LookAgain() const;
  void NoteTerminal(const GenerationGroup& group, const service::GenerationEvent& event);
  void NoteGone(GenerationGroup& group);
  void FinishRecord();

  const SessionContext context_;
  const std::shared_ptr<Connection> connection_;
  bool idle_ = false;
  bool cut_off_ = false;

  // Of the request being served.
  Request request_;
  Route route_{.dialect = api::Dialects().back()};
  std::string parameter_;  // of the path, decoded
  RequestRecord record_;
  Clock::time_point start_;
  BodyBudget budget_;
  bool close_after_ = false;
  bool answer_begun_ = false;  // bytes of it may be on their way
};

}  // namespace pensieve::http
