// pensieve serve: settings, models, both transports, and a calm end.
#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <chrono>
#include <csignal>
#include <map>
#include <thread>

#include "base/json.h"
#include "base/system_memory.h"
#include "cli/commands.h"
#include "cli/model_options.h"
#include "cli/models.h"
#include "cli/terminal.h"
#include "config/server_config.h"
#include "grpc/grpc_server.h"
#include "http/http_server.h"
#include "http/service_metrics.h"
#include "hub/catalog.h"
#include "observe/log.h"
#include "observe/metrics.h"
#include "service/service.h"

namespace pensieve::cli {
namespace {

using Clock = std::chrono::steady_clock;

struct Options {
  std::string config_file;
  std::map<std::string, std::vector<std::string>> flags;  // by key
  bool print_config = false;
  bool describe_config = false;
  bool json = false;
};

config::ConfigSources ToSources(const Options& options) {
  config::ConfigSources sources;
  sources.file = options.config_file;
  sources.environment = config::ProcessEnvironment();
  for (const auto& description : config::DescribeKeys()) {
    const auto found = options.flags.find(description.key);
    if (found == options.flags.end() || found->second.empty()) continue;
    sources.flags[description.key] = {fmt::format("{}", fmt::join(found->second, ",")), description.flag};
  }
  return sources;
}

int PrintConfig(const config::LoadedConfig& loaded, bool json) {
  if (json) {
    Json settings = Json::object();
    for (const auto& setting : loaded.settings)
      settings[setting.key] = {{"value", setting.value}, {"source", setting.source}};
    fmt::print("{}\n", settings.dump(2));
    return 0;
  }
  for (const auto& setting : loaded.settings) {
    const bool chosen = setting.source != "default";
    const std::string line = fmt::format("{:28} = {:24}", setting.key, setting.value);
    fmt::print("{}  {}\n", chosen ? Styled(Style::kBold, line) : line, Styled(Style::kDim, "# " + setting.source));
  }
  return 0;
}

// The table of docs/configuration.md.
int DescribeConfig() {
  fmt::print("| setting | flag | environment | default | meaning |\n|---|---|---|---|---|\n");
  for (const auto& key : config::DescribeKeys()) {
    fmt::print("| `{}` | `{}` | `{}` | {} | {} |\n", key.key, key.flag, fmt::join(key.environment, "` `"),
               key.default_value.empty() ? "" : "`" + key.default_value + "`", key.help);
  }
  return 0;
}

// What is served, in order and without doubles. Fetches what is in no cache.
Result<std::vector<ResolvedModel>> ChooseModels(const config::ServerConfig& config) {
  std::vector<std::string> names = config.models;
  if (names.empty()) {
    for (const auto& model : hub::DefaultModels()) names.push_back(model.name);
  }
  // The embedding model that is named comes first among those that embed, and so is the default.
  if (!config.embedding_model.empty()) names.insert(names.begin(), config.embedding_model);
  std::vector<ResolvedModel> choices;
  for (const auto& name : names) {
    PENSIEVE_TRY(auto model, ResolveModel(name, DefaultModel::kNone, config.cache_dir));
    // A path to a model of the cache means the same model, under the name that it has there.
    for (const auto& known : hub::DefaultModels()) {
      if (hub::ModelPath(config.cache_dir, known) == model.path) model.name = known.name;
    }
    const auto same = [&](const ResolvedModel& other) { return other.path == model.path; };
    if (std::none_of(choices.begin(), choices.end(), same)) choices.push_back(std::move(model));
  }
  if (!config.embedding_model.empty()) choices.front().embeds = true;
  return choices;
}

// KV memory of each model: what was asked for, else a quarter of the memory that is free now, shared out. The pool's
// pages are taken from the system only when blocks are first written.
int64_t KvBytesPerModel(const config::ServerConfig& config, size_t num_models) {
  constexpr int64_t kUnknownMemoryBytes = int64_t{4} << 30;
  const int64_t wanted =
      config.kv_bytes_max > 0 ? config.kv_bytes_max : AvailableMemoryBytes().value_or(kUnknownMemoryBytes) / 4;
  return wanted / static_cast<int64_t>(std::max<size_t>(1, num_models));
}

// The exact mode is exact all the way: its keys and values are not rounded either, unless that is asked for.
backend::KvDType ToKvDType(const config::ServerConfig& config) {
  const std::string& name = config.kv_dtype == "auto" ? config.activations : config.kv_dtype;
  if (name == "f32") return backend::KvDType::kF32;
  return config.kv_dtype == "int8" ? backend::KvDType::kInt8 : backend::KvDType::kF16;
}

Result<std::unique_ptr<model::LoadedModel>> LoadOne(const config::ServerConfig& config, const ResolvedModel& choice,
                                                   const std::shared_ptr<backend::Device>& device) {
  model::LoadOptions load;
  PENSIEVE_TRY(load.compute.activations, ParseActivations(config.activations));
  load.device = device;
  load.rows_max = config.step_rows_max;
  load.outputs_max = config.sequences_max;
  load.context_max = config.context_max;
  load.chat_template_file = config.chat_template_file;
  load.quantize = ParseQuantize(config.quantize, config.quantize_group);
  PENSIEVE_TRY(load.longrope, ParseLongrope(config.longrope));
  load.embeds = choice.embeds;
  return model::Load(choice.path, load);
}

Status LoadModels(const config::ServerConfig& config, const std::vector<ResolvedModel>& choices, Logger& logger,
                  const backend::ChosenDevice& chosen, service::Service& service) {
  for (const auto& choice : choices) {
    const auto start = Clock::now();
    PENSIEVE_TRY(auto model, LoadOne(config, choice, chosen.device));
    for (const auto& warning : model->warnings) logger.Warn(warning, {{"model", choice.name}});
    const backend::BackendDescription description = model->backend->Describe();
    LogFields fields = {{"model", choice.name},
                        {"architecture", model->config.architecture},
                        {"quantization", model->config.quantization},
                        {"device", description.name},
                        {"device_reason", chosen.reason},
                        {"threads", description.threads}};
    PENSIEVE_RETURN_IF_ERROR(service.AddModel(choice.name, choice.aliases, std::move(model)));
    fields.emplace_back("seconds", std::chrono::duration<double>(Clock::now() - start).count());
    logger.Info("model loaded", fields);
  }
  return OkStatus();
}

service::ServiceOptions ToServiceOptions(const config::ServerConfig& config, size_t num_models,
                                         const backend::ChosenDevice& chosen) {
  service::ServiceOptions options;
  options.device_reason = chosen.reason;
  options.memory_gate = config.memory_gate;
  options.memory_critical_gb = config.memory_critical_gb;
  options.memory_emergency_gb = config.memory_emergency_gb;
  options.engine.queue_depth_max = config.queue_depth_max;
  options.engine.sequences_max = config.sequences_max;
  options.engine.step_rows_max = config.step_rows_max;
  options.engine.context_max = config.context_max;
  options.engine.kv_dtype = ToKvDType(config);
  options.engine.kv_bytes_max = KvBytesPerModel(config, num_models);
  return options;
}

std::string Authority(const std::string& host, int port) {
  const bool any = host == "0.0.0.0" || host == "::" || host.empty();
  const std::string name = any ? "127.0.0.1" : host.find(':') != std::string::npos ? "[" + host + "]" : host;
  return fmt::format("{}:{}", name, port);
}

void PrintModels(const service::Service& service) {
  for (const auto& model : service.Models()) {
    const std::string chat = model.generates ? fmt::format("chat, {} tokens of context", model.context_max) : "";
    const std::string embed = model.embeds ? fmt::format("embeddings, {} dimensions", model.dimension) : "";
    fmt::print("  {:28} {}{}{}\n", Styled(Style::kBold, model.name), chat, chat.empty() || embed.empty() ? "" : "; ",
               embed);
  }
}

// The last words of the start: where it is, and lines to try that work as they stand.
void PrintWelcome(const config::ServerConfig& config, const service::Service& service, int http_port, int grpc_port,
                  double seconds) {
  const std::string url = "http://" + Authority(config.host, http_port);
  const std::string key = config.api_keys.empty() ? "" : " -H 'authorization: Bearer YOUR_KEY'";
  fmt::print("\n{} is ready after {:.1f} s at {}", Styled(Style::kBold, "Pensieve " PENSIEVE_VERSION), seconds,
             Styled(Style::kCyan, url));
  fmt::print("{}\n", grpc_port > 0 ? fmt::format(" (gRPC at {})", Authority(config.host, grpc_port)) : "");
  PrintModels(service);
  const auto models = service.Models();
  const bool generates = std::any_of(models.begin(), models.end(), [](const auto& model) { return model.generates; });
  const bool embeds = config.embedding_enabled &&
                      std::any_of(models.begin(), models.end(), [](const auto& model) { return model.embeds; });
  if (generates) {
    fmt::print(
        "\n{}\n  curl {}/v1/messages{} -H 'content-type: application/json' -d '{}'\n",
        Styled(Style::kDim, "A message:"), url, key,
        R"({"model":"claude","max_tokens":100,"temperature":0,"messages":[{"role":"user","content":"What is the capital of France?"}]})");
  }
  if (embeds) {
    fmt::print("{}\n  curl {}/api/v1/embed{} -H 'content-type: application/json' -d '{}'\n",
               Styled(Style::kDim, "An embedding:"), url, key, R"({"texts":["Hello, world!"]})");
  }
  if (generates) {
    fmt::print("{}\n  export ANTHROPIC_BASE_URL={} ANTHROPIC_AUTH_TOKEN={}\n  claude\n",
               Styled(Style::kDim, "Claude Code on this server:"), url, config.api_keys.empty() ? "local" : "YOUR_KEY");
  }
  fmt::print("{}\n", Styled(Style::kDim, "Ctrl-C stops the server."));
  std::fflush(stdout);
}

// SIGINT and SIGTERM, blocked in every thread and waited for in one place.
class StopSignals {
 public:
  StopSignals() {
    sigemptyset(&set_);
    sigaddset(&set_, SIGINT);
    sigaddset(&set_, SIGTERM);
    pthread_sigmask(SIG_BLOCK, &set_, nullptr);
  }
  int Wait() const {
    int signal = 0;
    while (sigwait(&set_, &signal) != 0) {}
    return signal;
  }

