#include <fcntl.h>
#include <fmt/format.h>
#include <langinfo.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cerrno>
#include <clocale>
#include <csignal>
#include <cstdio>
#include <cstring>
#include <iostream>
#include <system_error>

#include "cli/commands.h"
#include "cli/help.h"
#include "cli/spelling.h"
#include "cli/terminal.h"

#ifndef PENSIEVE_VERSION
#define PENSIEVE_VERSION "unknown"
#endif

namespace pensieve::cli {
namespace {

constexpr int kUsage = 2;

// The first three descriptors exist: else the first file that is opened would take the place of stdout.
void OpenStandardStreams() {
  for (const int fd : {STDIN_FILENO, STDOUT_FILENO, STDERR_FILENO}) {
    // Read-only, so that writes still fail.
    if (::fcntl(fd, F_GETFD) < 0 && ::open("/dev/null", O_RDONLY) < 0) return;
  }
}

// Typed characters beyond ASCII reach the line editor only where the locale is UTF-8. Containers often set none.
void ChooseLocale() {
  if (std::setlocale(LC_CTYPE, "") != nullptr && std::strcmp(::nl_langinfo(CODESET), "UTF-8") == 0) return;
  for (const char* utf8 : {"C.UTF-8", "en_US.UTF-8"}) {
    if (std::setlocale(LC_CTYPE, utf8) != nullptr) return;
  }
}

// Output that could not be written. A reader that went away (| head) has what it wanted.
int OutputFailed(int error) {
  if (error == EPIPE) return 0;
  PrintNote(fmt::format("{} cannot write to standard output: {}\n", StyledError(Style::kRed, "error:"),
                        std::strerror(error)));
  return 1;
}

int FlushAll(int code) {
  errno = 0;
  const bool lost = std::ferror(stdout) != 0;
  if (std::fflush(stdout) == 0 && !lost) return code;
  const int failed = OutputFailed(errno != 0 ? errno : EIO);
  return failed == 0 ? code : failed;
}

std::vector<std::string> CommandNames(const CLI::App& app) {
  std::vector<std::string> names;
  for (const CLI::App* command : app.get_subcommands([](const CLI::App*) { return true; })) {
    names.push_back(command->get_name());
    for (const auto& alias : command->get_aliases()) names.push_back(alias);
  }
  return names;
}

std::vector<std::string> OptionNames(const CLI::App& app) {
  std::vector<std::string> names;
  for (const CLI::Option* option : app.get_options()) {
    for (const auto& name : option->get_lnames()) names.push_back("--" + name);
  }
  return names;
}

// The command that the arguments chose, down to "eval nll".
const CLI::App* ChosenCommand(const CLI::App& app) {
  const CLI::App* chosen = &app;
  while (!chosen->get_subcommands().empty()) chosen = chosen->get_subcommands().front();
  return chosen;
}

std::string FullName(const CLI::App* command) {
  std::string name = command->get_name();
  while ((command = command->get_parent()) != nullptr) name = command->get_name() + " " + name;
  return name;
}

// A word where a command is expected, or an option nobody knows: with what it may have been meant to be. Nothing to say
// of other mistakes, which CLI11 words.
std::string ExplainMistake(const CLI::App& app, const std::vector<std::string>& arguments) {
  const CLI::App* command = ChosenCommand(app);
  const auto commands = CommandNames(*command);
  if (!commands.empty()) {
    // The first word behind the command so far; its options are flags without values.
    const std::string full_name = FullName(command);
    const auto depth = static_cast<size_t>(std::count(full_name.begin(), full_name.end(), ' '));
    for (size_t i = depth; i < arguments.size(); ++i) {
      const std::string& word = arguments[i];
      if (word.starts_with('-')) continue;
      const std::string nearest = NearestWord(word, commands);
      return fmt::format("{} has no command {}{}", FullName(command), word,
                         nearest.empty() ? "; --help lists them" : fmt::format("; did you mean {}?", nearest));
    }
    return "";
  }
  for (const auto& word : app.remaining(true)) {
    if (!word.starts_with("--")) continue;
    const std::string name = word.substr(0, word.find('='));
    const std::string nearest = NearestWord(name, OptionNames(*command));
    return fmt::format("{} has no option {}{}", FullName(command), name,
                       nearest.empty() ? "; --help lists them" : fmt::format("; did you mean {}?", nearest));
  }
  return "";
}

int WrongUsage(const CLI::App& app, const CLI::ParseError& error, const std::vector<std::string>& arguments) {
  const bool unknown = dynamic_cast<const CLI::ExtrasError*>(&error) != nullptr ||
                       dynamic_cast<const CLI::RequiredError*>(&error) != nullptr;
  const std::string mistake = unknown ? ExplainMistake(app, arguments) : "";
  if (!mistake.empty()) {
    PrintNote(fmt::format("{} {}\n", StyledError(Style::kRed, "error:"), mistake));
    return kUsage;
  }
  // CLI11 reports --help and --version this way too, with code 0.
  return app.exit(error) == 0 ? 0 : kUsage;
}

int ParseAndRun(CLI::App& app, Action& action, int argc, char** argv) {
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    return WrongUsage(app, error, std::vector<std::string>(argv + std::min(argc, 1), argv + argc));
  }
  return action();
}

}  // namespace

int Main(int argc, char** argv) {
  OpenStandardStreams();
  ChooseLocale();
  // A reader that goes away (| head) ends a write with an error, not the process with a signal.
  std::signal(SIGPIPE, SIG_IGN);
  std::signal(SIGXFSZ, SIG_IGN);  // so does a file that grows beyond the user's limit
  CLI::App app("Pensieve keeps language and embedding models resident and serves them.", "pensieve");
  app.set_version_flag("--version", "pensieve " PENSIEVE_VERSION);
  app.require_subcommand(1);
  app.formatter(NewHelpFormatter(static_cast<size_t>(TerminalColumns())));
  app.footer(
      "Start with:\n"
      "  pensieve serve          (fetches two small models on first use)\n"
      "  pensieve run            (chat in this terminal)\n"
      "Every command explains itself:  pensieve COMMAND --help");
  Action action;
  for (const auto add : {AddServe, AddRun, AddEmbed, AddPull, AddList, AddRemove, AddInspect, AddTokenize, AddRender,
                         AddEval, AddBench}) {
    add(app, action);
  }
  try {
    return FlushAll(ParseAndRun(app, action, argc, argv));
  } catch (const std::system_error& error) {
    // fmt's way to say that stdout cannot be written.
    if (std::ferror(stdout) != 0) return OutputFailed(error.code().value());
    return Fail(Internal(error.what()));
  }
}

}  // namespace pensieve::cli
