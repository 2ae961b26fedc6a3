// The commands of the binary. Each registers its options on a CLI11 subcommand and sets what runs.
#pragma once

#include <functional>

namespace CLI {
class App;
}

namespace pensieve::cli {

// Runs after parsing; gives the exit code.
using Action = std::function<int()>;

// Each adds one subcommand to `app`; `action` is set to it when the subcommand is chosen.
void AddServe(CLI::App& app, Action& action);
void AddRun(CLI::App& app, Action& action);
void AddEmbed(CLI::App& app, Action& action);
void AddInspect(CLI::App& app, Action& action);
void AddTokenize(CLI::App& app, Action& action);
void AddRender(CLI::App& app, Action& action);
void AddEval(CLI::App& app, Action& action);
void AddBench(CLI::App& app, Action& action);
void AddPull(CLI::App& app, Action& action);
void AddList(CLI::App& app, Action& action);
void AddRemove(CLI::App& app, Action& action);

// The whole program: parses, runs one command. Exit codes: 0 done, 1 an error (one line on stderr), 2 wrong usage,
// 130 stopped by Ctrl-C.
int Main(int argc, char** argv);

}  // namespace pensieve::cli
