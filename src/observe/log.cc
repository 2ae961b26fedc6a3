#include "observe/log.h"

#include <pthread.h>

#include <ctime>
#include <deque>
#include <functional>
#include <ostream>
#include <thread>

#include <spdlog/logger.h>
#include <spdlog/sinks/ostream_sink.h>
#include <spdlog/sinks/stdout_color_sinks.h>

#include "base/mutex.h"
#include "base/utf8.h"

namespace pensieve {
namespace {

constexpr const char* kLevelNames[] = {"trace", "debug", "info", "warn", "error"};
constexpr spdlog::level::level_enum kSpdlogLevels[] = {spdlog::level::trace, spdlog::level::debug, spdlog::level::info,
                                                       spdlog::level::warn, spdlog::level::err};

// "2026-01-31T12:00:00.000Z"
std::string UtcNow() {
  const auto now = std::chrono::system_clock::now();
  const std::time_t seconds = std::chrono::system_clock::to_time_t(now);
  const auto ms = std::chrono::duration_cast<std::chrono::milliseconds>(now.time_since_epoch()).count() % 1000;
  std::tm utc{};
  gmtime_r(&seconds, &utc);
  char text[32];
  std::strftime(text, sizeof text, "%Y-%m-%dT%H:%M:%S", &utc);
  return fmt::format("{}.{:03}Z", text, ms);
}

// Characters that a terminal obeys or that reorder a line: controls of both kinds (C0 and C1, of which U+009B begins an
// escape sequence), line separators, and marks of writing direction.
bool IsUnsafe(char32_t c) {
  return c < 0x20 || (c >= 0x7f && c < 0xa0) || c == 0x061c || (c >= 0x200e && c <= 0x200f) ||
         (c >= 0x2028 && c <= 0x202e) || (c >= 0x2066 && c <= 0x2069);
}

// The text with unsafe characters as \xNN (C0) or \uNNNN, and U+FFFD for what is no UTF-8. JSON stays JSON.
std::string Visible(std::string_view text) {
  const std::string valid = ToValidUtf8(text);
  std::string shown;
  for (size_t at = 0; at < valid.size();) {
    const size_t begin = at;
    const char32_t c = NextCodePoint(valid, at);
    if (c < 0x20) shown += fmt::format("\\x{:02x}", static_cast<uint32_t>(c));
    else if (IsUnsafe(c)) shown += fmt::format("\\u{:04x}", static_cast<uint32_t>(c));
    else shown.append(valid, begin, at - begin);
  }
  return shown;
}

// A value as people read it: bare when it is one plain word, else as JSON.
std::string PrettyValue(const Json& value) {
  if (!value.is_string()) return Visible(DumpJson(value));
  const auto& text = value.get_ref<const std::string&>();
  const auto plain = [](unsigned char c) { return c > ' ' && c != '"' && c != '=' && c != '\\' && c < 0x7f; };
  return !text.empty() && std::all_of(text.begin(), text.end(), plain) ? text : Visible(DumpJson(value));
}

struct Line {
  spdlog::level::level_enum level = spdlog::level::info;
  std::string text;
};

// A queue of lines and the thread that writes them. The thread shares the state, so that it may stay behind in a write
// that never ends when its owner goes.
class LineWriter {
 public:
  LineWriter(std::shared_ptr<spdlog::logger> logger, std::function<std::string(int64_t)> dropped_line, size_t capacity)
      : state_(std::make_shared<State>(std::move(logger), std::move(dropped_line), capacity)),
        thread_([state = state_] { Run(*state); }) {}
  LineWriter(const LineWriter&) = delete;
  LineWriter& operator=(const LineWriter&) = delete;

  ~LineWriter() {
    {
      const MutexLock lock(state_->mutex);
      state_->closed = true;
    }
    state_->changed.notify_all();
    if (may_stay_behind && !Flush(std::chrono::seconds(1))) {
      thread_.detach();
    } else {
      thread_.join();
    }
  }

  // Never waits for I/O.
  void Push(Line line) {
    {
      const MutexLock lock(state_->mutex);
      if (state_->lines.size() >= state_->capacity) {
        ++state_->dropped;
        return;
      }
      state_->lines.push_back(std::move(line));
    }
    state_->changed.notify_all();
  }

  bool Flush(std::chrono::milliseconds timeout) {
    MutexLock lock(state_->mutex);
    return state_->changed.wait_for(
        lock, timeout, [this]() PENSIEVE_REQUIRES(state_->mutex) { return state_->lines.empty() && !state_->writing; });
  }

  bool may_stay_behind = false;  // set before the first Push

