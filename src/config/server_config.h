// Every setting of the server in one validated struct of plain values, and where each came from.
// The only place of the program that reads the environment. Flags over environment over file over defaults.
//
// Spelling of values, the same in flags, environment and (as strings) TOML: sizes "4GB", "1.5 GiB", "512MB", where all
// units are powers of 1024 and a bare number is bytes; durations "500ms", "30s", "2m", "1h", a bare number is
// milliseconds; booleans true/false, yes/no, on/off, 1/0; lists "a,b", or a TOML array where items hold commas. In a
// list of paths what exists under its whole name is one item, whatever commas and brackets that holds.
//
// Environment: every setting has a name of ours, PENSIEVE_ and the setting's name, and some have names of AkiDB or of
// the first Pensieve. A bad value under our own name is an error; under another's name it is ignored with a warning,
// as AkiDB ignored it and as LOG_LEVEL may be meant for somebody else.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "base/status.h"

namespace pensieve::config {

struct ServerConfig {
  // [server]
  std::string host = "127.0.0.1";
  int64_t http_port = 8080;  // AKIDB_REST_PORT, PENSIEVE_PORT; 0: any free port
  int64_t grpc_port = 9090;  // AKIDB_GRPC_PORT; 0: any free port, -1: off
  int64_t connections_max = 1024;
  int64_t body_bytes_max = int64_t{32} << 20;
  int64_t header_timeout_ms = 30'000;  // to send a request's head and body
  int64_t write_timeout_ms = 60'000;   // a client that takes no byte of its answer for this long is cut off
  int64_t stall_timeout_ms = 300'000;  // a client whose answer has waited for it so long in all is cut off
  int64_t idle_timeout_ms = 120'000;   // keep-alive
  int64_t grace_ms = 30'000;           // for running requests after SIGTERM
  int64_t http_threads = 2;
  int64_t response_store_bytes_max = int64_t{64} << 20;  // answers of /v1/responses that are kept; 0: none
  std::vector<std::string> api_keys;                     // empty: open
  std::vector<std::string> cors_origins;   // exact origins ("https://app.example"), or "*" for every one; empty: none
  std::vector<std::string> allowed_hosts;  // further names for the Host header; "*": any

  // [model]
  std::vector<std::string> models;    // paths or names; empty: the default models
  std::string cache_dir;              // PENSIEVE_CACHE_DIR, AKIDB_CACHE_DIR; default ~/.cache/pensieve
  int64_t context_max = 0;            // MAX_CONTEXT_LENGTH; 0: the model's own
  std::string device = "auto";        // auto, cpu, cuda, mlx
  std::string activations = "int8";   // int8, int16, f32
  std::string kv_dtype = "auto";      // auto, f16, f32, int8
  std::string longrope = "auto";      // auto, short, long, mlx
  std::string quantize = "none";      // none, 4, 8: bits of float matrices once loaded
  std::string quantize_group = "64";  // 32, 64, 128
  int64_t threads = 0;                // 0: one per core, within the quota of a control group
  std::string chat_template_file;
  std::vector<std::string> model_aliases;  // "name=model"; a name that ends in * stands for all that begin so
  bool strict_names = false;               // the only model of its kind answers to its own names only

  // [embedding]
  bool embedding_enabled = true;  // AkiDB's switch: false answers its embed routes with 404
  std::string embedding_model;  // AKIDB_EMBEDDING_MODEL: path or name of the default embedding model; empty: the first
                                // that embeds

  // [engine]
  int64_t kv_bytes_max = 0;  // GPU_MEMORY_LIMIT; 0: a quarter of what the weights leave of the memory free at start
  int64_t queue_depth_max = 64;
  int64_t sequences_max = 64;
  int64_t step_rows_max = 512;

  // [logging]
  std::string log_level = "info";     // LOG_LEVEL, AKIDB_LOG_LEVEL: trace, debug, info, warn, error
  std::string log_format = "pretty";  // pretty, json
  bool log_prompts = false;

  // [memory]
  bool memory_gate = true;
  double memory_critical_gb = 1.0;
  double memory_emergency_gb = 0.5;
};

// One setting as `--print-config` shows it.
struct Setting {
  std::string key;     // "server.http_port"
  std::string value;   // as TOML would spell it; secrets as "***"
  std::string source;  // "default", "config.toml", "environment AKIDB_REST_PORT", "flag --port"
};

struct LoadedConfig {
  ServerConfig config;
  std::vector<Setting> settings;
  std::vector<std::string> warnings;  // unknown keys, ignored environment values, risky combinations; one sentence each
  std::vector<std::string> notes;     // what became of ./config.toml, when there is one; one sentence each
};

struct ConfigSources {
  // Key ("server.http_port") -> value texts, from command-line flags, with the flag's spelling for messages. Of a flag
  // that is given several times a list takes all values, everything else the last.
  struct Flag {
    std::vector<std::string> values;
    std::string spelling;
  };
  std::map<std::string, Flag> flags;
  // Path of the TOML file; "" means ./config.toml if there is one with a table of ours ([server], [model], ...). Other
  // programs use that name, too: theirs is ignored, whatever is in it.
  std::string file;
  // A snapshot of the environment (tests pass their own).
  std::map<std::string, std::string> environment;
};

// A copy of the process's environment. Call it while nobody changes that, best once at start.
std::map<std::string, std::string> ProcessEnvironment();

// For tests and comparisons, and no setting: the instruction set that CPU kernels are to use instead of the best one, as
// backend::CpuOptions::isa has it. "" unless the variable is set.
inline constexpr const char* kIsaVariable = "PENSIEVE_ISA";
std::string ForcedIsa(const std::map<std::string, std::string>& environment);

// model.cache_dir as the environment has it, "~" resolved: for commands that read no other setting.
std::string CacheDirectory(const std::map<std::string, std::string>& environment);

// Whether `host` names this machine only: localhost, 127.x.x.x or ::1.
bool IsLoopbackHost(const std::string& host);

// Reads, merges and validates. InvalidArgument names the key, the value and its source.
Result<LoadedConfig> LoadConfig(const ConfigSources& sources);

// All keys with type, default, environment names and one line of help: for docs, --help and the flag parser.
struct KeyDescription {
  std::string key;
  std::string flag;  // "--port"
  std::string type;  // "string", "integer", "number", "boolean", "size", "duration", "list", or "int8|int16|f32"
  std::vector<std::string> environment;
  std::string default_value;
  std::string help;
};
const std::vector<KeyDescription>& DescribeKeys();

}  // namespace pensieve::config
