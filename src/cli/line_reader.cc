#include "cli/line_reader.h"

#include <histedit.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <iostream>

namespace pensieve::cli {

struct LineReader::State {
  std::string prompt;
  std::string history_file;
  EditLine* edit = nullptr;
  History* history = nullptr;

  ~State() {
    HistEvent event;
    if (history != nullptr && !history_file.empty()) ::history(history, &event, H_SAVE, history_file.c_str());
    if (edit != nullptr) el_end(edit);
    if (history != nullptr) history_end(history);
  }
};

namespace {

constexpr int kHistoryLines = 1000;

const char* PromptOf(EditLine* edit) {
  const char** prompt = nullptr;
  el_get(edit, EL_CLIENTDATA, &prompt);
  return *prompt;
}

}  // namespace

LineReader::LineReader(std::string prompt, std::string history_file) : state_(std::make_unique<State>()) {
  state_->prompt = std::move(prompt);
  if (::isatty(STDIN_FILENO) != 1) return;
  state_->history_file = std::move(history_file);
  state_->edit = el_init("pensieve", stdin, stdout, stderr);
  state_->history = history_init();
  HistEvent event;
  ::history(state_->history, &event, H_SETSIZE, kHistoryLines);
  ::history(state_->history, &event, H_SETUNIQUE, 1);
  if (!state_->history_file.empty()) ::history(state_->history, &event, H_LOAD, state_->history_file.c_str());
  static thread_local const char* prompt_text;
  prompt_text = state_->prompt.c_str();
  el_set(state_->edit, EL_CLIENTDATA, &prompt_text);
  el_set(state_->edit, EL_PROMPT, &PromptOf);
  el_set(state_->edit, EL_EDITOR, "emacs");
  el_set(state_->edit, EL_HIST, ::history, state_->history);
  el_set(state_->edit, EL_SIGNAL, 0);  // our own SIGINT handler interrupts the read
  el_source(state_->edit, nullptr);
}

LineReader::~LineReader() = default;

std::optional<LineReader::Line> LineReader::Read() {
  if (state_->edit == nullptr) {
    std::string text;
    if (!std::getline(std::cin, text)) return std::nullopt;
    return Line{std::move(text)};
  }
  int length = 0;
  errno = 0;
  const char* text = el_gets(state_->edit, &length);
  if (text == nullptr || length < 0) {
    if (errno == EINTR || length < 0) {
      el_reset(state_->edit);
      std::fputc('\n', stdout);
      return Line{"", true};
    }
    std::fputc('\n', stdout);
    return std::nullopt;
  }
  std::string line(text, static_cast<size_t>(length));
  while (line.ends_with('\n') || line.ends_with('\r')) line.pop_back();
  HistEvent event;
  if (!line.empty()) ::history(state_->history, &event, H_ENTER, line.c_str());
  return Line{std::move(line)};
}

}  // namespace pensieve::cli
