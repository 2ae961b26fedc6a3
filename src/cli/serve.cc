// pensieve serve: settings, models, both transports, and a calm end.
#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <atomic>
#include <chrono>
#include <map>
#include <system_error>

#include "base/json.h"
#include "cli/commands.h"
#include "cli/lifecycle.h"
#include "cli/served_models.h"
#include "cli/terminal.h"
#include "config/server_config.h"
#include "grpc/grpc_server.h"
#include "http/http_server.h"
#include "http/service_metrics.h"
#include "observe/log.h"
#include "observe/metrics.h"
#include "service/service.h"

namespace pensieve::cli {
namespace {

using Clock = std::chrono::steady_clock;

constexpr int64_t kLogLinesMax = 8192;
// Beyond the grace of requests: to tell cut-off streams so and to close.
constexpr auto kClosingTime = std::chrono::seconds(5);
constexpr const char* kModels = "model.models";

struct Options {
  std::string config_file;
  std::map<std::string, std::vector<std::string>> flags;  // by key
  std::vector<std::string> models;                        // beside those of the flag
  bool print_config = false;
  bool describe_config = false;
  bool json = false;
};

config::ConfigSources ToSources(const Options& options) {
  config::ConfigSources sources;
  sources.file = options.config_file;
  sources.environment = config::ProcessEnvironment();
  for (const auto& description : config::DescribeKeys()) {
    std::vector<std::string> values;
    if (const auto found = options.flags.find(description.key); found != options.flags.end()) values = found->second;
    if (description.key == kModels) values.insert(values.end(), options.models.begin(), options.models.end());
    if (!values.empty()) sources.flags[description.key] = {std::move(values), description.flag};
  }
  return sources;
}

int PrintConfig(const config::LoadedConfig& loaded, bool json) {
  for (const auto& note : loaded.notes) PrintNote(note + "\n");
  for (const auto& warning : loaded.warnings)
    PrintNote(fmt::format("{} {}\n", StyledError(Style::kRed, "warning:"), warning));
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

// The exact mode is exact all the way: its keys and values are not rounded either, unless that is asked for.
backend::KvDType ToKvDType(const config::ServerConfig& config) {
  const std::string& name = config.kv_dtype == "auto" ? config.activations : config.kv_dtype;
  if (name == "f32") return backend::KvDType::kF32;
  return config.kv_dtype == "int8" ? backend::KvDType::kInt8 : backend::KvDType::kF16;
}

Result<service::ServiceOptions> ToServiceOptions(const config::ServerConfig& config,
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
  options.strict_names = config.strict_names;
  for (const std::string& text : config.model_aliases) {
    PENSIEVE_TRY(auto alias, service::ParseModelAlias(text));
    options.aliases.push_back(std::move(alias));
  }
  return options;
}

// An alias of what is not served would be found out by a client only.
Status CheckAliases(const service::ServiceOptions& options, const service::Service& service) {
  for (const auto& alias : options.aliases) {
    if (service.FindModel(alias.model, false).has_value() || service.FindModel(alias.model, true).has_value()) continue;
    return InvalidArgument(
        fmt::format("model.aliases: \"{}\" means \"{}\", which is not served", alias.name, alias.model));
  }
  return OkStatus();
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
void TryPrintWelcome(const config::ServerConfig& config, const service::Service& service, int http_port, int grpc_port,
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
        R"({"model":"claude","max_tokens":100,"temperature":0,"messages":[{"role":"user","content":"What is the capital of Japan?"}]})");
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
  FlushOutput();
}

// A server whose stdout is closed or full serves as well.
void PrintWelcome(const config::ServerConfig& config, const service::Service& service, int http_port, int grpc_port,
                  double seconds) {
  try {
    TryPrintWelcome(config, service, http_port, grpc_port, seconds);
  } catch (const std::system_error&) { std::clearerr(stdout); }
}

// Requests under way have `grace_ms` to finish; what is left of that goes to those that only have to be read.
void Stop(const config::ServerConfig& config, Logger& logger, http::HttpServer& http_server,
          grpc_server::GrpcServer* grpc_listener, service::Service& service) {
  const auto deadline = Clock::now() + std::chrono::milliseconds(config.grace_ms);
  logger.Info("stopping", {{"connections", http_server.connections()}, {"grace_ms", config.grace_ms}});
  http_server.StopAccepting();
  const bool drained = service.Drain(config.grace_ms);
  const auto left = std::chrono::duration_cast<std::chrono::milliseconds>(deadline - Clock::now()).count();
  const bool http_done = http_server.Shutdown(drained ? std::max<int64_t>(left, 1000) : 1000);
  if (grpc_listener != nullptr) grpc_listener->Shutdown(1000);
  logger.Info("stopped", {{"all_requests_finished", drained && http_done}});
}

// Finds and loads the models; meanwhile /ready tells how far it is.
Status PrepareModels(const config::ServerConfig& config, const backend::ChosenDevice& device, Logger& logger,
                     service::Service& service) {
  service::LoadProgress progress;
  PENSIEVE_TRY(const auto choices, ChooseModels(config, progress, [&](const auto& now) { service.SetLoading(now); }));
  PENSIEVE_RETURN_IF_ERROR(LoadModels(config, choices, device, logger, service));
  service.SetLoading(std::nullopt);
  return OkStatus();
}

Status ServeUntilSignal(const config::LoadedConfig& loaded, Logger& logger, Lifecycle& lifecycle) {
  const auto start = Clock::now();
  const auto& config = loaded.config;
  for (const auto& note : loaded.notes) logger.Info(note);
  for (const auto& warning : loaded.warnings) logger.Warn(warning);
  const std::string isa = config::ForcedIsa(config::ProcessEnvironment());
  PENSIEVE_TRY(const auto device,
               backend::OpenDevice(config.device, {.cpu = {.threads = static_cast<int>(config.threads), .isa = isa}}));
  PENSIEVE_TRY(const auto service_options, ToServiceOptions(config, device));
  const auto service = service::Service::Create(service_options);
  service->SetLoading(service::LoadProgress{.model = "", .step = "finding"});
  const auto metrics = Metrics::Create(PENSIEVE_VERSION, [&service] { return http::CollectServiceMetrics(*service); });
  // Ports first: one that is taken is told before anything is downloaded or loaded, and probes get answers meanwhile.
  const http::HttpContext context{*service, logger, *metrics};
  PENSIEVE_TRY(const auto http_server, http::HttpServer::Start(http::ToHttpOptions(config, PENSIEVE_VERSION), context));
  std::unique_ptr<grpc_server::GrpcServer> grpc_listener;
  if (config.grpc_port >= 0) {
    PENSIEVE_TRY(grpc_listener,
                 grpc_server::GrpcServer::Start(grpc_server::ToGrpcOptions(config), {*service, logger, *metrics}));
  }
  logger.Info("listening", {{"http", Authority(config.host, http_server->port())}});
  PENSIEVE_RETURN_IF_ERROR(PrepareModels(config, device, logger, *service));
  PENSIEVE_RETURN_IF_ERROR(CheckAliases(service_options, *service));
  lifecycle.Serve(std::chrono::milliseconds(config.grace_ms) + kClosingTime);
  PrintWelcome(config, *service, http_server->port(), grpc_listener ? grpc_listener->port() : 0,
               std::chrono::duration<double>(Clock::now() - start).count());
  lifecycle.WaitForStop();
  Stop(config, logger, *http_server, grpc_listener.get(), *service);
  return OkStatus();
}

int Serve(const Options& options) {
  if (options.describe_config) return DescribeConfig();
  const auto loaded = config::LoadConfig(ToSources(options));
  if (!loaded.has_value()) return Fail(loaded.error());
  if (options.print_config) return PrintConfig(*loaded, options.json);
  std::atomic<Logger*> last_logger = nullptr;
  // Before the first thread, so that all of them leave the signals to it.
  Lifecycle lifecycle([&last_logger](bool out_of_time) {
    Logger* const to = last_logger;
    if (to == nullptr) return;
    if (out_of_time) to->Warn("stopped; what was still at work is cut off");
    to->Flush(std::chrono::milliseconds(200));
  });
  const auto logger = Logger::Create({.level = loaded->config.log_level,
                                      .format = loaded->config.log_format,
                                      .colour = ColourWanted(),
                                      .lines_waiting_max = kLogLinesMax});
  if (!logger.has_value()) return Fail(logger.error());
  last_logger = logger->get();
  const auto status = ServeUntilSignal(*loaded, **logger, lifecycle);
  (*logger)->Flush(std::chrono::seconds(1));
  last_logger = nullptr;
  return status.ok() ? 0 : Fail(status);
}

}  // namespace

void AddServe(CLI::App& app, Action& action) {
  auto* command = app.add_subcommand("serve", "Load models and serve them over HTTP and gRPC");
  auto options = std::make_shared<Options>();
  command->add_option("-c,--config", options->config_file,
                      "Settings file (default: ./config.toml if it has a table of ours)");
  command->add_flag("--print-config", options->print_config, "Show each setting with where it came from, and stop");
  command->add_flag("--json", options->json, "With --print-config: as JSON");
  command->add_flag("--describe-config", options->describe_config, "Show every setting as a table, and stop")
      ->group("");
  for (const auto& key : config::DescribeKeys()) {
    const std::string help =
        fmt::format("{}{}", key.help, key.default_value.empty() ? "" : fmt::format(" ({})", key.default_value));
    command->add_option(key.key == kModels ? "-m," + key.flag : key.flag, options->flags[key.key], help)
        ->expected(1)
        ->allow_extra_args(false)  // what follows a flag and its value is a model
        ->take_all();
  }
  command->add_option("MODELS", options->models, "The same as --model, for each")->take_all();
  command->footer("Flags win over the environment, the environment over the file, the file over defaults.");
  command->callback([&action, options] { action = [options] { return Serve(*options); }; });
}

}  // namespace pensieve::cli
