// The text of --help, as wide as the terminal.
#pragma once

#include <CLI/CLI.hpp>
#include <memory>
#include <string>

namespace pensieve::cli {

// Breaks each line of `text` at blanks so that none is longer than `width` characters, where a word allows it. Lines of
// the text that begin with a blank are left as they are.
std::string Wrap(const std::string& text, size_t width);

// For CLI::App::formatter. `columns`: of the terminal.
std::shared_ptr<CLI::FormatterBase> NewHelpFormatter(size_t columns);

}  // namespace pensieve::cli
