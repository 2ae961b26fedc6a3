#include "config/keys.h"

#include <algorithm>
#include <array>

#include "config/parse_value.h"

namespace pensieve::config {
namespace {

using C = ServerConfig;
constexpr double kPortMax = 65535;
constexpr double kDayMs = 86'400'000;
constexpr double kTiB = 1099511627776.0;

void AddServerKeys(std::vector<Key>& keys) {
  keys.push_back({.name = "server.host",
                  .flag = "--host",
                  .environment = {"PENSIEVE_HOST", "AKIDB_HOST"},
                  .type = ValueType::kString,
                  .field = &C::host,
                  .help = "address to listen on, for HTTP and gRPC; 0.0.0.0 or :: for every interface"});
  keys.push_back({.name = "server.http_port",
                  .flag = "--port",
                  .environment = {"PENSIEVE_PORT", "PENSIEVE_HTTP_PORT", "AKIDB_REST_PORT"},
                  .file_aliases = {"server.rest_port", "server.port"},
                  .type = ValueType::kInteger,
                  .field = &C::http_port,
                  .help = "HTTP port; 0 takes any free one",
                  .min = 0,
                  .max = kPortMax});
  keys.push_back({.name = "server.grpc_port",
                  .flag = "--grpc-port",
                  .environment = {"PENSIEVE_GRPC_PORT", "AKIDB_GRPC_PORT"},
                  .type = ValueType::kInteger,
                  .field = &C::grpc_port,
                  .help = "gRPC port; 0 takes any free one, -1 turns gRPC off",
                  .min = -1,
                  .max = kPortMax});
  keys.push_back({.name = "server.connections_max",
                  .flag = "--connections-max",
                  .environment = {"PENSIEVE_CONNECTIONS_MAX"},
                  .type = ValueType::kInteger,
                  .field = &C::connections_max,
                  .help = "open HTTP connections; further ones are answered 503",
                  .min = 1,
                  .max = 1'000'000});
  keys.push_back({.name = "server.body_bytes_max",
                  .flag = "--body-max",
                  .environment = {"PENSIEVE_BODY_BYTES_MAX"},
                  .type = ValueType::kSize,
                  .field = &C::body_bytes_max,
                  .help = "largest request body",
                  .min = 1024,
                  .max = double{1 << 30}});
  keys.push_back({.name = "server.header_timeout_ms",
                  .flag = "--header-timeout",
                  .environment = {"PENSIEVE_HEADER_TIMEOUT_MS"},
                  .type = ValueType::kDuration,
                  .field = &C::header_timeout_ms,
                  .help = "time a client has to send a whole request",
                  .min = 1,
                  .max = kDayMs});
  keys.push_back({.name = "server.write_timeout_ms",
                  .flag = "--write-timeout",
                  .environment = {"PENSIEVE_WRITE_TIMEOUT_MS"},
                  .type = ValueType::kDuration,
                  .field = &C::write_timeout_ms,
                  .help = "a client that takes no byte of its answer for this long is cut off",
                  .min = 1,
                  .max = kDayMs});
  keys.push_back({.name = "server.stall_timeout_ms",
                  .flag = "--stall-timeout",
                  .environment = {"PENSIEVE_STALL_TIMEOUT_MS"},
                  .type = ValueType::kDuration,
                  .field = &C::stall_timeout_ms,
                  .help = "a client whose answer has waited for it this long in all is cut off, however it reads",
                  .min = 1,
                  .max = kDayMs});
  keys.push_back({.name = "server.idle_timeout_ms",
                  .flag = "--idle-timeout",
                  .environment = {"PENSIEVE_IDLE_TIMEOUT_MS"},
                  .type = ValueType::kDuration,
                  .field = &C::idle_timeout_ms,
                  .help = "time a connection may stay open without a request",
                  .min = 1,
                  .max = kDayMs});
  keys.push_back({.name = "server.grace_ms",
                  .flag = "--grace",
                  .environment = {"PENSIEVE_GRACE_MS"},
                  .type = ValueType::kDuration,
                  .field = &C::grace_ms,
                  .help = "time running requests have to finish after SIGTERM",
                  .min = 0,
                  .max = kDayMs});
  keys.push_back({.name = "server.http_threads",
                  .flag = "--http-threads",
                  .environment = {"PENSIEVE_HTTP_THREADS"},
                  .type = ValueType::kInteger,
                  .field = &C::http_threads,
                  .help = "threads that read and write connections",
                  .min = 1,
                  .max = 256});
  keys.push_back({.name = "server.response_store_bytes_max",
                  .flag = "--response-store",
                  .environment = {"PENSIEVE_RESPONSE_STORE_BYTES_MAX"},
                  .type = ValueType::kSize,
                  .field = &C::response_store_bytes_max,
                  .help = "memory for answers of /v1/responses that later requests refer to; 0 keeps none",
                  .min = 0,
                  .max = kTiB});
  keys.push_back({.name = "server.api_keys",
                  .flag = "--api-key",
                  .environment = {"PENSIEVE_API_KEYS"},
                  .type = ValueType::kList,
                  .field = &C::api_keys,
                  .help = "keys a client must send one of; none leaves the server open",
                  .secret = true});
  keys.push_back({.name = "server.cors_origins",
                  .flag = "--cors-origin",
                  .environment = {"PENSIEVE_CORS_ORIGINS"},
                  .type = ValueType::kList,
                  .field = &C::cors_origins,
                  .help = "origins whose web pages may call the server, or *"});
  keys.push_back(
      {.name = "server.allowed_hosts",
       .flag = "--allowed-host",
       .environment = {"PENSIEVE_ALLOWED_HOSTS"},
       .type = ValueType::kList,
       .field = &C::allowed_hosts,
       .help =
           "names the Host header may carry beside localhost and, off loopback, IP addresses; * for any; with keys only loopback servers look"});
}

void AddModelKeys(std::vector<Key>& keys) {
  keys.push_back(
      {.name = "model.models",
       .flag = "--model",
       .environment = {"PENSIEVE_MODELS", "MODEL_PATH"},
       .file_aliases = {"model.path", "model.model"},
       .type = ValueType::kList,
       .field = &C::models,
       .help =
           "models to serve: GGUF files, model directories or names such as ORG/REPO; none serves the default models",
       .is_path = true});
  keys.push_back({.name = "model.cache_dir",
                  .flag = "--cache-dir",
                  .environment = {"PENSIEVE_CACHE_DIR", "AKIDB_CACHE_DIR"},
                  .file_aliases = {"embedding.cache_dir"},
                  .type = ValueType::kString,
                  .field = &C::cache_dir,
                  .help = "downloaded models lie in its folder models/; ~/.cache/pensieve unless set",
                  .is_path = true});
  keys.push_back({.name = "model.context_max",
                  .flag = "--context",
                  .environment = {"PENSIEVE_CONTEXT_MAX", "MAX_CONTEXT_LENGTH"},
                  .type = ValueType::kInteger,
                  .field = &C::context_max,
                  .help = "most tokens of one conversation; 0 is the model's own limit",
                  .min = 0,
                  .max = 1 << 26});
  keys.push_back({.name = "model.device",
                  .flag = "--device",
                  .environment = {"PENSIEVE_DEVICE"},
                  .type = ValueType::kChoice,
                  .field = &C::device,
                  .help = "what models compute on; auto takes the first of cuda, mlx and cpu that is there",
                  .choices = {"auto", "cpu", "cuda", "mlx"}});
  keys.push_back({.name = "model.activations",
                  .flag = "--activations",
                  .environment = {"PENSIEVE_ACTIVATIONS"},
                  .type = ValueType::kChoice,
                  .field = &C::activations,
                  .help = "precision of activations in quantized layers; f32 is exact and slower",
                  .choices = {"int8", "int16", "f32"}});
  keys.push_back({.name = "model.kv_dtype",
                  .flag = "--kv-dtype",
                  .environment = {"PENSIEVE_KV_DTYPE"},
                  .type = ValueType::kChoice,
                  .field = &C::kv_dtype,
                  .help = "number format of the KV cache; auto is f16, and f32 where activations are f32",
                  .choices = {"auto", "f16", "f32", "int8"}});
  keys.push_back(
      {.name = "model.longrope",
       .flag = "--longrope",
       .environment = {"PENSIEVE_LONGROPE"},
       .type = ValueType::kChoice,
       .field = &C::longrope,
       .help = "factors of Phi-3's long context: auto chooses by prompt and answer together; mlx is always long",
       .choices = {"auto", "short", "long", "mlx"}});
  keys.push_back({.name = "model.quantize",
                  .flag = "--quantize",
                  .environment = {"PENSIEVE_QUANTIZE"},
                  .type = ValueType::kChoice,
                  .field = &C::quantize,
                  .help = "bits to which float models are quantized while loading",
                  .choices = {"none", "4", "8"}});
  keys.push_back({.name = "model.quantize_group",
                  .flag = "--quantize-group",
                  .environment = {"PENSIEVE_QUANTIZE_GROUP"},
                  .type = ValueType::kChoice,
                  .field = &C::quantize_group,
                  .help = "weights that share one scale when quantizing while loading",
                  .choices = {"32", "64", "128"}});
  keys.push_back({.name = "model.threads",
                  .flag = "--threads",
                  .environment = {"PENSIEVE_THREADS"},
                  .type = ValueType::kInteger,
                  .field = &C::threads,
                  .help = "compute threads; 0 is one per core, within the quota of a control group",
                  .min = 0,
                  .max = 1024});
  keys.push_back({.name = "model.chat_template_file",
                  .flag = "--chat-template",
                  .environment = {"PENSIEVE_CHAT_TEMPLATE_FILE"},
                  .type = ValueType::kString,
                  .field = &C::chat_template_file,
                  .help = "Jinja file to use instead of the model's own chat template",
                  .is_path = true});
  keys.push_back(
      {.name = "model.aliases",
       .flag = "--alias",
       .environment = {"PENSIEVE_MODEL_ALIASES"},
       .type = ValueType::kList,
       .field = &C::model_aliases,
       .help = "further names of served models, each name=model; gpt-* stands for every name that begins so"});
  keys.push_back({.name = "model.strict_names",
                  .flag = "--strict-names",
                  .environment = {"PENSIEVE_STRICT_NAMES"},
                  .type = ValueType::kBoolean,
                  .field = &C::strict_names,
                  .help = "a single model answers to its own names only, not to every name"});
  keys.push_back({.name = "embedding.enabled",
                  .flag = "--embedding",
                  .environment = {"PENSIEVE_EMBEDDING_ENABLED"},
                  .type = ValueType::kBoolean,
                  .field = &C::embedding_enabled,
                  .help = "answer embedding requests"});
  keys.push_back({.name = "embedding.model",
                  .flag = "--embedding-model",
                  .environment = {"PENSIEVE_EMBEDDING_MODEL", "AKIDB_EMBEDDING_MODEL"},
                  .type = ValueType::kString,
                  .field = &C::embedding_model,
                  .help = "default embedding model: file, directory or name",
                  .is_path = true});
}

void AddEngineKeys(std::vector<Key>& keys) {
  keys.push_back({.name = "engine.kv_bytes_max",
                  .flag = "--kv-memory",
                  .environment = {"PENSIEVE_KV_BYTES_MAX", "GPU_MEMORY_LIMIT"},
                  .type = ValueType::kSize,
                  .field = &C::kv_bytes_max,
                  .help = "memory for the KV cache; 0 takes a quarter of what the weights leave of the free memory",
                  .min = 0,
                  .max = 64 * kTiB});
  keys.push_back({.name = "engine.queue_depth_max",
                  .flag = "--queue-depth",
                  .environment = {"PENSIEVE_QUEUE_DEPTH_MAX"},
                  .type = ValueType::kInteger,
                  .field = &C::queue_depth_max,
                  .help = "requests that may wait for a model",
                  .min = 1,
                  .max = 65536});
  keys.push_back({.name = "engine.sequences_max",
                  .flag = "--sequences",
                  .environment = {"PENSIEVE_SEQUENCES_MAX"},
                  .type = ValueType::kInteger,
                  .field = &C::sequences_max,
                  .help = "sequences a model works on at once",
                  .min = 1,
                  .max = 4096});
  keys.push_back({.name = "engine.step_rows_max",
                  .flag = "--step-rows",
                  .environment = {"PENSIEVE_STEP_ROWS_MAX"},
                  .type = ValueType::kInteger,
                  .field = &C::step_rows_max,
                  .help = "most tokens of one forward pass",
                  .min = 1,
                  .max = 65536});
}

void AddLoggingAndMemoryKeys(std::vector<Key>& keys) {
  keys.push_back({.name = "logging.level",
                  .flag = "--log-level",
                  .environment = {"PENSIEVE_LOG_LEVEL", "AKIDB_LOG_LEVEL", "LOG_LEVEL"},
                  .type = ValueType::kChoice,
                  .field = &C::log_level,
                  .help = "least important log lines shown",
                  .choices = {"trace", "debug", "info", "warn", "error"}});
  keys.push_back({.name = "logging.format",
                  .flag = "--log-format",
                  .environment = {"PENSIEVE_LOG_FORMAT", "AKIDB_LOG_FORMAT"},
                  .type = ValueType::kChoice,
                  .field = &C::log_format,
                  .help = "log lines for people or one JSON object a line",
                  .choices = {"pretty", "json"}});
  keys.push_back({.name = "logging.prompts",
                  .flag = "--log-prompts",
                  .environment = {"PENSIEVE_LOG_PROMPTS"},
                  .file_aliases = {"logging.log_prompts"},
                  .type = ValueType::kBoolean,
                  .field = &C::log_prompts,
                  .help = "write prompts and answers to the log"});
  keys.push_back({.name = "memory.gate",
                  .flag = "--memory-gate",
                  .environment = {"PENSIEVE_MEMORY_GATE"},
                  .file_aliases = {"memory.memory_gate"},
                  .type = ValueType::kBoolean,
                  .field = &C::memory_gate,
                  .help = "refuse new work when the machine is short of memory"});
  keys.push_back({.name = "memory.critical_gb",
                  .flag = "--memory-critical-gb",
                  .environment = {"PENSIEVE_MEMORY_CRITICAL_GB"},
                  .file_aliases = {"memory.memory_critical_gb"},
                  .type = ValueType::kNumber,
                  .field = &C::memory_critical_gb,
                  .help = "free memory below which new work is refused, in units of 2^30 bytes",
                  .min = 0,
                  .max = 65536});
  keys.push_back({.name = "memory.emergency_gb",
                  .flag = "--memory-emergency-gb",
                  .environment = {"PENSIEVE_MEMORY_EMERGENCY_GB"},
                  .file_aliases = {"memory.memory_emergency_gb"},
                  .type = ValueType::kNumber,
                  .field = &C::memory_emergency_gb,
                  .help = "free memory below which caches are dropped too",
                  .min = 0,
                  .max = 65536});
}

std::string TypeName(const Key& key) {
  switch (key.type) {
    case ValueType::kString: return "string";
    case ValueType::kInteger: return "integer";
    case ValueType::kNumber: return "number";
    case ValueType::kBoolean: return "boolean";
    case ValueType::kSize: return "size";
    case ValueType::kDuration: return "duration";
    case ValueType::kList: return "list";
    case ValueType::kChoice: return fmt::format("{}", fmt::join(key.choices, "|"));
  }
  PENSIEVE_UNREACHABLE();
}

}  // namespace

const std::vector<Key>& AllKeys() {
  static const std::vector<Key> keys = [] {
    std::vector<Key> all;
    AddServerKeys(all);
    AddModelKeys(all);
    AddEngineKeys(all);
    AddLoggingAndMemoryKeys(all);
    return all;
  }();
  return keys;
}

bool IsToleratedFileKey(const std::string& name) {
  static constexpr std::array kSections = {"database.", "features.", "hnsw."};
  static constexpr std::array kKeys = {"server.timeout_seconds", "embedding.dimension",  "embedding.provider",
                                       "embedding.python_path",  "embedding.model_name", "embedding.pooling",
                                       "embedding.normalize",    "embedding.max_tokens", "embedding.auto_download",
                                       "embedding.batch_size"};
  const auto starts = [&](std::string_view section) { return name.compare(0, section.size(), section) == 0; };
  return std::any_of(kSections.begin(), kSections.end(), starts) ||
         std::find(kKeys.begin(), kKeys.end(), name) != kKeys.end();
}

bool IsForeignPensieveVariable(const std::string& name) {
  // Read by scripts of the first Pensieve, on the client's side.
  if (name == "PENSIEVE_TOKEN" || name == "PENSIEVE_CONFIG") return true;
  return name == kIsaVariable;
}

const std::vector<KeyDescription>& DescribeKeys() {
  static const std::vector<KeyDescription> descriptions = [] {
    std::vector<KeyDescription> all;
    const ServerConfig defaults;
    for (const Key& key : AllKeys())
      all.push_back({.key = key.name,
                     .flag = key.flag,
                     .type = TypeName(key),
                     .environment = key.environment,
                     .default_value = FormatValue(key, defaults),
                     .help = key.help});
    return all;
  }();
  return descriptions;
}

}  // namespace pensieve::config
