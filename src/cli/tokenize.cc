// pensieve tokenize: text to ids and back.
#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <charconv>
#include <iostream>

#include "base/base64.h"
#include "base/json.h"
#include "cli/commands.h"
#include "cli/model_options.h"
#include "cli/terminal.h"
#include "model/loader.h"

namespace pensieve::cli {
namespace {

struct Options {
  ModelOptions model;
  std::string text;
  std::string file;
  bool decode = false;
  bool no_special = false;
  bool json = false;
  bool jsonl = false;
};

Result<std::vector<int32_t>> ParseIds(std::string_view text) {
  std::vector<int32_t> ids;
  size_t at = 0;
  while (true) {
    at = text.find_first_not_of(" \t\r\n,[]", at);
    if (at == std::string_view::npos) return ids;
    const size_t end = std::min(text.find_first_of(" \t\r\n,[]", at), text.size());
    int32_t id = 0;
    const auto parsed = std::from_chars(text.data() + at, text.data() + end, id);
    if (parsed.ec != std::errc() || parsed.ptr != text.data() + end) {
      return InvalidArgument(fmt::format("\"{}\" is not a token id", text.substr(at, end - at)));
    }
    ids.push_back(id);
    at = end;
  }
}

void PrintIds(const tokenizer::Tokenizer& tokenizer, const std::vector<int32_t>& ids, bool json) {
  if (!json) {
    fmt::print("{}\n", fmt::join(ids, " "));
    return;
  }
  Json tokens = Json::array();
  for (const int32_t id : ids) tokens.push_back(tokenizer.IdToToken(id));
  fmt::print("{}\n", DumpJson({{"ids", ids}, {"tokens", std::move(tokens)}, {"count", ids.size()}}));
}

// One JSON object a line: {"text_b64": ...} in, {"ids": [...], "decoded_b64": ...} out. For comparing many strings, which
// may hold any bytes.
int TokenizeLines(const tokenizer::Tokenizer& tokenizer, bool add_special) {
  std::string line;
  while (std::getline(std::cin, line)) {
    const auto request = ParseJson(line);
    if (!request.has_value()) return Fail(request.error());
    if (!request->is_object() || !request->contains("text_b64") || !(*request)["text_b64"].is_string()) {
      return Fail(InvalidArgument("each line must be {\"text_b64\": \"...\"}"));
    }
    const auto text = DecodeBase64((*request)["text_b64"].get<std::string>());
    if (!text.has_value()) return Fail(text.error());
    const auto ids = tokenizer.Encode(*text, {.add_special = add_special});
    fmt::print("{}\n",
               DumpJson({{"ids", ids}, {"decoded_b64", EncodeBase64(tokenizer.Decode(ids, /*skip_special=*/true))}}));
  }
  return 0;
}

int Tokenize(const Options& options) {
  const auto resolved = ResolveModel(options.model.model, DefaultModel::kGenerator);
  if (!resolved.has_value()) return Fail(resolved.error());
  const auto loaded = model::ReadTokenizer(resolved->path);
  if (!loaded.has_value()) return Fail(loaded.error());
  const auto& tokenizer = **loaded;
  PrintWarnings(tokenizer.warnings());
  if (options.jsonl) return TokenizeLines(tokenizer, !options.no_special);
  std::string text = options.text;
  if (!options.file.empty() || text.empty()) {
    auto read = ReadTextArgument(options.file.empty() ? "-" : options.file);
    if (!read.has_value()) return Fail(read.error());
    text = *std::move(read);
  }
  if (!options.decode) {
    PrintIds(tokenizer, tokenizer.Encode(text, {.add_special = !options.no_special}), options.json);
    return 0;
  }
  const auto ids = ParseIds(text);
  if (!ids.has_value()) return Fail(ids.error());
  const std::string decoded = tokenizer.Decode(*ids, options.no_special);
  if (options.json) {
    fmt::print("{}\n", DumpJson({{"text", decoded}}));
  } else {
    fmt::print("{}\n", decoded);
  }
  return 0;
}

}  // namespace

void AddTokenize(CLI::App& app, Action& action) {
  auto* command =
      app.add_subcommand("tokenize", "Show the token ids of a text, or with --decode the text of token ids");
  auto options = std::make_shared<Options>();
  command->add_option("TEXT", options->text, "Text (or ids with --decode); standard input when absent");
  command->add_option("-m,--model", options->model.model,
                      "Model (GGUF file, directory, name), or a tokenizer.json by itself");
  command->add_option("-f,--file", options->file, "Read the text from a file, - for standard input");
  command->add_flag("-d,--decode", options->decode, "Ids to text");
  command->add_flag("--no-special", options->no_special,
                    "Add no BOS, EOS, CLS, SEP; with --decode leave special tokens out");
  command->add_flag("--json", options->json, "Print one JSON object");
  command->add_flag("--jsonl", options->jsonl, "Many texts: lines {\"text_b64\"} in, {\"ids\", \"decoded_b64\"} out");
  command->callback([&action, options] { action = [options] { return Tokenize(*options); }; });
}

}  // namespace pensieve::cli
