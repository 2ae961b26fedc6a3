// One table from Status to HTTP; each dialect says where it differs and gives the body.
#pragma once

#include <string>

#include "api/reply.h"
#include "base/json.h"
#include "base/status.h"

namespace pensieve::api {

// How a dialect tells of errors; a part of its row.
struct ErrorShape {
  int queue_full = 429;        // the HTTP status of a full queue
  int wrong_types = 400;       // FailedPrecondition: a body whose values have the wrong types
  bool retry_after_ms = true;  // a retry-after-ms header beside retry-after
  // The JSON body: of an answer with `http_status`, or of an error inside a stream. `request_id` may be empty.
  Json (*body)(const Status& status, int http_status, const std::string& request_id) = nullptr;
};

// Facts around an error that its Status does not carry.
struct ErrorContext {
  std::string request_id = {};
  std::string memory_status = {};  // with kMemoryPressure: the x-memory-status header
  double memory_available_gb = 0;  // ... and x-available-memory-gb
};

// The HTTP status a dialect gives to `status`, which is no OK:
//   InvalidArgument, OutOfRange, Unimplemented 400; FailedPrecondition the shape's `wrong_types`; Unauthenticated 401;
//   PermissionDenied 403; NotFound 404; AlreadyExists, Aborted 409; ResourceExhausted 429; Cancelled 499;
//   Unavailable 503; DeadlineExceeded 504; all others 500.
//   Reasons first: body too large 413, media type 415, method 405, memory and shutdown 503, queue full as the shape says.
int HttpStatus(const Status& status, const ErrorShape& shape);

// The complete error answer, with retry-after and x-memory-* headers where they belong.
HttpReply ErrorReply(const Status& status, const ErrorShape& shape, const ErrorContext& context);
// The same for an HTTP status that no Status code stands for: 408, 417, 431, 505.
HttpReply ErrorReplyAs(int http_status, const Status& status, const ErrorShape& shape, const ErrorContext& context);

// Only the JSON body, for errors inside a stream.
Json ErrorBody(const Status& status, const ErrorShape& shape, const std::string& request_id);

}  // namespace pensieve::api
