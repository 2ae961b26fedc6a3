#include "cli/help.h"

#include <algorithm>
#include <sstream>

namespace pensieve::cli {
namespace {

constexpr size_t kNameColumn = 34;
constexpr size_t kTextColumnsMin = 20;

class HelpFormatter final : public CLI::Formatter {
 public:
  explicit HelpFormatter(size_t columns)
      : columns_(columns), name_column_(std::clamp<size_t>(columns * 2 / 5, 12, kNameColumn)) {
    column_width(name_column_);
  }

  std::string make_description(const CLI::App* app) const override {
    return Wrap(CLI::Formatter::make_description(app), columns_);
  }
  std::string make_footer(const CLI::App* app) const override {
    return Wrap(CLI::Formatter::make_footer(app), columns_);
  }
  // Lines of a description are set below each other by CLI11 itself.
  std::string make_option_desc(const CLI::Option* option) const override {
    return Wrap(CLI::Formatter::make_option_desc(option), TextColumns());
  }
  std::string make_subcommand(const CLI::App* command) const override {
    std::ostringstream out;
    CLI::detail::format_help(out, command->get_display_name(true), Wrap(command->get_description(), TextColumns()),
                             name_column_);
    return out.str();
  }

 private:
  size_t TextColumns() const { return std::max(columns_, name_column_ + kTextColumnsMin) - name_column_; }

  const size_t columns_;
  const size_t name_column_;
};

}  // namespace

std::string Wrap(const std::string& text, size_t width) {
  std::string wrapped;
  std::istringstream lines(text);
  for (std::string line; std::getline(lines, line);) {
    if (!line.starts_with(' ')) {
      size_t begin = 0;
      while (line.size() - begin > width) {
        size_t blank = line.rfind(' ', begin + width);
        if (blank == std::string::npos || blank <= begin) blank = line.find(' ', begin + width);
        if (blank == std::string::npos) break;
        line[blank] = '\n';
        begin = blank + 1;
      }
    }
    wrapped += line + "\n";
  }
  if (!text.ends_with('\n') && !wrapped.empty()) wrapped.pop_back();
  return wrapped;
}

std::shared_ptr<CLI::FormatterBase> NewHelpFormatter(size_t columns) {
  return std::make_shared<HelpFormatter>(columns);
}

}  // namespace pensieve::cli
