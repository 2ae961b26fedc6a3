#include "api/errors.h"

#include <fmt/format.h>

#include <algorithm>

namespace pensieve::api {
namespace {

bool IsRetryable(int http_status) { return http_status == 429 || http_status == 503 || http_status == 529; }

int CodeToHttp(StatusCode code, const ErrorShape& shape) {
  switch (code) {
    case StatusCode::kInvalidArgument:
    case StatusCode::kOutOfRange:
    case StatusCode::kUnimplemented: return 400;
    case StatusCode::kFailedPrecondition: return shape.wrong_types;
    case StatusCode::kUnauthenticated: return 401;
    case StatusCode::kPermissionDenied: return 403;
    case StatusCode::kNotFound: return 404;
    case StatusCode::kAlreadyExists:
    case StatusCode::kAborted: return 409;
    case StatusCode::kResourceExhausted: return 429;
    case StatusCode::kCancelled: return 499;
    case StatusCode::kUnavailable: return 503;
    case StatusCode::kDeadlineExceeded: return 504;
    default: return 500;
  }
}

}  // namespace

int HttpStatus(const Status& status, const ErrorShape& shape) {
  switch (status.reason()) {
    case ErrorReason::kBodyTooLarge: return 413;
    case ErrorReason::kUnsupportedMedia: return 415;
    case ErrorReason::kMethodNotAllowed: return 405;
    case ErrorReason::kMemoryPressure:
    case ErrorReason::kShuttingDown: return 503;
    case ErrorReason::kQueueFull: return shape.queue_full;
    default: return CodeToHttp(status.code(), shape);
  }
}

Json ErrorBody(const Status& status, const ErrorShape& shape, const std::string& request_id) {
  return shape.body(status, HttpStatus(status, shape), request_id);
}

HttpReply ErrorReply(const Status& status, const ErrorShape& shape, const ErrorContext& context) {
  return ErrorReplyAs(HttpStatus(status, shape), status, shape, context);
}

HttpReply ErrorReplyAs(int http_status, const Status& status, const ErrorShape& shape, const ErrorContext& context) {
  HttpReply reply;
  reply.status = http_status;
  reply.body = DumpJson(shape.body(status, http_status, context.request_id));
  if (IsRetryable(reply.status)) {
    const int64_t wait_ms = std::max<int64_t>(status.retry_after_ms(), 0);
    reply.headers.emplace_back("retry-after", std::to_string(std::max<int64_t>(1, (wait_ms + 999) / 1000)));
    if (wait_ms > 0 && shape.retry_after_ms) reply.headers.emplace_back("retry-after-ms", std::to_string(wait_ms));
  }
  if (status.reason() == ErrorReason::kMemoryPressure) {
    reply.headers.emplace_back("x-memory-status", context.memory_status);
    reply.headers.emplace_back("x-available-memory-gb", fmt::format("{:.2f}", context.memory_available_gb));
  }
  return reply;
}

}  // namespace pensieve::api
