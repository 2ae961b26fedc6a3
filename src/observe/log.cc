#include "observe/log.h"

#include <ctime>
#include <ostream>

#include <spdlog/logger.h>
#include <spdlog/sinks/ostream_sink.h>
#include <spdlog/sinks/stdout_color_sinks.h>

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
    if (c < 0x20)
      shown += fmt::format("\\x{:02x}", static_cast<uint32_t>(c));
    else if (IsUnsafe(c))
      shown += fmt::format("\\u{:04x}", static_cast<uint32_t>(c));
    else
      shown.append(valid, begin, at - begin);
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

class SpdlogLogger final : public Logger {
 public:
  SpdlogLogger(spdlog::sink_ptr sink, size_t level, bool json) : logger_("pensieve", std::move(sink)), json_(json) {
    logger_.set_level(kSpdlogLevels[level]);
    logger_.flush_on(spdlog::level::trace);
    logger_.set_pattern(json ? "%v" : "%H:%M:%S.%e %^%-5l%$ %v");
    // A full disk or a closed pipe must not turn into more output.
    logger_.set_error_handler([](const std::string&) {});
  }

  bool Enabled(LogLevel level) const override { return logger_.should_log(kSpdlogLevels[static_cast<size_t>(level)]); }

  void Log(LogLevel level, std::string_view message, const LogFields& fields) override {
    if (!Enabled(level)) return;
    const std::string line = json_ ? JsonLine(level, message, fields) : PrettyLine(message, fields);
    logger_.log(kSpdlogLevels[static_cast<size_t>(level)], spdlog::string_view_t(line.data(), line.size()));
  }

 private:
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

  spdlog::logger logger_;
  const bool json_;
};

}  // namespace

Result<std::unique_ptr<Logger>> Logger::Create(const LogOptions& options) {
  if (options.format != "pretty" && options.format != "json")
    return InvalidArgument(fmt::format("log format {} is neither pretty nor json", options.format));
  for (size_t level = 0; level < std::size(kLevelNames); ++level) {
    if (options.level != kLevelNames[level]) continue;
    spdlog::sink_ptr sink;
    if (options.stream != nullptr)
      sink = std::make_shared<spdlog::sinks::ostream_sink_mt>(*options.stream);
    else
      sink = std::make_shared<spdlog::sinks::stderr_color_sink_mt>();
    return std::unique_ptr<Logger>(new SpdlogLogger(std::move(sink), level, options.format == "json"));
  }
  return InvalidArgument(fmt::format("log level {} is none of trace, debug, info, warn, error", options.level));
}

}  // namespace pensieve
