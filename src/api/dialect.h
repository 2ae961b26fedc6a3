// What a dialect is: a row of values that gives its routes, its errors and its translations. A new dialect is a folder
// with one such row and its entry in dialects.cc; nothing else names it.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "api/errors.h"
#include "api/http_request.h"
#include "api/record_store.h"
#include "api/reply.h"
#include "base/json.h"
#include "base/status.h"
#include "service/service.h"

namespace pensieve::api {

// What a route's function is given. Everything outlives the call.
struct RouteCall {
  const HttpRequest& request;
  const std::string& parameter;  // what stands for "{...}" in the route's path, percent-decoded
  service::Service& service;
  RecordStore& records;        // for what clients may ask for again
  const std::string& version;  // of this server
};

// How one answer is written, whole or as a stream. A request may have several choices, which are numbered from 0. Not
// thread-safe.
class AnswerFormat {
 public:
  virtual ~AnswerFormat() = default;
  // Whole: feed every event of every choice up to its kDone, then Finish. Not for errors.
  virtual void Add(size_t choice, const service::GenerationEvent& event) = 0;
  virtual Json Finish() = 0;
  // Streamed: bytes of whole records, possibly none. A kError or kCancelled ends the stream; else the kDone of the
  // last choice does.
  virtual std::string Start() = 0;
  virtual std::string Write(size_t choice, const service::GenerationEvent& event) = 0;
  virtual std::string_view StreamType() const { return "text/event-stream; charset=utf-8"; }
  // Keep-alive for silent stretches, which every client skips; "" where a dialect has none.
  virtual std::string Ping() const = 0;
  // What some clients need beside pings; "" for most.
  virtual std::string LongKeepAlive() const { return ""; }
};

// An accepted generation, as far as it is known before its first event.
struct Accepted {
  std::string model_name;  // the served model's own
  int64_t prompt_tokens = 0;
};

// A request for text, translated.
struct GenerationCall {
  // One for each choice, at least one.
  std::vector<std::variant<service::ChatRequest, service::CompletionRequest>> choices;
  bool stream = false;
  // An answer that needs no model: nothing else is looked at then.
  std::optional<HttpReply> reply = std::nullopt;
  // Called once all choices are accepted, with as many entries.
  std::function<std::unique_ptr<AnswerFormat>(const std::vector<Accepted>& accepted)> format;
};

// A request for vectors, translated.
struct EmbeddingCall {
  service::EmbedRequest request;
  std::optional<HttpReply> reply = std::nullopt;  // as above
  // Up to a hundred milliseconds for thousands of vectors, so for a worker thread.
  std::function<HttpReply(const service::EmbedResult&)> format;
};

// What a route does, by the thread it may take.
struct AnswerAtOnce {  // from an I/O thread: no lock of a model, no long work
  Result<HttpReply> (*answer)(const RouteCall& call) = nullptr;
};
struct AnswerOnWorker {  // from a worker thread, which may render and tokenize
  Result<HttpReply> (*answer)(const RouteCall& call) = nullptr;
};
struct Generate {  // translated on a worker thread; the transport submits and answers
  Result<GenerationCall> (*translate)(const RouteCall& call) = nullptr;
};
struct Embed {  // likewise
  Result<EmbeddingCall> (*translate)(const RouteCall& call) = nullptr;
};
using RouteAction = std::variant<AnswerAtOnce, AnswerOnWorker, Generate, Embed>;

struct Route {
  std::string_view methods;  // as the Allow header lists them: "GET, HEAD" or "POST"
  // A path without the slash at its end. One "{name}" stands for one or more bytes, slashes included: ids of models
  // hold them. Of two patterns that match, the first row counts.
  const char* path = "";
  RouteAction action;
  bool open = false;  // answered without an API key
};

struct Dialect {
  std::string_view name;
  // Whether a path that no row has, or that several dialects have, is answered in this dialect. The first dialect of
  // the table that says so is it.
  bool (*claims)(const HttpRequest& request) = nullptr;
  ErrorShape errors;
  bool x_request_id = false;        // a second name of the request-id header
  bool json_type_required = false;  // bodies need a JSON content type; the others take what curl -d sends
  std::span<const Route> routes;
};

// What the Allow header of a path says when several rows have it.
bool HasMethod(std::string_view methods, std::string_view method);
// Whether `path` has the pattern's form. Sets `parameter` to what stands for "{...}", still percent-encoded.
bool MatchesPath(std::string_view pattern, std::string_view path, std::string& parameter);

}  // namespace pensieve::api
