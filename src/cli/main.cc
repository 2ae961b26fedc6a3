#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <csignal>

#include "cli/commands.h"
#include "cli/terminal.h"

#ifndef PENSIEVE_VERSION
#define PENSIEVE_VERSION "unknown"
#endif

namespace pensieve::cli {

int Main(int argc, char** argv) {
  // A reader that goes away (| head) ends a write with an error, not the process with a signal.
  std::signal(SIGPIPE, SIG_IGN);
  std::signal(SIGXFSZ, SIG_IGN);  // so does a file that grows beyond the user's limit
  CLI::App app("Pensieve keeps language and embedding models resident and serves them.", "pensieve");
  app.set_version_flag("--version", "pensieve " PENSIEVE_VERSION);
  app.require_subcommand(1);
  app.get_formatter()->column_width(34);
  app.footer("Start with:  pensieve serve          (fetches two small models on first use)\n"
             "             pensieve run            (chat in this terminal)\n"
             "Every command explains itself:  pensieve COMMAND --help");
  Action action;
  for (const auto add : {AddServe, AddRun, AddEmbed, AddPull, AddList, AddRemove, AddInspect, AddTokenize, AddRender, AddEval,
                         AddBench}) {
    add(app, action);
  }
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    // CLI11 reports --help and --version this way too, with code 0.
    return app.exit(error) == 0 ? 0 : 2;
  }
  return action();
}

}  // namespace pensieve::cli
