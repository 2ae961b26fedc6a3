#include "cli/terminal.h"

#include <fmt/format.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <system_error>

#include "config/server_config.h"

namespace pensieve::cli {
namespace {

std::string Variable(const std::string& name) {
  static const auto environment = config::ProcessEnvironment();
  const auto found = environment.find(name);
  return found == environment.end() ? "" : found->second;
}

// Whether the terminal understands escape sequences at all.
bool IsDumb() {
  static const bool dumb = Variable("TERM").empty() || Variable("TERM") == "dumb";
  return dumb;
}

std::string Paint(Style style, std::string_view text, bool terminal) {
  if (!terminal || !ColourWanted()) return std::string(text);
  static constexpr std::array<const char*, 5> kCodes = {"1", "2", "31", "32", "36"};
  return fmt::format("\x1b[{}m{}\x1b[0m", kCodes[static_cast<size_t>(style)], text);
}

}  // namespace

bool ColourWanted() {
  static const bool wanted = Variable("NO_COLOR").empty() && !IsDumb();
  return wanted;
}

int TerminalColumns() {
  constexpr int kColumnsMax = 1000;
  winsize size{};
  for (const int fd : {STDOUT_FILENO, STDERR_FILENO}) {
    if (::ioctl(fd, TIOCGWINSZ, &size) == 0 && size.ws_col > 0) return size.ws_col;
  }
  const int columns = std::atoi(Variable("COLUMNS").c_str());
  return columns > 0 && columns <= kColumnsMax ? columns : 80;
}

void PrintNote(const std::string& text) { std::fwrite(text.data(), 1, text.size(), stderr); }

void FlushOutput() {
  if (std::fflush(stdout) != 0) throw std::system_error(errno, std::generic_category(), "standard output");
}

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
  if (status.code() == StatusCode::kCancelled) return 130;
  PrintNote(fmt::format("{} {}\n", StyledError(Style::kRed, "error:"), status.message()));
  return 1;
}

void PrintWarnings(const std::vector<std::string>& warnings) {
  for (const auto& warning : warnings)
    PrintNote(fmt::format("{} {}\n", StyledError(Style::kBold, "warning:"), warning));
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

std::string HumanDuration(double seconds) {
  const auto whole = static_cast<int64_t>(std::clamp(seconds, 0.0, 1e7));
  if (whole < 3600) return fmt::format("{}:{:02}", whole / 60, whole % 60);
  return fmt::format("{}:{:02}:{:02}", whole / 3600, whole / 60 % 60, whole % 60);
}

ProgressBar::ProgressBar(std::string title)
    : title_(std::move(title)), terminal_(StderrIsTerminal() && !IsDumb()), started_(Clock::now()) {}

ProgressBar::~ProgressBar() {
  if (!finished_) Finish("stopped");
}

double ProgressBar::seconds() const { return std::chrono::duration<double>(Clock::now() - started_).count(); }

// Bytes per second over the last five seconds.
double ProgressBar::Rate(Clock::time_point now, int64_t done_bytes) {
  samples_.emplace_back(now, done_bytes);
  while (now - samples_.front().first > std::chrono::seconds(5)) samples_.pop_front();
  const double seconds = std::chrono::duration<double>(now - samples_.front().first).count();
  return seconds > 0.2 ? static_cast<double>(done_bytes - samples_.front().second) / seconds : 0;
}

void ProgressBar::Draw(std::string_view what, int64_t done_bytes, int64_t total_bytes, double rate) const {
  const int columns = TerminalColumns();
  std::string title = title_;
  const auto title_max = static_cast<size_t>(std::max(10, columns - 50));
  if (title.size() > title_max) title = "..." + title.substr(title.size() - title_max + 3);
  if (total_bytes <= 0) {
    PrintNote(fmt::format("\r\x1b[K{}  {}", title, what));
    return;
  }
  std::string numbers = fmt::format("{} / {}", HumanBytes(done_bytes), HumanBytes(total_bytes));
  if (done_bytes >= total_bytes) {
    numbers += fmt::format("  {}", what);
  } else if (rate > 0) {
    const double left = static_cast<double>(total_bytes - done_bytes) / rate;
    numbers += fmt::format("  {}/s  {} left", HumanBytes(static_cast<int64_t>(rate)), HumanDuration(left + 0.5));
  }
  const int width = std::clamp(columns - static_cast<int>(title.size() + numbers.size()) - 7, 0, 40);
  const auto filled =
      static_cast<int>(static_cast<double>(width) * static_cast<double>(done_bytes) / static_cast<double>(total_bytes));
  const std::string bar =
      width < 5 ? "" : fmt::format("[{}{}]  ", std::string(filled, '='), std::string(width - filled, ' '));
  PrintNote(fmt::format("\r\x1b[K{}  {}{}", title, bar, numbers));
}

void ProgressBar::Update(std::string_view what, int64_t done_bytes, int64_t total_bytes) {
  const auto now = Clock::now();
  if (total_bytes > 0) {
    if (first_bytes_ < 0) first_bytes_ = done_bytes;
    last_bytes_ = std::max(done_bytes, last_bytes_);
  }
  if (!terminal_ && total_bytes <= 0) return;
  if (!terminal_ && !shown_) {
    PrintNote(fmt::format("{}: {}, {}{}\n", title_, what, HumanBytes(total_bytes),
                          done_bytes > 0 ? fmt::format(", {} of them are there", HumanBytes(done_bytes)) : ""));
    shown_ = true;
    drawn_ = now;
  }
  if (now - drawn_ < (terminal_ ? std::chrono::milliseconds(80) : std::chrono::milliseconds(10'000))) return;
  drawn_ = now;
  shown_ = true;
  if (terminal_) {
    Draw(what, done_bytes, total_bytes, Rate(now, done_bytes));
    std::fflush(stderr);
  } else {
    PrintNote(fmt::format("{}: {} / {}\n", title_, HumanBytes(done_bytes), HumanBytes(total_bytes)));
  }
}

void ProgressBar::Finish(std::string_view outcome) {
  finished_ = true;
  if (!shown_) return;
  if (terminal_) PrintNote(fmt::format("\r\x1b[K"));
  PrintNote(fmt::format("{}: {}\n", title_, outcome));
}

}  // namespace pensieve::cli
