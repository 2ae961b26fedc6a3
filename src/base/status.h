// Errors are values: Status says what went wrong, Result<T> is a value or a Status.
//
// Codes and numbers are gRPC's canonical ones, so both transports map them by one table. A message is one
// sentence that names the place (file, field, request part). `reason` names the few causes that a dialect
// words or numbers specially; everything else is decided by the code alone.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <variant>

#include "base/check.h"

namespace pensieve {

enum class StatusCode : uint8_t {
  kOk = 0,
  kCancelled = 1,
  kUnknown = 2,
  kInvalidArgument = 3,
  kDeadlineExceeded = 4,
  kNotFound = 5,
  kAlreadyExists = 6,
  kPermissionDenied = 7,
  kResourceExhausted = 8,
  kFailedPrecondition = 9,
  kAborted = 10,
  kOutOfRange = 11,
  kUnimplemented = 12,
  kInternal = 13,
  kUnavailable = 14,
  kDataLoss = 15,
  kUnauthenticated = 16,
};

// "INVALID_ARGUMENT" and so on, gRPC's spelling.
const char* StatusCodeName(StatusCode code);

// Causes that some dialect answers in words or numbers of its own.
enum class ErrorReason : uint8_t {
  kNone,
  kPromptTooLong,     // Anthropic: "prompt is too long: ..." with 400
  kBodyTooLarge,      // 413
  kQueueFull,         // 429 / 529 / AkiDB's 503, with retry_after_ms
  kMemoryPressure,    // 503 and the x-memory-* headers
  kShuttingDown,      // 503
  kUnsupportedMedia,  // 415
  kMethodNotAllowed,  // 405
};

class [[nodiscard]] Status {
 public:
  Status() = default;  // OK
  Status(StatusCode code, std::string message) : code_(code), message_(std::move(message)) {}

  bool ok() const { return code_ == StatusCode::kOk; }
  StatusCode code() const { return code_; }
  const std::string& message() const { return message_; }
  ErrorReason reason() const { return reason_; }
  // How long the caller should wait before it tries again; 0 when that is unknown.
  int64_t retry_after_ms() const { return retry_after_ms_; }

  Status&& WithReason(ErrorReason reason) && {
    reason_ = reason;
    return std::move(*this);
  }
  Status&& WithRetryAfterMs(int64_t ms) && {
    retry_after_ms_ = ms;
    return std::move(*this);
  }
  // The same error with "context: " before its message. Added once, where the place is known.
  Status WithContext(const std::string& context) const;

  // "INVALID_ARGUMENT: message", for logs and tests.
  std::string ToString() const;

  bool operator==(const Status&) const = default;

 private:
  StatusCode code_ = StatusCode::kOk;
  ErrorReason reason_ = ErrorReason::kNone;
  int64_t retry_after_ms_ = 0;
  std::string message_;
};

inline Status OkStatus() { return Status(); }
inline Status Cancelled(std::string m) { return {StatusCode::kCancelled, std::move(m)}; }
inline Status InvalidArgument(std::string m) { return {StatusCode::kInvalidArgument, std::move(m)}; }
inline Status DeadlineExceeded(std::string m) { return {StatusCode::kDeadlineExceeded, std::move(m)}; }
inline Status NotFound(std::string m) { return {StatusCode::kNotFound, std::move(m)}; }
inline Status ResourceExhausted(std::string m) { return {StatusCode::kResourceExhausted, std::move(m)}; }
inline Status FailedPrecondition(std::string m) { return {StatusCode::kFailedPrecondition, std::move(m)}; }
inline Status Unimplemented(std::string m) { return {StatusCode::kUnimplemented, std::move(m)}; }
inline Status Internal(std::string m) { return {StatusCode::kInternal, std::move(m)}; }
inline Status Unavailable(std::string m) { return {StatusCode::kUnavailable, std::move(m)}; }
// For untrusted files: truncated, corrupt, inconsistent.
inline Status DataLoss(std::string m) { return {StatusCode::kDataLoss, std::move(m)}; }
inline Status Unauthenticated(std::string m) { return {StatusCode::kUnauthenticated, std::move(m)}; }

// A T or the error that prevented it. Method names follow std::expected, so a later switch is an alias.
template <typename T>
class [[nodiscard]] Result {
 public:
  using value_type = T;

  Result(T value) : state_(std::in_place_index<0>, std::move(value)) {}      // NOLINT: implicit on purpose
  Result(Status error) : state_(std::in_place_index<1>, std::move(error)) {  // NOLINT: implicit on purpose
    PENSIEVE_CHECK(!std::get<1>(state_).ok());
  }

  bool has_value() const { return state_.index() == 0; }
  explicit operator bool() const { return has_value(); }
  const Status& error() const& { return std::get<1>(state_); }
  Status&& error() && { return std::get<1>(std::move(state_)); }
  // OK or the error: for code that only passes it on.
  Status status() const { return has_value() ? OkStatus() : error(); }

  T& operator*() & {
    PENSIEVE_CHECK(has_value());
    return std::get<0>(state_);
  }
  const T& operator*() const& {
    PENSIEVE_CHECK(has_value());
    return std::get<0>(state_);
  }
  T&& operator*() && {
    PENSIEVE_CHECK(has_value());
    return std::get<0>(std::move(state_));
  }
  T* operator->() { return &**this; }
  const T* operator->() const { return &**this; }

 private:
  std::variant<T, Status> state_;
};

}  // namespace pensieve

#define PENSIEVE_CONCAT_INNER(a, b) a##b
#define PENSIEVE_CONCAT(a, b) PENSIEVE_CONCAT_INNER(a, b)

// PENSIEVE_TRY(const auto config, ReadConfig(path)); returns the error early, or binds the value.
#define PENSIEVE_TRY(declaration, expression)                                                                        \
  auto PENSIEVE_CONCAT(result_, __LINE__) = (expression);                                                            \
  if (!PENSIEVE_CONCAT(result_, __LINE__).has_value()) return std::move(PENSIEVE_CONCAT(result_, __LINE__)).error(); \
  declaration = *std::move(PENSIEVE_CONCAT(result_, __LINE__))

#define PENSIEVE_RETURN_IF_ERROR(expression)                        \
  do {                                                              \
    if (auto status_ = (expression); !status_.ok()) return status_; \
  } while (false)
