// The routes that generate text: request bodies to running generations and their answers. Private to http/.
#pragma once

#include <memory>
#include <string>

#include "api/errors.h"
#include "api/reply.h"
#include "base/status.h"
#include "http/request.h"
#include "http/routes.h"
#include "service/service.h"

namespace pensieve::http {

// One dialect's way of answering one generation, whole or as a stream. Not thread-safe.
class AnswerFormat {
 public:
  virtual ~AnswerFormat() = default;
  // Whole: feed every event up to kDone, then Finish.
  virtual void Add(const service::GenerationEvent& event) = 0;
  virtual Json Finish() = 0;
  // Streamed: bytes of whole server-sent events, possibly none.
  virtual std::string Start() = 0;
  virtual std::string Write(const service::GenerationEvent& event) = 0;
  virtual std::string Ping() const = 0;
  // What some clients need beside pings; "" for most.
  virtual std::string LongKeepAlive() const = 0;
};

struct PreparedGeneration {
  std::unique_ptr<service::Generation> generation;
  std::unique_ptr<AnswerFormat> format;
  bool stream = false;
};

// Parses the body, renders, tokenizes and submits: milliseconds of work, for a worker thread. The route must be one of
// kMessages, kChatCompletions, kCompletions.
Result<PreparedGeneration> PrepareGeneration(const Request& request, RouteId route, service::Service& service);

// POST /v1/messages/count_tokens. For a worker thread.
Result<api::HttpReply> CountTokens(const Request& request, service::Service& service);

}  // namespace pensieve::http
