// pensieve run: a chat in the terminal, or with --prompt one answer and out.
#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <poll.h>
#include <unistd.h>

#include <atomic>
#include <csignal>

#include "base/json.h"
#include "cli/commands.h"
#include "cli/line_reader.h"
#include "cli/local_service.h"
#include "cli/terminal.h"

namespace pensieve::cli {
namespace {

struct Options {
  ModelOptions model;
  std::optional<std::string> first_word;  // what stands without a flag: MODEL, PROMPT or both
  std::optional<std::string> second_word;
  std::optional<std::string> prompt_option;  // --prompt
  bool has_prompt = false;                   // this and `prompt`: what became of both
  std::string prompt;
  std::string system;
  bool raw = false;
  bool json = false;
  int64_t max_tokens = 0;
  service::SamplingRequest sampling;
  std::vector<std::string> stop;
};

std::atomic<bool> g_interrupted{false};  // set by Ctrl-C: the one thing a signal handler may do

void OnInterrupt(int) { g_interrupted = true; }

// Without SA_RESTART, so that a read waiting for a line returns.
void InstallInterruptHandler() {
  struct sigaction action {};
  action.sa_handler = &OnInterrupt;
  sigemptyset(&action.sa_mask);
  ::sigaction(SIGINT, &action, nullptr);
}

Result<std::unique_ptr<service::Generation>> Start(service::Service& service, const Options& options,
                                                   const Json& messages) {
  const std::optional<int64_t> limit = options.max_tokens > 0 ? std::optional(options.max_tokens) : std::nullopt;
  if (options.raw) {
    service::CompletionRequest request;
    request.id = "run";
    request.prompt = options.prompt;
    request.new_tokens_max = limit;
    request.stop_sequences = options.stop;
    request.sampling = options.sampling;
    return service.Complete(std::move(request));
  }
  service::ChatRequest request;
  request.id = "run";
  request.messages = messages;
  request.new_tokens_max = limit;
  request.stop_sequences = options.stop;
  request.sampling = options.sampling;
  return service.Chat(std::move(request));
}

struct Answer {
  std::string text;
  std::string reasoning;
  service::Usage usage;
  std::vector<service::TokenLogprob> logprobs;
  std::vector<int32_t> ids;
  bool cancelled = false;
};

void PrintPiece(const service::GenerationEvent& event, bool& in_reasoning) {
  const bool reasoning = event.kind == service::GenerationEvent::Kind::kReasoning;
  if (in_reasoning && !reasoning) fmt::print("\n");
  in_reasoning = reasoning;
  fmt::print("{}", reasoning ? Styled(Style::kDim, event.text) : event.text);
  FlushOutput();
}

// Follows one generation to its end; prints pieces as they come when `print`. Ctrl-C cancels it.
Result<Answer> Follow(service::Generation& generation, bool print) {
  Answer answer;
  bool in_reasoning = false;
  g_interrupted = false;
  while (auto event = generation.Next()) {
    if (g_interrupted.exchange(false)) generation.Cancel();
    using Kind = service::GenerationEvent::Kind;
    answer.logprobs.insert(answer.logprobs.end(), event->logprobs.begin(), event->logprobs.end());
    if (event->kind == Kind::kError) return event->error;
    if (event->kind == Kind::kText) answer.text += event->text;
    if (event->kind == Kind::kReasoning) answer.reasoning += event->text;
    if (print && (event->kind == Kind::kText || event->kind == Kind::kReasoning)) PrintPiece(*event, in_reasoning);
    if (event->terminal()) {
      answer.usage = event->usage;
      answer.cancelled = event->kind == Kind::kCancelled;
    }
  }
  answer.ids = generation.generated_ids();
  return answer;
}

Json LogprobsJson(const std::vector<service::TokenLogprob>& logprobs) {
  Json list = Json::array();
  for (const auto& token : logprobs) {
    Json entry = {{"id", token.id}, {"token", token.bytes}, {"logprob", token.logprob}};
    Json top = Json::array();
    for (const auto& other : token.top)
      top.push_back({{"id", other.id}, {"token", other.bytes}, {"logprob", other.logprob}});
    entry["top_logprobs"] = std::move(top);
    list.push_back(std::move(entry));
  }
  return list;
}

void PrintJson(const Answer& answer) {
  Json json = {{"text", answer.text},
               {"tokens", answer.ids},
               {"logprobs", LogprobsJson(answer.logprobs)},
               {"usage",
                {{"prompt_tokens", answer.usage.prompt_tokens},
                 {"completion_tokens", answer.usage.completion_tokens},
                 {"first_token_s", answer.usage.first_token_s},
                 {"total_s", answer.usage.total_s}}}};
  if (!answer.reasoning.empty()) json["reasoning"] = answer.reasoning;
  fmt::print("{}\n", DumpJson(json));
}

Json NewConversation(const std::string& system) {
  Json messages = Json::array();
  if (!system.empty()) messages.push_back({{"role", "system"}, {"content", system}});
  return messages;
}

int AnswerOnce(service::Service& service, const Options& options) {
  Json messages = NewConversation(options.system);
  messages.push_back({{"role", "user"}, {"content", options.prompt}});
  auto generation = Start(service, options, messages);
  if (!generation.has_value()) return Fail(generation.error());
  const auto answer = Follow(**generation, !options.json);
  if (!answer.has_value()) return Fail(answer.error());
  if (options.json) {
    PrintJson(*answer);
  } else {
    fmt::print("\n");
  }
  return answer->cancelled ? 130 : 0;
}

constexpr const char* kHelp =
    "  /clear          forget the conversation\n"
    "  /system TEXT    start over with another system message\n"
    "  /help           this list\n"
    "  /exit           leave (also Ctrl-D)\n"
    "Ctrl-C stops an answer.\n";

enum class Next { kGoOn, kLeave, kAsk };

Next HandleCommand(const std::string& line, std::string& system, Json& messages) {
  if (line.empty()) return Next::kGoOn;
  if (line == "/exit" || line == "/quit" || line == "/bye") return Next::kLeave;
  if (line == "/help" || line == "/?") {
    fmt::print("{}", kHelp);
    return Next::kGoOn;
  }
  if (line == "/clear" || line.starts_with("/system")) {
    if (line.starts_with("/system")) system = line.size() > 8 ? line.substr(8) : "";
    messages = NewConversation(system);
    fmt::print("{}\n", Styled(Style::kDim, "(new conversation)"));
    return Next::kGoOn;
  }
  if (line.starts_with("/")) {
    fmt::print("unknown command {}; /help lists them\n", line.substr(0, line.find(' ')));
    return Next::kGoOn;
  }
  return Next::kAsk;
}

void PrintStatistics(const Answer& answer) {
  const double seconds = answer.usage.total_s - answer.usage.first_token_s;
  const auto tokens = answer.usage.completion_tokens;
  if (!StdoutIsTerminal() || tokens < 2 || seconds <= 0) return;
  fmt::print("{}\n", Styled(Style::kDim,
                            fmt::format("{} tokens, {:.1f} tokens/s, first after {:.0f} ms", tokens,
                                        static_cast<double>(tokens - 1) / seconds, 1000 * answer.usage.first_token_s)));
}

int Chat(service::Service& service, const Options& options) {
  std::string system = options.system;
  Json messages = NewConversation(system);
  LineReader reader("> ", CacheDirectory() + "/history");
  if (StdoutIsTerminal())
    fmt::print("{}  {}\n", Styled(Style::kBold, service.Models().front().name),
               Styled(Style::kDim, "/help for commands, Ctrl-D to leave"));
  while (auto line = reader.Read()) {
    if (line->interrupted) {
      fmt::print("{}\n", Styled(Style::kDim, "(Ctrl-D or /exit leaves)"));
      continue;
    }
    const Next next = HandleCommand(line->text, system, messages);
    if (next == Next::kLeave) break;
    if (next == Next::kGoOn) continue;
    messages.push_back({{"role", "user"}, {"content", line->text}});
    auto generation = Start(service, options, messages);
    const auto answer = generation.has_value() ? Follow(**generation, true) : Result<Answer>(generation.error());
    if (!answer.has_value()) {
      PrintNote(fmt::format("{} {}\n", StyledError(Style::kRed, "error:"), answer.error().message()));
      messages.erase(messages.size() - 1);
      continue;
    }
    fmt::print("\n");
    if (answer->cancelled) fmt::print("{}\n", Styled(Style::kDim, "(stopped)"));
    PrintStatistics(*answer);
    messages.push_back({{"role", "assistant"}, {"content", answer->text}});
  }
  return 0;
}

// Whether the one word without a flag is a prompt. A model's name has no blanks; what may be either is a model, unless
// there is something in a pipe that a prompt goes with.
bool IsPrompt(const std::string& word) {
  if (IsKnownModel(word)) return false;
  if (word.find_first_of(" \t\r\n") != std::string::npos) return true;
  const bool like_a_model = word.find('/') != std::string::npos || word.ends_with(".gguf");
  return !like_a_model && StdinIsPiped();
}

// Sorts MODEL and PROMPT out of what was given with and without flags.
Status AssignWords(Options& options) {
  std::vector<std::string> words;
  for (const auto& word : {options.first_word, options.second_word}) {
    if (word) words.push_back(*word);
  }
  if (options.prompt_option) {
    options.has_prompt = true;
    options.prompt = *options.prompt_option;
  }
  const bool prompt_only =
      words.size() == 1 && !options.has_prompt && (!options.model.model.empty() || IsPrompt(words.front()));
  if (!words.empty() && !prompt_only) {
    if (!options.model.model.empty())
      return InvalidArgument(fmt::format("the model is given twice: {} and {}", options.model.model, words.front()));
    options.model.model = words.front();
    words.erase(words.begin());
  }
  if (words.empty()) return OkStatus();
  if (options.has_prompt) return InvalidArgument("the prompt is given twice, with --prompt and without");
  options.has_prompt = true;
  options.prompt = words.front();
  return OkStatus();
}

// "-" is standard input; beside a prompt, what is piped in comes first, as the text that the prompt is about.
Status AddPipedText(Options& options) {
  if (options.prompt == "-") {
    PENSIEVE_TRY(options.prompt, ReadStandardInput());
    return OkStatus();
  }
  if (!StdinIsPiped()) return OkStatus();
  // A pipe that somebody forgot to close must not hold us up for ever.
  constexpr int kWaitMs = 3000;
  pollfd input{.fd = STDIN_FILENO, .events = POLLIN, .revents = 0};
  if (::poll(&input, 1, kWaitMs) == 0) {
    PrintNote("warning: nothing came from standard input in 3 s, so the prompt goes alone; --prompt - waits for it\n");
    return OkStatus();
  }
  PENSIEVE_TRY(std::string text, ReadStandardInput());
  while (text.ends_with('\n') || text.ends_with('\r')) text.pop_back();
  if (!text.empty()) options.prompt = text + "\n\n" + options.prompt;
  return OkStatus();
}

int Run(Options options) {
  if (const Status status = AssignWords(options); !status.ok()) return Fail(status);
  if (!options.has_prompt && (options.raw || options.json))
    return Fail(InvalidArgument("--raw and --json need --prompt TEXT"));
  if (options.has_prompt) {
    if (const Status status = AddPipedText(options); !status.ok()) return Fail(status);
    if (options.prompt.empty()) return Fail(InvalidArgument("the prompt is empty"));
  }
  auto service = OpenLocalService(options.model, DefaultModel::kGenerator);
  if (!service.has_value()) return Fail(service.error());
  if (!(*service)->Models().front().generates)
    return Fail(InvalidArgument("this model makes embeddings; try pensieve embed"));
  InstallInterruptHandler();
  return options.has_prompt ? AnswerOnce(**service, options) : Chat(**service, options);
}

}  // namespace

void AddRun(CLI::App& app, Action& action) {
  auto* command = app.add_subcommand("run", "Chat with a model in this terminal, or with --prompt get one answer");
  auto options = std::make_shared<Options>();
  AddModelOptions(*command, options->model, false);
  command->add_option("MODEL", options->first_word, "The same as --model");
  command->add_option("PROMPT", options->second_word, "The same as --prompt; may stand alone");
  command->add_option("-p,--prompt", options->prompt_option,
                      "One message, - for standard input; the answer is printed and the program ends");
  command->add_option("--system", options->system, "System message");
  command->add_flag("--raw", options->raw, "Continue the prompt's text, without the chat template");
  command->add_option("-n,--max-tokens", options->max_tokens, "Longest answer in tokens")->check(CLI::PositiveNumber);
  command->add_option("-t,--temperature", options->sampling.temperature, "0 for the likeliest token every time");
  command->add_option("--top-p", options->sampling.top_p, "Keep the likeliest tokens of this total probability");
  command->add_option("--top-k", options->sampling.top_k, "Keep this many tokens");
  command->add_option("--min-p", options->sampling.min_p,
                      "Keep tokens of at least this share of the likeliest one's probability");
  command->add_option("--repetition-penalty", options->sampling.repetition_penalty, "Above 1 discourages repetition");
  command->add_option("--seed", options->sampling.seed, "The same seed draws the same tokens");
  command->add_option("--stop", options->stop, "Text that ends the answer (may be given several times)")
      ->expected(1)
      ->allow_extra_args(false)
      ->take_all();
  command->add_flag("--json", options->json,
                    "With --prompt: print text, tokens, logprobs and usage as one JSON object");
  command->footer(
      "With a prompt, text from a pipe or a file comes before it:\n"
      "  cat letter.txt | pensieve run \"Summarize this.\"");
  command->callback([&action, options] {
    options->sampling.logprobs = options->json;
    action = [options] { return Run(*options); };
  });
}

}  // namespace pensieve::cli
