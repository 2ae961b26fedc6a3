// pensieve bench: the engine's own speed, without HTTP.
#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <random>

#include "backend/cpu/bandwidth.h"
#include "base/json.h"
#include "cli/commands.h"
#include "cli/model_options.h"
#include "cli/terminal.h"
#include "engine/engine.h"

namespace pensieve::cli {
namespace {

struct Options {
  ModelOptions model;
  int64_t prompt = 512;
  int64_t generate = 128;
  int64_t batch = 1;
  int64_t repeat = 5;
  int64_t step_rows = 512;
  std::string kv = "f16";
  bool json = false;
};

struct Round {
  double prefill_tokens_per_s = 0;
  double decode_tokens_per_s = 0;
};

engine::GenerateRequest MakeRequest(const Options& options, const model::LoadedModel& model, std::mt19937& random) {
  engine::GenerateRequest request;
  request.id = "bench";
  // Prompts differ, so that no request finds its prefix in the cache.
  std::uniform_int_distribution<int32_t> id(0, static_cast<int32_t>(model.config.vocab_size) - 1);
  for (int64_t i = 0; i < options.prompt; ++i) request.prompt.push_back(id(random));
  request.new_tokens_max = options.generate;
  request.sampling.temperature = 0;
  request.stop_ids = model.text.stop_ids;
  request.ignore_stop_ids = true;
  return request;
}

// Prefill is over when the last sequence has its first token; decoding is what comes after, for all sequences.
Result<Round> RunRound(engine::Engine& engine, const Options& options, const model::LoadedModel& model,
                       std::mt19937& random) {
  std::vector<engine::GenerateRequest> requests;
  for (int64_t i = 0; i < options.batch; ++i) requests.push_back(MakeRequest(options, model, random));
  std::vector<std::unique_ptr<engine::EventStream>> streams;
  for (auto& request : requests) {
    PENSIEVE_TRY(auto stream, engine.Generate(std::move(request)));
    streams.push_back(std::move(stream));
  }
  double prefill_s = 0;
  double end_s = 0;
  int64_t decoded = 0;
  for (auto& stream : streams) {
    while (auto event = stream->Next()) {
      if (event->kind == engine::Event::Kind::kError) return event->error;
      if (!event->terminal()) continue;
      prefill_s = std::max(prefill_s, event->stats.first_token_s);
      end_s = std::max(end_s, event->stats.total_s);
      decoded += event->stats.new_tokens - 1;
    }
  }
  Round round;
  round.prefill_tokens_per_s = static_cast<double>(options.prompt * options.batch) / prefill_s;
  if (decoded > 0 && end_s > prefill_s) round.decode_tokens_per_s = static_cast<double>(decoded) / (end_s - prefill_s);
  return round;
}

struct Spread {
  double median = 0;
  double min = 0;
  double max = 0;
};

Spread SpreadOf(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  const size_t n = values.size();
  return {n % 2 == 1 ? values[n / 2] : (values[n / 2 - 1] + values[n / 2]) / 2, values.front(), values.back()};
}

Result<std::vector<Round>> RunAll(const Options& options, model::LoadedModel& model) {
  const int64_t length = options.prompt + options.generate;
  engine::EngineOptions engine_options;
  engine_options.sequences_max = options.batch;
  engine_options.queue_depth_max = options.batch;
  engine_options.step_rows_max = std::min(options.step_rows, model.network->rows_max());
  engine_options.context_max = std::max(length, model.config.context_max);
  engine_options.kv_dtype = options.kv == "int8"  ? backend::KvDType::kInt8
                            : options.kv == "f32" ? backend::KvDType::kF32
                                                  : backend::KvDType::kF16;
  const backend::KvShape shape{.layers = model.config.layers,
                               .kv_heads = model.config.kv_heads,
                               .head_dim = model.config.head_dim,
                               .dtype = engine_options.kv_dtype};
  const int64_t blocks = (length + engine_options.kv_block_len - 1) / engine_options.kv_block_len + 1;
  engine_options.check_weights = [&model](bool quick) { return model.CheckWeights(quick); };
  engine_options.kv_bytes_max = blocks * options.batch * engine_options.kv_block_len * shape.bytes_per_token();
  PENSIEVE_TRY(auto engine, engine::Engine::Create(*model.backend, *model.network, engine_options));
  std::mt19937 random(1);
  std::vector<Round> rounds;
  for (int64_t i = 0; i <= options.repeat; ++i) {
    PENSIEVE_TRY(const Round round, RunRound(*engine, options, model, random));
    if (i > 0) rounds.push_back(round);  // the first warms caches and clocks
  }
  return rounds;
}

Json Summarize(const Options& options, const model::LoadedModel& model, const std::vector<Round>& rounds) {
  std::vector<double> prefill;
  std::vector<double> decode;
  for (const auto& round : rounds) {
    prefill.push_back(round.prefill_tokens_per_s);
    decode.push_back(round.decode_tokens_per_s);
  }
  const Spread p = SpreadOf(prefill);
  const Spread d = SpreadOf(decode);
  const auto device = model.backend->Describe();
  const double bandwidth = backend::cpu::MeasureReadBandwidth(device.threads);
  // One decode step reads the weights once, and each sequence's keys and values at its mean depth.
  const backend::KvShape kv{
      .layers = model.config.layers, .kv_heads = model.config.kv_heads, .head_dim = model.config.head_dim};
  const double mean_depth = static_cast<double>(options.prompt) + static_cast<double>(options.generate) / 2;
  const double step_bytes = static_cast<double>(model.network->weight_bytes_per_step()) +
                            static_cast<double>(options.batch * kv.bytes_per_token()) * mean_depth;
  const double steps_per_s = d.median / static_cast<double>(options.batch);
  return {{"model", model.config.name},
          {"quantization", model.config.quantization},
          {"device", device.name},
          {"threads", device.threads},
          {"activations", options.model.activations},
          {"prompt", options.prompt},
          {"generate", options.generate},
          {"batch", options.batch},
          {"repeat", options.repeat},
          {"prefill_tokens_per_s", p.median},
          {"prefill_tokens_per_s_min", p.min},
          {"prefill_tokens_per_s_max", p.max},
          {"decode_tokens_per_s", d.median},
          {"decode_tokens_per_s_min", d.min},
          {"decode_tokens_per_s_max", d.max},
          {"read_bandwidth_percent", 100 * steps_per_s * step_bytes / (bandwidth * 1e9)},
          {"read_bandwidth_gb_per_s", bandwidth},
          {"bytes_per_step", static_cast<int64_t>(step_bytes)}};
}

int Bench(const Options& options) {
  ModelOptions model_options = options.model;
  auto model = LoadModel(model_options, DefaultModel::kGenerator);
  if (!model.has_value()) return Fail(model.error());
  if (!(*model)->config.can_generate())
    return Fail(InvalidArgument(fmt::format("{}: bench needs a model that generates", (*model)->path)));
  const auto rounds = RunAll(options, **model);
  if (!rounds.has_value()) return Fail(rounds.error());
  const Json summary = Summarize(options, **model, *rounds);
  if (options.json) {
    fmt::print("{}\n", DumpJson(summary));
    return 0;
  }
  const auto value = [&](const char* key) { return summary[key].get<double>(); };
  fmt::print("{}  {}  on {}, {} threads, activations {}\n", Styled(Style::kBold, (*model)->config.name),
             (*model)->config.quantization, summary["device"].get<std::string>(), summary["threads"].get<int>(),
             options.model.activations);
  fmt::print("prefill {:>6} x {:<3} {:>10.1f} tok/s   ({:.1f} .. {:.1f})\n", options.prompt, options.batch,
             value("prefill_tokens_per_s"), value("prefill_tokens_per_s_min"), value("prefill_tokens_per_s_max"));
  fmt::print("decode  {:>6} x {:<3} {:>10.1f} tok/s   ({:.1f} .. {:.1f}), {:.0f} % of {:.1f} GB/s\n", options.generate,
             options.batch, value("decode_tokens_per_s"), value("decode_tokens_per_s_min"),
             value("decode_tokens_per_s_max"), value("read_bandwidth_percent"), value("read_bandwidth_gb_per_s"));
  return 0;
}

}  // namespace

void AddBench(CLI::App& app, Action& action) {
  auto* command = app.add_subcommand(
      "bench", "Measure prefill and decode speed, as tokens per second and percent of the memory's bandwidth");
  auto options = std::make_shared<Options>();
  AddModelOptions(*command, options->model, false);
  command->add_option("-p,--prompt", options->prompt, "Prompt tokens (512)")->check(CLI::Range(1, 1 << 24));
  command->add_option("-g,--generate", options->generate, "Tokens to generate (128)")->check(CLI::Range(1, 1 << 24));
  command->add_option("-b,--batch", options->batch, "Sequences at once (1)")->check(CLI::Range(1, 4096));
  command->add_option("-r,--repeat", options->repeat, "Counted rounds after one warm-up (5)")
      ->check(CLI::Range(1, 1000));
  command->add_option("--step-rows", options->step_rows, "Rows of one step (512)")->check(CLI::Range(1, 1 << 20));
  command->add_option("--kv", options->kv, "Keys and values as f16 (default), f32 or int8")
      ->check(CLI::IsMember({"f16", "f32", "int8"}));
  command->add_flag("--json", options->json, "Print one JSON object");
  command->callback([&action, options] { action = [options] { return Bench(*options); }; });
}

}  // namespace pensieve::cli
