#include "api/errors.h"

#include <fmt/format.h>

#include <algorithm>

namespace pensieve::api {
namespace {

// The sentence AkiDB's published clients look for.
constexpr char kAkiDbBusy[] =
    "Embedding model is currently processing another request. Please retry with exponential backoff.";

const char* AnthropicType(int http_status) {
  switch (http_status) {
    case 401: return "authentication_error";
    case 402: return "billing_error";
    case 403: return "permission_error";
    case 404: return "not_found_error";
    case 409: return "conflict_error";
    case 413: return "request_too_large";
    case 408:
    case 504: return "timeout_error";
    case 429: return "rate_limit_error";
    case 503:
    case 529: return "overloaded_error";
    default: return http_status >= 500 ? "api_error" : "invalid_request_error";
  }
}

const char* OpenAiType(int http_status) {
  switch (http_status) {
    case 401: return "authentication_error";
    case 403: return "permission_error";
    case 404: return "not_found_error";
    case 429: return "rate_limit_error";
    case 503: return "overloaded_error";
    default: return http_status >= 500 ? "server_error" : "invalid_request_error";
  }
}

// "messages.0.content: must be ..." names its parameter in front of the first ": ".
Json OpenAiParam(const Status& status) {
  if (status.code() != StatusCode::kInvalidArgument && status.code() != StatusCode::kNotFound) return nullptr;
  const size_t colon = status.message().find(": ");
  if (colon == std::string::npos) return nullptr;
  const std::string path = status.message().substr(0, colon);
  const bool is_path = path.find_first_not_of("abcdefghijklmnopqrstuvwxyz_.0123456789") == std::string::npos;
  return is_path ? Json(path) : Json(nullptr);
}

Json OpenAiCode(const Status& status, int http_status) {
  if (status.reason() == ErrorReason::kPromptTooLong) return "context_length_exceeded";
  if (status.reason() == ErrorReason::kQueueFull) return "rate_limit_exceeded";
  if (http_status == 401) return "invalid_api_key";
  if (http_status == 404) return OpenAiParam(status) == "model" ? "model_not_found" : "unknown_url";
  return nullptr;
}

bool IsRetryable(int http_status) { return http_status == 429 || http_status == 503 || http_status == 529; }

int CodeToHttp(StatusCode code, Dialect dialect) {
  switch (code) {
    case StatusCode::kInvalidArgument:
    case StatusCode::kOutOfRange:
    case StatusCode::kUnimplemented: return 400;
    case StatusCode::kFailedPrecondition: return dialect == Dialect::kAkiDb ? 422 : 400;
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

int HttpStatus(const Status& status, Dialect dialect) {
  switch (status.reason()) {
    case ErrorReason::kBodyTooLarge: return 413;
    case ErrorReason::kUnsupportedMedia: return 415;
    case ErrorReason::kMethodNotAllowed: return 405;
    case ErrorReason::kMemoryPressure:
    case ErrorReason::kShuttingDown: return 503;
    case ErrorReason::kQueueFull:
      return dialect == Dialect::kAnthropic ? 529 : dialect == Dialect::kOpenAi ? 429 : 503;
    default: return CodeToHttp(status.code(), dialect);
  }
}

Json ErrorBody(const Status& status, Dialect dialect, const std::string& request_id) {
  const int http_status = HttpStatus(status, dialect);
  switch (dialect) {
    case Dialect::kAnthropic: {
      Json body = {{"type", "error"}, {"error", {{"type", AnthropicType(http_status)}, {"message", status.message()}}}};
      if (!request_id.empty()) body["request_id"] = request_id;
      return body;
    }
    case Dialect::kOpenAi:
      return {{"error",
               {{"message", status.message()},
                {"type", OpenAiType(http_status)},
                {"param", OpenAiParam(status)},
                {"code", OpenAiCode(status, http_status)}}}};
    case Dialect::kAkiDb:
      return {{"error", status.reason() == ErrorReason::kQueueFull ? std::string(kAkiDbBusy) : status.message()}};
  }
  PENSIEVE_UNREACHABLE();
}

HttpReply ErrorReply(const Status& status, Dialect dialect, const ErrorContext& context) {
  HttpReply reply;
  reply.status = HttpStatus(status, dialect);
  reply.body = DumpJson(ErrorBody(status, dialect, context.request_id));
  if (IsRetryable(reply.status)) {
    const int64_t wait_ms = std::max<int64_t>(status.retry_after_ms(), 0);
    reply.headers.emplace_back("retry-after", std::to_string(std::max<int64_t>(1, (wait_ms + 999) / 1000)));
    if (wait_ms > 0 && dialect != Dialect::kAkiDb)
      reply.headers.emplace_back("retry-after-ms", std::to_string(wait_ms));
  }
  if (status.reason() == ErrorReason::kMemoryPressure) {
    reply.headers.emplace_back("x-memory-status", context.memory_status);
    reply.headers.emplace_back("x-available-memory-gb", fmt::format("{:.2f}", context.memory_available_gb));
  }
  return reply;
}

}  // namespace pensieve::api
