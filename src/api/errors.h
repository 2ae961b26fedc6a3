// One table from Status to HTTP, and the error bodies of each dialect.
#pragma once

#include <string>

#include "api/reply.h"
#include "base/json.h"
#include "base/status.h"

namespace pensieve::api {

enum class Dialect : uint8_t { kAnthropic, kOpenAi, kAkiDb };

// Facts around an error that its Status does not carry.
struct ErrorContext {
  std::string request_id = {};
  std::string memory_status = {};      // with kMemoryPressure: the x-memory-status header
  double memory_available_gb = 0;    // ... and x-available-memory-gb
};

// The HTTP status a dialect gives to `status`, which is no OK:
//   InvalidArgument, OutOfRange, FailedPrecondition, Unimplemented 400 (AkiDB: FailedPrecondition 422, its answer to a
//   body of the wrong types); Unauthenticated 401; PermissionDenied 403; NotFound 404; AlreadyExists, Aborted 409;
//   ResourceExhausted 429; Cancelled 499; Unavailable 503; DeadlineExceeded 504; all others 500.
//   Reasons first: body too large 413, media type 415, method 405, memory and shutdown 503, queue full 429 (Anthropic
//   529, AkiDB 503).
int HttpStatus(const Status& status, Dialect dialect);

// The complete error answer, with retry-after and x-memory-* headers where they belong.
HttpReply ErrorReply(const Status& status, Dialect dialect, const ErrorContext& context);

// Only the JSON body, for errors inside a stream:
//   Anthropic {"type":"error","error":{"type","message"},"request_id"}, OpenAI
//   {"error":{"message","type","param","code"}}, AkiDB {"error": message}.
Json ErrorBody(const Status& status, Dialect dialect, const std::string& request_id);

}  // namespace pensieve::api
