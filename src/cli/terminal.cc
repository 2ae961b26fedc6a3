#include "cli/terminal.h"

#include <fmt/format.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cstdio>

#include "config/server_config.h"

namespace pensieve::cli {
namespace {

bool ColourWanted() {
  static const bool wanted = !config::ProcessEnvironment().contains("NO_COLOR");
  return wanted;
}

std::string Paint(Style style, std::string_view text, bool terminal) {
  if (!terminal || !ColourWanted()) return std::string(text);
  static constexpr std::array<const char*, 5> kCodes = {"1", "2", "31", "32", "36"};
  return fmt::format("\x1b[{}m{}\x1b[0m", kCodes[static_cast<size_t>(style)], text);
}

int TerminalColumns() {
  winsize size{};
  if (::ioctl(STDERR_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col > 0) return size.ws_col;
  return 80;
}

}  // namespace

bool StdoutIsTerminal() {
  static const bool terminal = ::isatty(STDOUT_FILENO) == 1;
  return terminal;
}

bool StderrIsTerminal() {
  static const bool terminal = ::isatty(STDERR_FILENO) == 1;
  return terminal;
}

std::string Styled(Style style, std::string_view text) { return Paint(style, text, StdoutIsTerminal()); }
std::string StyledError(Style style, std::string_view text) { return Paint(style, text, StderrIsTerminal()); }

int Fail(const Status& status) {
  fmt::print(stderr, "{} {}\n", StyledError(Style::kRed, "error:"), status.message());
  return 1;
}

std::string HumanBytes(int64_t bytes) {
  static constexpr std::array<const char*, 5> kUnits = {"bytes", "KiB", "MiB", "GiB", "TiB"};
  auto value = static_cast<double>(bytes);
  size_t unit = 0;
  while (value >= 1024 && unit + 1 < kUnits.size()) {
    value /= 1024;
    ++unit;
  }
  return unit == 0 ? fmt::format("{} bytes", bytes) : fmt::format("{:.1f} {}", value, kUnits[unit]);
}

std::string HumanCount(int64_t count) {
  const auto value = static_cast<double>(count);
  if (value >= 1e9) return fmt::format("{:.1f} B", value / 1e9);
  if (value >= 1e6) return fmt::format("{:.0f} M", value / 1e6);
  return fmt::format("{}", count);
}

ProgressBar::ProgressBar(std::string title)
    : title_(std::move(title)), terminal_(StderrIsTerminal()), started_(std::chrono::steady_clock::now()) {
  if (!terminal_) fmt::print(stderr, "{} ...\n", title_);
}

ProgressBar::~ProgressBar() {
  if (!finished_) Finish("stopped");
}

void ProgressBar::Update(int64_t done_bytes, int64_t total_bytes) {
  const auto now = std::chrono::steady_clock::now();
  if (!terminal_ || now - drawn_ < std::chrono::milliseconds(80)) return;
  drawn_ = now;
  if (first_bytes_ < 0) first_bytes_ = done_bytes;
  const double seconds = std::chrono::duration<double>(now - started_).count();
  const double rate = seconds > 0.2 ? static_cast<double>(done_bytes - first_bytes_) / seconds : 0;
  const std::string numbers =
      total_bytes > 0 ? fmt::format("{} / {}", HumanBytes(done_bytes), HumanBytes(total_bytes)) : HumanBytes(done_bytes);
  const std::string speed = rate > 0 ? fmt::format("  {}/s", HumanBytes(static_cast<int64_t>(rate))) : "";
  const auto room = TerminalColumns() - static_cast<int>(title_.size() + numbers.size() + speed.size()) - 9;
  const int width = std::clamp(room, 0, 40);
  const int filled = total_bytes > 0 ? static_cast<int>(width * done_bytes / total_bytes) : 0;
  fmt::print(stderr, "\r\x1b[K{}  [{}{}]  {}{}", title_, std::string(filled, '='), std::string(width - filled, ' '), numbers, speed);
  std::fflush(stderr);
}

void ProgressBar::Finish(std::string_view outcome) {
  finished_ = true;
  if (terminal_) fmt::print(stderr, "\r\x1b[K");
  fmt::print(stderr, "{}: {}\n", title_, outcome);
}

}  // namespace pensieve::cli
