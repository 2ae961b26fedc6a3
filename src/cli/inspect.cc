// pensieve inspect: what is in a model, and what it will need.
#include <fmt/format.h>

#include <CLI/CLI.hpp>

#include "base/control_group.h"
#include "base/json.h"
#include "base/system_memory.h"
#include "cli/commands.h"
#include "cli/model_options.h"
#include "cli/terminal.h"
#include "config/server_config.h"
#include "model/decoder.h"
#include "model/loader.h"

namespace pensieve::cli {
namespace {

struct Options {
  ModelOptions model;
  int64_t context = 0;
  bool show_template = false;
  bool json = false;
};

int64_t KvBytesPerToken(const model::ModelConfig& config) {
  if (config.is_encoder) return 0;
  const backend::KvShape shape{.layers = config.layers, .kv_heads = config.kv_heads, .head_dim = config.head_dim};
  return shape.bytes_per_token();
}

Json SpecialTokensJson(const model::ModelText& text) {
  const auto& special = text.tokenizer->special();
  Json json = Json::object();
  const auto add = [&](const char* name, const std::optional<tokenizer::SpecialToken>& token) {
    if (token.has_value()) json[name] = {{"id", token->id}, {"text", token->text}};
  };
  add("bos", special.bos);
  add("eos", special.eos);
  add("unk", special.unk);
  add("pad", special.pad);
  add("cls", special.cls);
  add("sep", special.sep);
  Json stops = Json::array();
  for (const int32_t id : text.stop_ids) stops.push_back({{"id", id}, {"text", text.tokenizer->IdToToken(id)}});
  json["stop"] = std::move(stops);
  return json;
}

// What it would be computed on, and what that promises.
Json DeviceJson(const backend::ChosenDevice& chosen, const backend::BackendOptions& options) {
  const backend::BackendDescription device = chosen.device->Describe(options);
  return {{"kind", device.device},
          {"name", device.name},
          {"reason", chosen.reason},
          {"threads", device.threads},
          {"memory_bytes", device.memory_bytes},
          {"memory_available_bytes", chosen.device->AvailableBytes()},
          {"company_matters", device.company_matters},
          {"precision_differs", device.precision_differs}};
}

// Activations and logits of a step, as a server with its default settings plans them.
int64_t PlannedBytes(const model::ModelConfig& config) {
  const config::ServerConfig server;
  const int64_t rows = std::max<int64_t>(server.step_rows_max, config.is_encoder ? config.context_max : 0);
  return model::ActivationBytes(config, rows, std::min<int64_t>(server.sequences_max, rows));
}

// How texts become vectors; null for models that make none.
Json EmbeddingJson(const model::ModelConfig& config) {
  if (!config.is_embedding) return nullptr;
  const int64_t limit = config.embed_context_max > 0 ? config.embed_context_max : config.context_max;
  return {{"dimensions", config.embedding_size()},
          {"pooling", model::PoolingName(config.pooling)},
          {"normalized", config.normalize},
          {"dense_layers", config.dense.size()},
          {"tokens_max", std::min(limit, config.context_max)},
          {"prompts", config.prompts},
          {"default_prompt", config.default_prompt},
          {"source", config.recipe_source}};
}

Json Describe(const std::string& path, const model::ModelHeader& header, int64_t context) {
  const auto& config = header.config;
  const int64_t kv = KvBytesPerToken(config);
  const int64_t planned = PlannedBytes(config);
  Json json = {{"path", path},
               {"name", config.name},
               {"architecture", config.architecture},
               {"format", header.format},
               {"task", !config.can_generate() ? "embed"
                        : config.is_embedding  ? "embed and generate"
                                               : "generate"},
               {"parameters", header.parameters},
               {"quantization", config.quantization},
               {"weight_bytes", header.weight_bytes},
               {"hidden_size", config.hidden_size},
               {"intermediate_size", config.intermediate_size},
               {"layers", config.layers},
               {"heads", config.heads},
               {"kv_heads", config.kv_heads},
               {"head_dim", config.head_dim},
               {"vocab_size", config.vocab_size},
               {"context_max", config.context_max},
               {"kv_bytes_per_token", kv},
               {"kv_bytes", kv * context},
               {"kv_context", context},
               {"activation_bytes", planned},
               {"expected_memory_bytes", header.weight_bytes + planned + kv * context},
               {"experts", config.experts.count},
               {"experts_active", config.experts.active},
               {"expert_intermediate_size", config.experts.intermediate_size},
               {"shared_expert_intermediate_size", config.experts.shared_intermediate_size},
               {"tokenizer_vocab_size", header.text.tokenizer->vocab_size()},
               {"special_tokens", SpecialTokensJson(header.text)},
               {"chat_template", header.text.chat_template.empty() ? Json(nullptr) : Json(header.text.chat_template)}};
  Json tensors = Json::array();
  for (const auto& type : header.types)
    tensors.push_back({{"type", type.type}, {"tensors", type.tensors}, {"bytes", type.bytes}});
  json["tensors"] = std::move(tensors);
  // Of this machine, or what the control groups leave of it.
  const auto available = AvailableMemoryBytes();
  json["available_memory_bytes"] = available ? Json(*available) : Json(nullptr);
  json["fits_memory"] = available ? Json(*available >= header.weight_bytes) : Json(nullptr);
  const auto limit = ReadControlGroupLimits().memory_limit_bytes;
  json["memory_limit_bytes"] = limit ? Json(*limit) : Json(nullptr);
  json["files"] = header.files;
  json["warnings"] = header.warnings;
  json["fingerprint"] = header.fingerprint;
  json["embedding"] = EmbeddingJson(config);
  return json;
}

void PrintRow(std::string_view name, const std::string& value) {
  fmt::print("  {} {}\n", Styled(Style::kDim, fmt::format("{:18}", name)), value);
}

void PrintSpecialTokens(const Json& special) {
  for (const auto& [name, token] : special.items()) {
    if (name == "stop") continue;
    PrintRow(name, fmt::format("{} {}", token["id"].get<int>(), DumpJson(token["text"])));
  }
  std::string stops;
  for (const auto& token : special["stop"]) {
    stops += fmt::format("{}{} {}", stops.empty() ? "" : ", ", token["id"].get<int>(), DumpJson(token["text"]));
  }
  PrintRow("ends generation", stops.empty() ? "(nothing)" : stops);
}

void PrintEmbedding(const Json& embedding) {
  if (embedding.is_null()) return;
  PrintRow("vectors", fmt::format("{} dimensions, {} pooling{}{}, from {} tokens at most (by {})",
                                  embedding["dimensions"].get<int64_t>(), embedding["pooling"].get<std::string>(),
                                  embedding["dense_layers"].get<int64_t>() > 0 ? " and dense layers" : "",
                                  embedding["normalized"].get<bool>() ? ", normalized" : "",
                                  embedding["tokens_max"].get<int64_t>(), embedding["source"].get<std::string>()));
  for (const auto& [name, prompt] : embedding["prompts"].items()) {
    const bool is_default = embedding["default_prompt"] == name;
    PrintRow("prompt", fmt::format("{}{} {}", name, is_default ? " (default)" : "", DumpJson(prompt)));
  }
}

void Print(const Json& json, bool show_template) {
  const auto number = [&](const char* key) { return json[key].get<int64_t>(); };
  const auto text = [&](const char* key) { return json[key].get<std::string>(); };
  fmt::print("{}\n", Styled(Style::kBold, text("name").empty() ? text("path") : text("name")));
  PrintRow("path", text("path"));
  PrintRow("fingerprint", text("fingerprint"));
  PrintRow("format", text("format"));
  PrintRow("architecture", fmt::format("{} ({})", text("architecture"), text("task")));
  PrintRow("parameters", HumanCount(number("parameters")));
  PrintRow("quantization", text("quantization"));
  for (const auto& type : json["tensors"]) {
    PrintRow("", fmt::format("{:>5} tensors {:12} {}", type["tensors"].get<int64_t>(), type["type"].get<std::string>(),
                             HumanBytes(type["bytes"].get<int64_t>())));
  }
  PrintRow("layers", fmt::format("{} of width {}, feed-forward {}", number("layers"), number("hidden_size"),
                                 number("intermediate_size")));
  if (number("experts") > 0) {
    const int64_t shared = number("shared_expert_intermediate_size");
    PrintRow("experts", fmt::format("{} a layer, {} active a token, feed-forward {}{}", number("experts"),
                                    number("experts_active"), number("expert_intermediate_size"),
                                    shared > 0 ? fmt::format(", and one shared of {}", shared) : ""));
  }
  PrintRow("heads", fmt::format("{} query, {} key/value, dimension {}", number("heads"), number("kv_heads"),
                                number("head_dim")));
  PrintRow("vocabulary",
           fmt::format("{} rows, tokenizer knows {}", number("vocab_size"), number("tokenizer_vocab_size")));
  PrintRow("context", fmt::format("{} tokens", number("context_max")));
  PrintEmbedding(json["embedding"]);
  if (number("kv_bytes_per_token") > 0)
    PrintRow("KV", fmt::format("{} bytes a token (f16)", number("kv_bytes_per_token")));
  PrintRow("memory", number("kv_bytes_per_token") > 0
                         ? fmt::format("{} weights + {} activations and logits + {} KV for {} tokens = {}",
                                       HumanBytes(number("weight_bytes")), HumanBytes(number("activation_bytes")),
                                       HumanBytes(number("kv_bytes")), number("kv_context"),
                                       HumanBytes(number("expected_memory_bytes")))
                         : fmt::format("{} weights + {} activations", HumanBytes(number("weight_bytes")),
                                       HumanBytes(number("activation_bytes"))));
  const Json& device = json["device"];
  PrintRow("device", fmt::format("{} ({})", device["name"].get<std::string>(), device["reason"].get<std::string>()));
  PrintRow("", fmt::format("company {}; precision {} from token to token",
                           device["company_matters"].get<bool>() ? "may change a result's low bits" : "does not matter",
                           device["precision_differs"].get<bool>() ? "differs" : "is the same"));
  if (!json["available_memory_bytes"].is_null()) {
    const int64_t left = number("available_memory_bytes") - number("weight_bytes") - number("activation_bytes");
    std::string limit;
    if (!json["memory_limit_bytes"].is_null())
      limit = fmt::format(" of {} that the control group allows", HumanBytes(number("memory_limit_bytes")));
    PrintRow("available now", fmt::format("{}{}; {}", HumanBytes(number("available_memory_bytes")), limit,
                                          left >= 0 ? fmt::format("the model leaves {} for KV", HumanBytes(left))
                                                    : "the model does not fit"));
  }
  PrintSpecialTokens(json["special_tokens"]);
  if (json["chat_template"].is_null()) {
    PrintRow("chat template", "none");
  } else if (show_template) {
    fmt::print("{}\n", text("chat_template"));
  } else {
    PrintRow("chat template", fmt::format("{} characters (--template shows it)", text("chat_template").size()));
  }
}

int Inspect(const Options& options) {
  const auto resolved = ResolveModel(options.model.model, DefaultModel::kGenerator);
  if (!resolved.has_value()) return Fail(resolved.error());
  const auto header =
      model::ReadHeader(resolved->path, ParseQuantize(options.model.quantize, options.model.quantize_group));
  if (!header.has_value()) return Fail(header.error());
  PrintWarnings(header->warnings);
  const int64_t context = options.context > 0 ? options.context : header->config.context_max;
  const auto chosen = OpenDevice(options.model);
  if (!chosen.has_value()) return Fail(chosen.error());
  Json json = Describe(resolved->path, *header, context);
  json["device"] = DeviceJson(*chosen, {});
  if (options.json) {
    fmt::print("{}\n", json.dump(2, ' ', false, Json::error_handler_t::replace));
  } else {
    Print(json, options.show_template);
  }
  return 0;
}

}  // namespace

void AddInspect(CLI::App& app, Action& action) {
  auto* command =
      app.add_subcommand("inspect", "Show a model's architecture, sizes, quantization, memory and special tokens");
  auto options = std::make_shared<Options>();
  AddModelOption(*command, options->model, true);
  AddQuantizeOptions(*command, options->model);
  AddDeviceOption(*command, options->model);
  command->add_option("--context", options->context, "Tokens to count KV memory for (default: the model's context)")
      ->check(CLI::PositiveNumber);
  command->add_flag("--template", options->show_template, "Print the chat template");
  command->add_flag("--json", options->json, "Print one JSON object");
  command->callback([&action, options] { action = [options] { return Inspect(*options); }; });
}

}  // namespace pensieve::cli
