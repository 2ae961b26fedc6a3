// Lines from a person (with editing and history, on a terminal) or from a pipe.
#pragma once

#include <memory>
#include <optional>
#include <string>

namespace pensieve::cli {

class LineReader {
 public:
  // `history_file` keeps lines between runs; "" keeps none.
  explicit LineReader(std::string prompt, std::string history_file);
  ~LineReader();
  LineReader(const LineReader&) = delete;
  LineReader& operator=(const LineReader&) = delete;

  struct Line {
    std::string text;
    bool interrupted = false;  // Ctrl-C: there is no line
  };
  // The next line without its end; nothing at the end of input (Ctrl-D).
  std::optional<Line> Read();

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace pensieve::cli
