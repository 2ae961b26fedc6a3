// The structured log: a message and named values per line, either for people (colours on a terminal) or as one JSON
// object. Goes to stderr, so that stdout stays for answers. Never given a prompt, an answer or a key unless the
// setting logging.prompts asks for it.
#pragma once

#include <chrono>
#include <cstdint>
#include <iosfwd>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/json.h"
#include "base/status.h"

namespace pensieve {

enum class LogLevel : uint8_t { kTrace, kDebug, kInfo, kWarn, kError };

struct LogOptions {
  std::string level = "info";      // trace, debug, info, warn, error
  std::string format = "pretty";   // pretty, json
  std::ostream* stream = nullptr;  // instead of stderr; must outlive the Logger
  bool colour = true;              // where stderr is a terminal that knows colours
  // > 0: a thread of the Logger's own writes, and so many lines may wait for it. What comes while all places are taken
  // is dropped and counted; a warning with the count follows when there is room again. 0: the caller writes.
  int64_t lines_waiting_max = 0;
};

// Named values in the order they are shown.
using LogFields = std::vector<std::pair<std::string_view, Json>>;

// Thread-safe. Each line is written whole, in the order of the calls; with lines_waiting_max no call waits for a slow
// reader of stderr. Its end waits for the lines that are left, for a second at most when they go to stderr.
class Logger {
 public:
  // InvalidArgument for an unknown level or format.
  static Result<std::unique_ptr<Logger>> Create(const LogOptions& options);
  virtual ~Logger() = default;

  virtual bool Enabled(LogLevel level) const = 0;
  // Waits until all lines so far are written, up to `timeout`; false when they are not.
  virtual bool Flush(std::chrono::milliseconds timeout) = 0;
  // JSON: {"time":"2026-01-31T12:00:00.000Z","level":"info","message":...,<fields>}. Pretty: time, level, message and
  // name=value pairs, where control characters are escaped: no value can forge a second line.
  virtual void Log(LogLevel level, std::string_view message, const LogFields& fields = {}) = 0;

  void Debug(std::string_view message, const LogFields& fields = {}) { Log(LogLevel::kDebug, message, fields); }
  void Info(std::string_view message, const LogFields& fields = {}) { Log(LogLevel::kInfo, message, fields); }
  void Warn(std::string_view message, const LogFields& fields = {}) { Log(LogLevel::kWarn, message, fields); }
  void Error(std::string_view message, const LogFields& fields = {}) { Log(LogLevel::kError, message, fields); }
};

}  // namespace pensieve