 private:
  struct State {
    State(std::shared_ptr<spdlog::logger> l, std::function<std::string(int64_t)> d, size_t c)
        : logger(std::move(l)), dropped_line(std::move(d)), capacity(c) {}
    const std::shared_ptr<spdlog::logger> logger;
    const std::function<std::string(int64_t)> dropped_line;
    const size_t capacity;
    Mutex mutex;
    Condition changed;
    std::deque<Line> lines PENSIEVE_GUARDED_BY(mutex);
    int64_t dropped PENSIEVE_GUARDED_BY(mutex) = 0;  // since the last warning about it
    bool writing PENSIEVE_GUARDED_BY(mutex) = false;
    bool closed PENSIEVE_GUARDED_BY(mutex) = false;
  };

  static void Run(State& state) {
#ifdef __linux__
    pthread_setname_np(pthread_self(), "log");
#endif
    MutexLock lock(state.mutex);
    while (true) {
      state.changed.wait(lock, [&]() PENSIEVE_REQUIRES(state.mutex) { return state.closed || !state.lines.empty(); });
      if (state.lines.empty()) return;
      Line line = std::move(state.lines.front());
      state.lines.pop_front();
      state.writing = true;
      lock.unlock();
      state.logger->log(line.level, spdlog::string_view_t(line.text.data(), line.text.size()));
      lock.lock();
      // The count stands behind the last line that was kept before the gap.
      if (state.lines.empty() && state.dropped > 0) {
        state.lines.push_back({spdlog::level::warn, state.dropped_line(std::exchange(state.dropped, 0))});
      }
      state.writing = false;
      state.changed.notify_all();
    }
  }

  std::shared_ptr<State> state_;
  std::thread thread_;
};

class SpdlogLogger final : public Logger {
 public:
  SpdlogLogger(spdlog::sink_ptr sink, size_t level, const LogOptions& options)
      : logger_(std::make_shared<spdlog::logger>("pensieve", std::move(sink))), json_(options.format == "json") {
    logger_->set_level(kSpdlogLevels[level]);
    logger_->flush_on(spdlog::level::trace);
    logger_->set_pattern(json_ ? "%v" : "%H:%M:%S.%e %^%-5l%$ %v");
    // A full disk or a closed pipe must not turn into more output.
    logger_->set_error_handler([](const std::string&) {});
    if (options.lines_waiting_max <= 0) return;
    writer_ = std::make_unique<LineWriter>(
        logger_,
        [json = json_](int64_t count) {
          return Format(json, LogLevel::kWarn, "log lines were dropped: nobody read them in time", {{"lines", count}});
        },
        static_cast<size_t>(options.lines_waiting_max));
    writer_->may_stay_behind = options.stream == nullptr;
  }

  bool Enabled(LogLevel level) const override { return logger_->should_log(kSpdlogLevels[static_cast<size_t>(level)]); }

  bool Flush(std::chrono::milliseconds timeout) override { return !writer_ || writer_->Flush(timeout); }

  void Log(LogLevel level, std::string_view message, const LogFields& fields) override {
    if (!Enabled(level)) return;
    const auto spdlog_level = kSpdlogLevels[static_cast<size_t>(level)];
    std::string line = Format(json_, level, message, fields);
    if (writer_) return writer_->Push({spdlog_level, std::move(line)});
    logger_->log(spdlog_level, spdlog::string_view_t(line.data(), line.size()));
  }

 private:
  static std::string Format(bool json, LogLevel level, std::string_view message, const LogFields& fields) {
    return json ? JsonLine(level, message, fields) : PrettyLine(message, fields);
  }

  static std::string JsonLine(LogLevel level, std::string_view message, const LogFields& fields) {
    Json line;
    line["time"] = UtcNow();
    line["level"] = kLevelNames[static_cast<size_t>(level)];
    line["message"] = std::string(message);
    for (const auto& [name, value] : fields) line[std::string(name)] = value;
    return Visible(DumpJson(line));
  }

  static std::string PrettyLine(std::string_view message, const LogFields& fields) {
    std::string line = Visible(message);
    for (const auto& [name, value] : fields) line += fmt::format(" {}={}", name, PrettyValue(value));
    return line;
  }

  const std::shared_ptr<spdlog::logger> logger_;
  const bool json_;
  std::unique_ptr<LineWriter> writer_;  // null: callers write
};

}  // namespace

Result<std::unique_ptr<Logger>> Logger::Create(const LogOptions& options) {
  if (options.format != "pretty" && options.format != "json")
    return InvalidArgument(fmt::format("log format {} is neither pretty nor json", options.format));
  for (size_t level = 0; level < std::size(kLevelNames); ++level) {
    if (options.level != kLevelNames[level]) continue;
    spdlog::sink_ptr sink;
    if (options.stream != nullptr) sink = std::make_shared<spdlog::sinks::ostream_sink_mt>(*options.stream);
    else
      sink = std::make_shared<spdlog::sinks::stderr_color_sink_mt>(options.colour ? spdlog::color_mode::automatic
                                                                                  : spdlog::color_mode::never);
    return std::unique_ptr<Logger>(new SpdlogLogger(std::move(sink), level, options));
  }
  return InvalidArgument(fmt::format("log level {} is none of trace, debug, info, warn, error", options.level));
}

}  // namespace pensieve