 private:
  sigset_t set_;
};

// Requests under way have `grace_ms` to finish; a second signal ends the program at once.
void Stop(const StopSignals& signals, const config::ServerConfig& config, Logger& logger, http::HttpServer& http_server,
          grpc_server::GrpcServer* grpc_listener, service::Service& service) {
  logger.Info("stopping", {{"connections", http_server.connections()}, {"grace_ms", config.grace_ms}});
  std::thread([&signals] {
    signals.Wait();
    std::_Exit(130);
  }).detach();
  http_server.StopAccepting();
  const bool drained = service.Drain(config.grace_ms);
  const bool http_done = http_server.Shutdown(drained ? config.grace_ms : 1000);
  if (grpc_listener != nullptr) grpc_listener->Shutdown(1000);
  logger.Info("stopped", {{"all_requests_finished", drained && http_done}});
}

Status ServeUntilSignal(const config::LoadedConfig& loaded, Logger& logger) {
  const auto start = Clock::now();
  const auto& config = loaded.config;
  for (const auto& warning : loaded.warnings) logger.Warn(warning);
  PENSIEVE_RETURN_IF_ERROR(backend::CheckDevice(config.device));
  PENSIEVE_TRY(const auto choices, ChooseModels(config));  // before signals are blocked: Ctrl-C ends a download
  const StopSignals signals;
  const std::string isa = config::ForcedIsa(config::ProcessEnvironment());
  PENSIEVE_TRY(const auto device,
               backend::OpenDevice(config.device, {.cpu = {.threads = static_cast<int>(config.threads), .isa = isa}}));
  const auto service = service::Service::Create(ToServiceOptions(config, choices.size(), device));
  PENSIEVE_RETURN_IF_ERROR(LoadModels(config, choices, logger, device, *service));
  const auto metrics = Metrics::Create(PENSIEVE_VERSION, [&service] { return http::CollectServiceMetrics(*service); });
  const http::HttpContext context{*service, logger, *metrics};
  PENSIEVE_TRY(const auto http_server, http::HttpServer::Start(http::ToHttpOptions(config, PENSIEVE_VERSION), context));
  std::unique_ptr<grpc_server::GrpcServer> grpc_listener;
  if (config.grpc_port >= 0) {
    PENSIEVE_TRY(grpc_listener,
                 grpc_server::GrpcServer::Start(grpc_server::ToGrpcOptions(config), {*service, logger, *metrics}));
  }
  PrintWelcome(config, *service, http_server->port(), grpc_listener ? grpc_listener->port() : 0,
               std::chrono::duration<double>(Clock::now() - start).count());
  signals.Wait();
  Stop(signals, config, logger, *http_server, grpc_listener.get(), *service);
  return OkStatus();
}

int Serve(const Options& options) {
  if (options.describe_config) return DescribeConfig();
  const auto loaded = config::LoadConfig(ToSources(options));
  if (!loaded.has_value()) return Fail(loaded.error());
  if (options.print_config) return PrintConfig(*loaded, options.json);
  const auto logger = Logger::Create({.level = loaded->config.log_level, .format = loaded->config.log_format});
  if (!logger.has_value()) return Fail(logger.error());
  const auto status = ServeUntilSignal(*loaded, **logger);
  return status.ok() ? 0 : Fail(status);
}

}  // namespace

void AddServe(CLI::App& app, Action& action) {
  auto* command = app.add_subcommand("serve", "Load models and serve them over HTTP and gRPC");
  auto options = std::make_shared<Options>();
  command->add_option("-c,--config", options->config_file, "Settings file (default: ./config.toml if there is one)");
  command->add_flag("--print-config", options->print_config, "Show each setting with where it came from, and stop");
  command->add_flag("--json", options->json, "With --print-config: as JSON");
  command->add_flag("--describe-config", options->describe_config, "Show every setting as a table, and stop")
      ->group("");
  for (const auto& key : config::DescribeKeys()) {
    const std::string help =
        fmt::format("{}{}", key.help, key.default_value.empty() ? "" : fmt::format(" ({})", key.default_value));
    command->add_option(key.key == "model.models" ? "-m," + key.flag : key.flag, options->flags[key.key], help)
        ->expected(1)
        ->take_all();
  }
  command->footer("Flags win over the environment, the environment over the file, the file over defaults.");
  command->callback([&action, options] { action = [options] { return Serve(*options); }; });
}

}  // namespace pensieve::cli
