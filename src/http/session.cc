#include "http/session.h"

#include <fmt/format.h>

#include <boost/asio/as_tuple.hpp>
#include <boost/asio/associated_executor.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <algorithm>
#include <functional>

#include "base/guarded.h"
#include "base/mutex.h"
#include "base/processors.h"
#include "base/random_id.h"
#include "http/guard.h"
#include "http/info.h"

// A rule for every coroutine here: what is passed to a co_await is a variable, not a temporary that needs a destructor.
// g++ 12 destroys such temporaries twice when a conditional expression is near.

namespace pensieve::http {

namespace asio = boost::asio;

namespace {

// Bodies up to here are read even when the answer is known before, so that the connection can go on.
constexpr uint64_t kDrainBytesMax = 64 << 10;
constexpr size_t kLoggedBodyBytesMax = 64 << 10;
// Events are sent together while they keep coming, up to about this many bytes.
constexpr size_t kWriteBytesTarget = 64 << 10;

double SecondsSince(Clock::time_point start) { return std::chrono::duration<double>(Clock::now() - start).count(); }

bool IsRefusal(int http_status) { return http_status == 429 || http_status == 503 || http_status == 529; }

// For metrics, whose label values must come from a small set.
std::string KnownMethod(const std::string& method) {
  for (const char* known : {"GET", "HEAD", "POST", "OPTIONS", "PUT", "DELETE", "PATCH"})
    if (method == known) return method;
  return "other";
}

// On a worker thread: its tokenizing must not stop a model's threads in the middle of a step that all of them wait for.
void GiveWayToModels() {
  thread_local const bool once = [] {
    LowerThreadPriority();
    return true;
  }();
  static_cast<void>(once);
}

Status ShuttingDown() {
  return Unavailable("the server is shutting down").WithReason(ErrorReason::kShuttingDown).WithRetryAfterMs(2000);
}

}  // namespace

bool Session::BodyBudget::Take(int64_t bytes, int64_t limit) {
  if (total_.fetch_add(bytes) + bytes > limit) {
    total_.fetch_sub(bytes);
    return false;
  }
  taken_ += bytes;
  return true;
}

void Session::BodyBudget::Release() {
  total_.fetch_sub(taken_);
  taken_ = 0;
}

Session::Session(asio::ip::tcp::socket socket, const SessionContext& context)
    : context_(context),
      connection_(std::make_shared<Connection>(std::move(socket), context.options)),
      budget_(context.bodies_bytes) {}

// Runs `work` on a worker thread and comes back to the strand with its result. What it threw is thrown again here, to
// end where the strand's own exceptions do: in ServeGuarded.
template <typename Work>
auto Session::OnWorker(Work work) -> asio::awaitable<std::invoke_result_t<Work&>> {
  std::optional<std::invoke_result_t<Work&>> result;
  std::exception_ptr failure;
  auto start = [&](auto handler) {
    asio::post(context_.workers, [&work, &result, &failure, handler = std::move(handler)]() mutable {
      GiveWayToModels();
      try {
        result.emplace(work());
      } catch (...) { failure = std::current_exception(); }
      const auto strand = asio::get_associated_executor(handler);
      asio::post(strand, std::move(handler));
    });
  };
  co_await asio::async_initiate<const asio::use_awaitable_t<>, void()>(start, asio::use_awaitable);
  if (failure) std::rethrow_exception(failure);
  co_return std::move(*result);
}

asio::awaitable<void> Session::Run(std::shared_ptr<Session> self) { co_await self->ServeAll(); }

asio::awaitable<void> Session::Refuse(std::shared_ptr<Session> self) {
  Status status = Unavailable(fmt::format("the server has {} connections open, which is its limit",
                                          self->context_.options.connections_max))
                      .WithReason(ErrorReason::kQueueFull)
                      .WithRetryAfterMs(1000);
  self->request_.id = NewId("req_");
  api::HttpReply reply =
      api::ErrorReplyAs(503, status, api::Dialects().back()->errors, {.request_id = self->request_.id});
  HeadOptions head{.close = true, .request_id = self->request_.id, .headers = {}};
  const std::string bytes = FormatReply(reply, head);
  const bool sent = co_await self->connection_->Write(bytes);
  if (sent) co_await self->connection_->Linger();
  self->connection_->Close();
}

asio::awaitable<void> Session::ServeAll() {
  int64_t timeout_ms = context_.options.request_timeout_ms;
  while (!context_.stopping) {
    idle_ = true;
    const bool came = co_await connection_->WaitForRequest(timeout_ms);
    idle_ = false;
    if (!came) break;
    const bool more = co_await ServeOne();
    if (!more) break;
    timeout_ms = context_.options.idle_timeout_ms;
  }
  connection_->Close();
}

asio::awaitable<bool> Session::ServeOne() {
  request_ = Request();
  request_.id = NewId("req_");
  route_ = Route();
  route_.dialect = api::Dialects().back();
  record_ = RequestRecord();
  record_.id = request_.id;
  close_after_ = false;
  answer_begun_ = false;
  start_ = Clock::now();
  const ReadOutcome outcome = co_await connection_->ReadHead(request_);
  if (outcome == ReadOutcome::kClosed) co_return false;
  co_await ServeGuarded(outcome);
  budget_.Release();
  FinishRecord();
  if (close_after_) co_await connection_->Linger();
  co_return !close_after_ && !connection_->gone();
}

asio::awaitable<void> Session::ServeGuarded(ReadOutcome outcome) {
  std::exception_ptr exception;
  try {
    co_await ServeHead(outcome);
  } catch (...) { exception = std::current_exception(); }
  if (!exception) co_return;
  const Status failure = Guarded([&] { std::rethrow_exception(exception); });
  context_.server.logger.Error("a request ended by an exception",
                               {{"id", request_.id}, {"route", route_.pattern}, {"exception", failure.message()}});
  close_after_ = true;
  record_.outcome = "error";
  co_await connection_->StopWatch();
  if (answer_begun_) {
    // Whatever came next would not be what the client waits for.
    record_.error = failure.message();
    connection_->Abort();
    co_return;
  }
  api::HttpReply reply = Error(Internal("the server failed while it handled this request"));
  co_await Reply(std::move(reply));
}

asio::awaitable<void> Session::ServeHead(ReadOutcome outcome) {
  if (outcome != ReadOutcome::kOk) {
    co_await AnswerBadRead(outcome);
    co_return;
  }
  route_ = MatchRoute(request_);
  close_after_ = !request_.keep_alive;
  if (auto reply = CheckHead()) {
    co_await AnswerEarly(*std::move(reply));
    co_return;
  }
  co_await ReadBodyAndDispatch();
}

std::optional<api::HttpReply> Session::CheckHead() {
  if (Status status = CheckHostAndOrigin(request_, context_.options); !status.ok()) return Error(status);
  if (request_.method == "OPTIONS") {
    // Browsers ask without a key.
    api::HttpReply reply;
    reply.status = 204;
    reply.headers = CorsHeaders(request_, context_.options, true);
    reply.headers.emplace_back("allow", route_.known() ? route_.allow : "GET, HEAD, POST, DELETE, OPTIONS");
    return reply;
  }
  if (!route_.open) {
    const auto key_number = CheckApiKey(request_, context_.options.api_keys);
    if (!key_number.has_value()) {
      api::HttpReply reply = Error(key_number.error());
      reply.headers.emplace_back("www-authenticate", "Bearer");
      return reply;
    }
    request_.key_number = *key_number;
  }
  if (route_.embeds() && !context_.options.embedding_enabled)
    return Error(NotFound("embeddings are turned off by the setting embedding.enabled"));
  if (!route_.known()) return Error(NotFound(UnknownRouteMessage(request_)));
  if (!route_.found()) {
    api::HttpReply reply =
        Error(InvalidArgument(fmt::format("this path does not take this method, only {}", route_.allow))
                  .WithReason(ErrorReason::kMethodNotAllowed));
    reply.headers.emplace_back("allow", route_.allow);
    return reply;
  }
  return CheckBodyHeaders();
}

std::optional<api::HttpReply> Session::CheckBodyHeaders() {
  const auto length = connection_->body_length();
  const auto length_max = static_cast<uint64_t>(context_.options.body_bytes_max);
  if (length && *length > length_max) {
    return Error(InvalidArgument(fmt::format("the request body has {} bytes and may have {}", *length, length_max))
                     .WithReason(ErrorReason::kBodyTooLarge));
  }
  const std::string_view expect = request_.Header("expect");
  if (!expect.empty() && ToLower(expect) != "100-continue")
    return api::ErrorReplyAs(417, InvalidArgument("only the expectation 100-continue can be met"),
                             route_.dialect->errors, {.request_id = request_.id});
  if (request_.method != "POST") return std::nullopt;
  const std::string encoding = ToLower(request_.Header("content-encoding"));
  if (!encoding.empty() && encoding != "identity") {
    return Error(
        InvalidArgument("request_body_encoding_unsupported: request bodies must be sent without Content-Encoding"));
  }
  const std::string type = ToLower(request_.Header("content-type"));
  const bool is_json = type.rfind("application/json", 0) == 0 ||
                       (type.rfind("application/", 0) == 0 && type.find("+json") != std::string::npos);
  const bool accepted = route_.dialect->json_type_required ? is_json : type.rfind("multipart/", 0) != 0;
  if (accepted) return std::nullopt;
  return Error(InvalidArgument("Expected request with `Content-Type: application/json`")
                   .WithReason(ErrorReason::kUnsupportedMedia));
}

Status Session::Reserve() {
  const uint64_t bytes = connection_->body_length().value_or(0);
  return bytes <= kDrainBytesMax ? OkStatus() : TakeBudget(static_cast<int64_t>(bytes));
}

bool Session::ReserveChunked(uint64_t bytes) {
  // Twice what has come, as the string that holds it grows by doubling.
  const int64_t wanted = std::min<int64_t>(2 * static_cast<int64_t>(bytes), context_.options.body_bytes_max);
  if (bytes <= kDrainBytesMax || static_cast<int64_t>(bytes) <= budget_.taken()) return true;
  return TakeBudget(wanted - budget_.taken()).ok();
}

Status Session::TakeBudget(int64_t bytes) {
  return budget_.Take(bytes, context_.options.bodies_bytes_max) ? OkStatus() : NoRoom();
}

Status Session::NoRoom() {
  return ResourceExhausted("the server is reading too many large requests")
      .WithReason(ErrorReason::kQueueFull)
      .WithRetryAfterMs(1000);
}

Status Session::ReserveParsed(int64_t values) {
  const int64_t bytes = values * kJsonValueBytes;
  if (bytes > context_.options.bodies_bytes_max) {
    return InvalidArgument(fmt::format("the request body would take {} bytes of memory and may take {}", bytes,
                                       context_.options.bodies_bytes_max))
        .WithReason(ErrorReason::kBodyTooLarge);
  }
  return TakeBudget(bytes);
}

asio::awaitable<void> Session::ReadBodyAndDispatch() {
  if (Status status = Reserve(); !status.ok()) {
    api::HttpReply reply = Error(status);
    co_await AnswerEarly(std::move(reply));
    co_return;
  }
  if (connection_->has_body() && !request_.Header("expect").empty()) {
    const bool sent = co_await connection_->Write("HTTP/1.1 100 Continue\r\n\r\n");
    if (!sent) co_return;
  }
  const std::function<bool(uint64_t)> may_hold = [this](uint64_t bytes) { return ReserveChunked(bytes); };
  const ReadOutcome outcome = co_await connection_->ReadBody(request_, may_hold);
  if (outcome != ReadOutcome::kOk) {
    co_await AnswerBadRead(outcome);
    co_return;
  }
  if (context_.options.log_prompts && !request_.body.empty())
    context_.server.logger.Info("request body",
                                {{"id", request_.id}, {"body", request_.body.substr(0, kLoggedBodyBytesMax)}});
  if (request_.body.size() > kDrainBytesMax) {
    const int64_t values = co_await OnWorker([&] { return CountJsonValues(request_.body, /*inside_strings=*/true); });
    if (Status status = ReserveParsed(values); !status.ok()) {
      api::HttpReply reply = Error(status);
      co_await Reply(std::move(reply));
      co_return;
    }
  }
  co_await Dispatch();
}

std::optional<api::HttpReply> Session::BadReadReply(ReadOutcome outcome) {
  const auto with_status = [this](int http_status, const Status& status) {
    return api::ErrorReplyAs(http_status, status, route_.dialect->errors, {.request_id = request_.id});
  };
  switch (outcome) {
    case ReadOutcome::kOk:
    case ReadOutcome::kClosed: return std::nullopt;
    case ReadOutcome::kTimedOut: return with_status(408, DeadlineExceeded("the request was not complete in time"));
    case ReadOutcome::kMalformed: return Error(InvalidArgument("the request is malformed HTTP"));
    case ReadOutcome::kHeadTooLarge:
      return with_status(431, InvalidArgument(fmt::format("the request's headers have more than {} bytes",
                                                          context_.options.head_bytes_max)));
    case ReadOutcome::kBodyTooLarge:
      return Error(
          InvalidArgument(fmt::format("the request body has more than {} bytes", context_.options.body_bytes_max))
              .WithReason(ErrorReason::kBodyTooLarge));
    case ReadOutcome::kNoRoom: return Error(NoRoom());
  }
  PENSIEVE_UNREACHABLE();
}

asio::awaitable<void> Session::AnswerBadRead(ReadOutcome outcome) {
  // Where a next request would begin cannot be known.
  close_after_ = true;
  std::optional<api::HttpReply> reply = BadReadReply(outcome);
  if (reply) co_await Reply(*std::move(reply));
}

asio::awaitable<void> Session::AnswerEarly(api::HttpReply reply) {
  const auto length = connection_->body_length();
  const bool small = length && *length <= kDrainBytesMax && request_.Header("expect").empty();
  if (!connection_->has_body() || small) {
    const std::function<bool(uint64_t)> may_hold;
    const ReadOutcome outcome = co_await connection_->ReadBody(request_, may_hold);
    if (outcome != ReadOutcome::kOk) close_after_ = true;
  } else {
    close_after_ = true;
  }
  co_await Reply(std::move(reply));
}

api::HttpReply Session::AnswerForServer() {
  service::Service& service = context_.server.service;
  switch (route_.server) {
    case ServerRoute::kRoot: return RootReply(context_.options.version);
    case ServerRoute::kHealth: return HealthReply(service, context_.options.version);
    case ServerRoute::kReady: return ReadyReply(service, context_.stopping);
    case ServerRoute::kMetrics: return MetricsReply(request_, context_.server.metrics);
    case ServerRoute::kNone: break;
  }
  PENSIEVE_UNREACHABLE();
}

api::RouteCall Session::Call() const {
  return {.request = request_,
          .parameter = parameter_,
          .service = context_.server.service,
          .records = context_.records,
          .version = context_.options.version};
}

api::HttpReply Session::OrError(Result<api::HttpReply> reply) {
  return reply.has_value() ? *std::move(reply) : Error(reply.error());
}

asio::awaitable<void> Session::Dispatch() {
  std::optional<api::HttpReply> reply;
  auto parameter = api::PercentDecode(route_.parameter, false);
  if (route_.row == nullptr) {
    reply = AnswerForServer();
  } else if (!parameter) {
    reply = Error(InvalidArgument("the path has a broken percent escape"));
  } else {
    parameter_ = *std::move(parameter);
    if (const auto* now = std::get_if<api::AnswerAtOnce>(&route_.row->action)) reply = OrError(now->answer(Call()));
    if (const auto* work = std::get_if<api::AnswerOnWorker>(&route_.row->action)) {
      auto answer = co_await OnWorker([&] { return work->answer(Call()); });
      reply = OrError(std::move(answer));
    }
  }
  if (reply) {
    co_await Reply(*std::move(reply));
  } else if (route_.embeds()) {
    co_await Embed();
  } else {
    co_await Generate();
  }
}

Result<PreparedGeneration> Session::Prepare(const api::Generate& action) const {
  PENSIEVE_TRY(auto call, action.translate(Call()));
  if (call.reply) return PreparedGeneration{.group = {}, .format = nullptr, .reply = std::move(call.reply)};
  PENSIEVE_TRY(auto group, GenerationGroup::Submit(call, request_.key_number, context_.server.service));
  auto format = call.format(group.accepted());
  return PreparedGeneration{.group = std::move(group), .format = std::move(format), .stream = call.stream};
}

asio::awaitable<void> Session::Generate() {
  const auto& action = std::get<api::Generate>(route_.row->action);
  auto prepared = co_await OnWorker([&] { return Prepare(action); });
  request_.body = std::string();
  budget_.Release();
  if (!prepared.has_value()) {
    api::HttpReply reply = Error(prepared.error());
    co_await Reply(std::move(reply));
    co_return;
  }
  if (prepared->reply) {
    api::HttpReply reply = *std::move(prepared->reply);
    co_await Reply(std::move(reply));
    co_return;
  }
  GenerationGroup& group = prepared->group;
  record_.model = group.model_name();
  record_.prompt_tokens = group.prompt_tokens();
  {
    const WakerScope scope(connection_->signal());
    group.SetWaker([waker = scope.waker()] { waker->Wake(); });
    connection_->StartWatch();
    if (prepared->stream) co_await Stream(*prepared);
    else co_await Collect(*prepared);
    co_await connection_->StopWatch();
  }
  context_.server.metrics.CountGeneration({.model = record_.model,
                                           .outcome = record_.outcome,
                                           .prompt_tokens = record_.prompt_tokens,
                                           .cached_prompt_tokens = record_.cached_prompt_tokens,
                                           .completion_tokens = record_.completion_tokens,
                                           .first_token_s = record_.first_token_s,
                                           .total_s = SecondsSince(start_),
                                           .tokens_per_s = record_.TokensPerSecond()});
}

// Wakes are not lost, unless memory for one was.
std::chrono::milliseconds Session::LookAgain() const {
  return std::chrono::milliseconds(context_.options.ping_interval_ms);
}

void Session::NoteTerminal(const GenerationGroup& group, const service::GenerationEvent& event) {
  if (event.kind == service::GenerationEvent::Kind::kDone) {
    const service::Usage& usage = group.usage();
    record_.outcome = "done";
    record_.prompt_tokens = usage.prompt_tokens;
    record_.cached_prompt_tokens = usage.cached_prompt_tokens;
    record_.completion_tokens = usage.completion_tokens;
    record_.first_token_s = usage.first_token_s;
    record_.total_s = usage.total_s;
    return;
  }
  const bool failed = event.kind == service::GenerationEvent::Kind::kError;
  record_.outcome = failed ? "error" : "cancelled";
  if (failed) record_.error = event.error.message();
}

void Session::NoteGone(GenerationGroup& group) {
  group.Cancel();
  record_.outcome = "cancelled";
  record_.status = 499;
  record_.error = "the client closed the connection";
  record_.completion_tokens = group.generated_tokens();
}

api::HttpReply Session::WholeAnswer(PreparedGeneration& prepared, const service::GenerationEvent& terminal) {
  if (terminal.kind == service::GenerationEvent::Kind::kError) return Error(terminal.error);
  if (terminal.kind == service::GenerationEvent::Kind::kCancelled) return Error(ShuttingDown());
  api::HttpReply reply;
  reply.body = DumpJson(prepared.format->Finish());
  return reply;
}

asio::awaitable<void> Session::Collect(PreparedGeneration& prepared) {
  GenerationGroup& group = prepared.group;
  bool cancelled = false;
  while (true) {
    while (auto next = group.TryNext()) {
      prepared.format->Add(next->choice, next->event);
      if (!group.over()) continue;
      NoteTerminal(group, next->event);
      api::HttpReply reply = WholeAnswer(prepared, next->event);
      co_await Reply(std::move(reply));
      co_return;
    }
    if (connection_->gone()) {
      NoteGone(group);
      co_return;
    }
    if (cut_off_ && !cancelled) {
      group.Cancel();
      cancelled = true;
    }
    co_await connection_->signal()->WaitUntil(Clock::now() + LookAgain());
  }
}

bool Session::TakeEvents(PreparedGeneration& prepared, std::string& bytes) {
  GenerationGroup& group = prepared.group;
  const Status failure = Guarded([&] {
    while (bytes.size() < kWriteBytesTarget) {
      auto next = group.TryNext();
      if (!next) break;
      if (group.over()) NoteTerminal(group, next->event);
      bytes += prepared.format->Write(next->choice, next->event);
    }
  });
  if (failure.ok()) return group.over();
  context_.server.logger.Error("a stream ended by an exception",
                               {{"id", request_.id}, {"route", route_.pattern}, {"exception", failure.message()}});
  group.Cancel();
  service::GenerationEvent last;
  last.kind = service::GenerationEvent::Kind::kError;
  last.error = Internal("the server failed while it handled this request");
  NoteTerminal(group, last);
  bytes += prepared.format->Write(0, last);
  return true;
}

asio::awaitable<void> Session::Stream(PreparedGeneration& prepared) {
  const auto ping_interval = std::chrono::milliseconds(context_.options.ping_interval_ms);
  const auto long_interval = std::chrono::milliseconds(context_.options.claude_keep_alive_ms);
  GenerationGroup& group = prepared.group;
  if (!request_.http_1_1) close_after_ = true;
  record_.status = 200;
  std::string first = FormatStreamHead(ReplyHead(), prepared.format->StreamType());
  const std::string start = prepared.format->Start();
  first += request_.http_1_1 ? FormatChunk(start) : start;
  answer_begun_ = true;
  bool alive = co_await connection_->Write(first);
  auto last_sent = Clock::now();
  auto last_event = last_sent;  // what is no ping
  bool cancelled = false;
  while (alive && !connection_->gone()) {
    if (cut_off_ && !cancelled) group.Cancel();
    cancelled = cut_off_;
    std::string events;
    const bool over = TakeEvents(prepared, events);
    const auto now = Clock::now();
    if (!events.empty()) {
      last_event = now;
    } else if (!over && now - last_event >= long_interval) {
      events = prepared.format->LongKeepAlive();
      last_event = now;
    }
    if (events.empty() && !over && now - last_sent >= ping_interval) {
      events = prepared.format->Ping();
      last_sent = now;  // also where the dialect has no ping
    }
    if (events.empty() && !over) {
      co_await connection_->signal()->WaitUntil(std::min(last_sent + ping_interval, last_event + long_interval));
      continue;
    }
    alive = co_await WriteStream(std::move(events), over);
    last_sent = Clock::now();
    if (over) co_return;
  }
  NoteGone(group);
}

asio::awaitable<bool> Session::WriteStream(std::string events, bool last) {
  if (request_.http_1_1) {
    events = FormatChunk(events);
    if (last) events += kLastChunk;
  }
  co_return co_await connection_->Write(events);
}

asio::awaitable<void> Session::Embed() {
  const auto& action = std::get<api::Embed>(route_.row->action);
  auto translated = co_await OnWorker([&] { return action.translate(Call()); });
  request_.body = std::string();
  budget_.Release();
  if (!translated.has_value()) {
    api::HttpReply reply = Error(translated.error());
    co_await Reply(std::move(reply));
    co_return;
  }
  if (translated->reply) {
    api::HttpReply reply = *std::move(translated->reply);
    co_await Reply(std::move(reply));
    co_return;
  }
  const size_t texts = translated->request.texts.size() + translated->request.token_ids.size();
  auto result = co_await AwaitEmbedding(std::move(translated->request));
  EmbeddingMetrics counted{
      .ok = result.has_value(), .texts = static_cast<int64_t>(texts), .total_s = SecondsSince(start_)};
  if (result.has_value()) {
    record_.model = result->model_name;
    record_.prompt_tokens = counted.prompt_tokens = result->prompt_tokens;
    for (const service::TextTokens& tokens : result->tokens) {
      record_.prompt_tokens_seen += tokens.seen;
      record_.truncated_texts += tokens.truncated() ? 1 : 0;
    }
    record_.outcome = "done";
    api::HttpReply reply = co_await OnWorker([&] { return translated->format(*result); });
    co_await Reply(std::move(reply));
  } else if (connection_->gone()) {
    record_.outcome = "cancelled";
    record_.status = 499;
    record_.error = "the client closed the connection";
  } else {
    const Status error = result.error().code() == StatusCode::kCancelled ? ShuttingDown() : result.error();
    counted.busy = error.reason() == ErrorReason::kQueueFull || error.reason() == ErrorReason::kMemoryPressure;
    api::HttpReply reply = Error(error);
    co_await Reply(std::move(reply));
  }
  context_.server.metrics.CountEmbedding(counted);
}

asio::awaitable<Result<service::EmbedResult>> Session::AwaitEmbedding(service::EmbedRequest call) {
  struct Shared {
    Mutex mutex;
    std::optional<Result<service::EmbedResult>> result PENSIEVE_GUARDED_BY(mutex);
  };
  const auto shared = std::make_shared<Shared>();
  const WakerScope scope(connection_->signal());
  auto done = [shared, waker = scope.waker()](Result<service::EmbedResult> result) {
    {
      const MutexLock lock(shared->mutex);
      shared->result.emplace(std::move(result));
    }
    waker->Wake();
  };
  const auto cancel =
      co_await OnWorker([&] { return context_.server.service.Embed(std::move(call), std::move(done)); });
  std::optional<Result<service::EmbedResult>> result;
  connection_->StartWatch();
  bool cancelled = false;
  while (!result) {
    {
      const MutexLock lock(shared->mutex);
      result.swap(shared->result);
    }
    if (result) break;
    if (connection_->gone()) result.emplace(Cancelled("the client closed the connection"));
    if ((connection_->gone() || cut_off_) && !cancelled) {
      cancel();
      cancelled = true;
    }
    if (!result) co_await connection_->signal()->WaitUntil(Clock::now() + LookAgain());
  }
  co_await connection_->StopWatch();
  co_return *std::move(result);
}

api::HttpReply Session::Error(const Status& status) {
  api::ErrorContext error{.request_id = request_.id, .memory_status = "", .memory_available_gb = 0};
  if (status.reason() == ErrorReason::kMemoryPressure) {
    const service::Health health = context_.server.service.GetHealth();
    error.memory_status = health.memory_status;
    error.memory_available_gb = health.memory_available_gb;
  }
  record_.error = status.message();
  return api::ErrorReply(status, route_.dialect->errors, error);
}

HeadOptions Session::ReplyHead() const {
  return {.http_1_1 = request_.http_1_1,
          .close = close_after_,
          .keep_alive = !request_.http_1_1,
          .head_only = request_.method == "HEAD",
          .request_id = request_.id,
          .x_request_id = route_.dialect->x_request_id,
          .headers = request_.method == "OPTIONS" ? std::vector<std::pair<std::string, std::string>>()
                                                  : CorsHeaders(request_, context_.options, false)};
}

asio::awaitable<void> Session::Reply(api::HttpReply reply) {
  if (context_.stopping) close_after_ = true;
  record_.status = reply.status;
  if (record_.outcome.empty())
    record_.outcome = reply.status < 400 ? "done" : IsRefusal(reply.status) ? "refused" : "error";
  const std::string bytes = FormatReply(reply, ReplyHead());
  answer_begun_ = true;
  co_await connection_->Write(bytes);
}

void Session::FinishRecord() {
  const double seconds = SecondsSince(start_);
  if (record_.outcome.empty()) {
    record_.outcome = "cancelled";
    record_.status = 499;
  }
  if (record_.total_s == 0) record_.total_s = seconds;
  record_.method = KnownMethod(request_.method);
  record_.route = route_.pattern;
  context_.server.metrics.CountHttp(record_.method, record_.route, record_.status, seconds);
  if (route_.server != ServerRoute::kNone && record_.outcome == "done" &&
      !context_.server.logger.Enabled(LogLevel::kDebug))
    return;
  LogRequest(context_.server.logger, record_);
}

void Session::CloseIfIdle() {
  asio::post(connection_->signal()->strand(), [self = shared_from_this()] {
    if (self->idle_) self->connection_->Close();
  });
}

void Session::CutOff() {
  asio::post(connection_->signal()->strand(), [self = shared_from_this()] {
    self->cut_off_ = true;
    self->connection_->signal()->Notify();
  });
}

void Session::Abort() {
  asio::post(connection_->signal()->strand(), [self = shared_from_this()] { self->connection_->Abort(); });
}

}  // namespace pensieve::http
