// pensieve eval: how well a model predicts a text (nll), and how far two settings or models are apart (kl).
#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cmath>

#include "base/json.h"
#include "cli/commands.h"
#include "cli/evaluate.h"
#include "cli/model_options.h"
#include "cli/terminal.h"
#include "sampling/sampler.h"

namespace pensieve::cli {
namespace {

constexpr int64_t kWindowDefault = 4096;

struct Options {
  ModelOptions model;
  ModelOptions other;  // kl: what `model` is compared with
  std::string text_file;
  std::string ids_file;
  std::string phase = "prefill";
  std::string kv = "f16";
  int64_t window = 0;            // 0: the default
  std::vector<int64_t> windows;  // kl: one comparison each
  bool json = false;
};

Result<std::vector<int32_t>> ReadIds(const std::string& path) {
  PENSIEVE_TRY(const auto text, ReadTextArgument(path));
  std::string list = text;
  std::replace_if(
      list.begin(), list.end(),
      [](char c) { return c == '[' || c == ']' || c == '\n' || c == ' ' || c == '\t' || c == '\r'; }, ',');
  std::vector<int32_t> ids;
  for (size_t at = 0; at < list.size();) {
    const size_t end = std::min(list.find(',', at), list.size());
    if (end > at) {
      const auto word = ParseJson(std::string_view(list).substr(at, end - at));
      if (!word.has_value() || !word->is_number_unsigned() || *word > INT32_MAX) {
        return InvalidArgument(
            fmt::format("{}: \"{}\" is not a token id", path, list.substr(at, std::min<size_t>(end - at, 40))));
      }
      ids.push_back(word->get<int32_t>());
    }
    at = end + 1;
  }
  return ids;
}

Result<std::vector<int32_t>> ReadTokens(const Options& options, const model::LoadedModel& model) {
  if (!options.ids_file.empty()) return ReadIds(options.ids_file);
  PENSIEVE_TRY(const auto text, ReadTextArgument(options.text_file));
  return model.text.tokenizer->Encode(text);
}

EvaluateOptions ToEvaluateOptions(const Options& options, const ModelOptions& which, const model::LoadedModel& model) {
  const int64_t window = options.window > 0 ? options.window : std::min(kWindowDefault, model.config.context_max);
  // The exact mode is exact all the way: its keys and values are not rounded either.
  const bool exact = which.activations == "f32" || which.reference || options.kv == "f32";
  return {.window = window,
          .as_decode = options.phase == "decode",
          .kv_dtype = exact                  ? backend::KvDType::kF32
                      : options.kv == "int8" ? backend::KvDType::kInt8
                                             : backend::KvDType::kF16};
}

int EvalNll(const Options& options) {
  auto model = LoadModel(options.model, DefaultModel::kGenerator);
  if (!model.has_value()) return Fail(model.error());
  const auto ids = ReadTokens(options, **model);
  if (!ids.has_value()) return Fail(ids.error());
  double sum = 0;
  int64_t count = 0;
  const auto status = ForEachPosition(**model, *ids, ToEvaluateOptions(options, options.model, **model),
                                      [&](size_t position, std::span<const float> logits) {
                                        const auto next = static_cast<size_t>((*ids)[position + 1]);
                                        sum += sampling::LogSumExp(logits) - static_cast<double>(logits[next]);
                                        ++count;
                                      });
  if (!status.ok()) return Fail(status);
  if (const Status weights = (*model)->CheckWeights(/*quick=*/false); !weights.ok()) return Fail(weights);
  const double mean = sum / static_cast<double>(count);
  if (options.json) {
    fmt::print("{}\n", DumpJson({{"tokens", count},
                                 {"mean_nll", mean},
                                 {"perplexity", std::exp(mean)},
                                 {"activations", options.model.activations}}));
  } else {
    fmt::print("{} predicted tokens, mean nll {:.6f}, perplexity {:.4f}\n", count, mean, std::exp(mean));
  }
  return 0;
}

struct Divergence {
  double kl = 0;
  bool same_top = false;
};

// KL(p || q) of two next-token distributions given as logits, natural logarithm.
Divergence Compare(std::span<const float> p, std::span<const float> q) {
  const double p_sum = sampling::LogSumExp(p);
  const double q_sum = sampling::LogSumExp(q);
  double kl = 0;
  for (size_t i = 0; i < p.size(); ++i) {
    const double log_p = p[i] - p_sum;
    kl += std::exp(log_p) * (log_p - (q[i] - q_sum));
  }
  const auto top = [](std::span<const float> row) { return std::max_element(row.begin(), row.end()) - row.begin(); };
  return {std::max(kl, 0.0), top(p) == top(q)};
}

// Logits of the reference are kept for a slice of the text at a time: all of them would be a vocabulary wide each.
constexpr size_t kSliceBytes = size_t{512} << 20;

Result<std::vector<Divergence>> CompareModels(const Options& options, model::LoadedModel& reference,
                                              model::LoadedModel& tested, const std::vector<int32_t>& ids) {
  const auto reference_options = ToEvaluateOptions(options, options.other, reference);
  auto tested_options = ToEvaluateOptions(options, options.model, tested);
  const auto width = static_cast<size_t>(reference.config.vocab_size);
  const size_t slice = std::max<size_t>(
      2, std::min(static_cast<size_t>(reference_options.window), kSliceBytes / (width * sizeof(float))));
  std::vector<Divergence> all;
  std::vector<float> kept(slice * width);
  for (size_t at = 0; at + 1 < ids.size(); at += slice) {
    const auto part = std::span(ids).subspan(at, std::min(slice, ids.size() - at));
    PENSIEVE_RETURN_IF_ERROR(
        ForEachPosition(reference, part, reference_options, [&](size_t position, std::span<const float> logits) {
          std::copy(logits.begin(), logits.end(), kept.begin() + static_cast<std::ptrdiff_t>(position * width));
        }));
    PENSIEVE_RETURN_IF_ERROR(
        ForEachPosition(tested, part, tested_options, [&](size_t position, std::span<const float> logits) {
          all.push_back(Compare(std::span(kept).subspan(position * width, width), logits));
        }));
  }
  return all;
}

void PrintDivergences(const Options& options, const std::vector<Divergence>& divergences) {
  std::vector<double> sorted;
  double sum = 0;
  double same = 0;
  for (const auto& divergence : divergences) {
    sorted.push_back(divergence.kl);
    sum += divergence.kl;
    same += divergence.same_top ? 1 : 0;
  }
  std::sort(sorted.begin(), sorted.end());
  const auto count = static_cast<double>(sorted.size());
  const double p99 = sorted[static_cast<size_t>(0.99 * (count - 1))];
  if (options.json) {
    fmt::print("{}\n", DumpJson({{"window", options.window},
                                 {"tokens", sorted.size()},
                                 {"mean_kl", sum / count},
                                 {"p99_kl", p99},
                                 {"max_kl", sorted.back()},
                                 {"same_top", same / count}}));
  } else {
    if (options.window > 0) fmt::print("windows of {}: ", options.window);
    fmt::print("{} positions, mean KL {:.3e}, 99th percentile {:.3e}, same top token {:.2f} %\n", sorted.size(),
               sum / count, p99, 100 * same / count);
  }
}

int EvalKl(const Options& options) {
  Options resolved = options;
  if (resolved.other.model.empty()) resolved.other.model = resolved.model.model;
  resolved.other.device = resolved.model.device;
  resolved.other.threads = resolved.model.threads;
  auto reference = LoadModel(resolved.other, DefaultModel::kGenerator);
  if (!reference.has_value()) return Fail(reference.error());
  // One device computes both, unless one of them is the reference.
  auto tested =
      LoadModel(resolved.model, DefaultModel::kGenerator, resolved.model.reference ? nullptr : (*reference)->device);
  if (!tested.has_value()) return Fail(tested.error());
  if ((*reference)->config.vocab_size != (*tested)->config.vocab_size) {
    return Fail(InvalidArgument("the two models have different vocabularies"));
  }
  const auto ids = ReadTokens(resolved, **tested);
  if (!ids.has_value()) return Fail(ids.error());
  if (resolved.windows.empty()) resolved.windows.push_back(0);
  for (const int64_t window : resolved.windows) {
    resolved.window = window;
    const auto divergences = CompareModels(resolved, **reference, **tested, *ids);
    if (!divergences.has_value()) return Fail(divergences.error());
    for (const auto* model : {reference->get(), tested->get()}) {
      if (const Status weights = model->CheckWeights(/*quick=*/false); !weights.ok()) return Fail(weights);
    }
    if (divergences->empty()) return Fail(InvalidArgument("the text is shorter than two tokens"));
    PrintDivergences(resolved, *divergences);
  }
  return 0;
}

constexpr const char* kWindowHelp = "Tokens after which a new sequence starts (default: 4096 or the model's context)";
CLI::Range WindowRange() { return CLI::Range(int64_t{2}, int64_t{1} << 24); }

void AddTextOptions(CLI::App& command, Options& options) {
  auto* input = command.add_option_group("text");
  input->add_option("--text", options.text_file, "Text file, - for standard input");
  input->add_option("--ids", options.ids_file,
                    "File of token ids instead, separated by blanks, commas or as a JSON array");
  input->require_option(1);
  command.add_option("--phase", options.phase, "Compute positions as prefill (default) or as decode steps")
      ->check(CLI::IsMember({"prefill", "decode"}));
  command.add_option("--kv", options.kv, "Keys and values as f16 (default), f32 or int8")
      ->check(CLI::IsMember({"f16", "f32", "int8"}));
  command.add_flag("--json", options.json, "Print one JSON object");
}

}  // namespace

void AddEval(CLI::App& app, Action& action) {
  auto* command = app.add_subcommand("eval", "Measure a model's quality on a text");
  command->require_subcommand(1);

  auto nll = std::make_shared<Options>();
  auto* nll_command =
      command->add_subcommand("nll", "Mean negative log-likelihood (natural logarithm) of each next token");
  AddModelOptions(*nll_command, nll->model, false);
  AddTextOptions(*nll_command, *nll);
  nll_command->add_option("--window", nll->window, kWindowHelp)->check(WindowRange());
  nll_command->callback([&action, nll] { action = [nll] { return EvalNll(*nll); }; });

  auto kl = std::make_shared<Options>();
  kl->other.activations = "f32";
  auto* kl_command =
      command->add_subcommand("kl", "KL divergence of the next-token distribution from a reference setting or model");
  AddModelOptions(*kl_command, kl->model, false);
  kl_command->add_option("--reference-model", kl->other.model, "Model to compare with (default: the same)");
  kl_command->add_option("--reference-activations", kl->other.activations, "Its activations (default: f32)")
      ->check(CLI::IsMember({"int8", "int16", "f32"}));
  AddTextOptions(*kl_command, *kl);
  kl_command->add_option("--window", kl->windows, std::string(kWindowHelp) + "; several give a line each")
      ->delimiter(',')
      ->check(WindowRange());
  kl_command->callback([&action, kl] { action = [kl] { return EvalKl(*kl); }; });
}

}  // namespace pensieve::cli
