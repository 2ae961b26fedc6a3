// Every setting of the server in one validated struct of plain values, and where each came from.
// The only place of the program that reads the environment. Flags over environment over file over defaults.
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
  int64_t http_port = 8080;   // AKIDB_REST_PORT, PENSIEVE_PORT; 0: any free port
  int64_t grpc_port = 9090;   // AKIDB_GRPC_PORT; 0: any free port, -1: off
  int64_t connections_max = 1024;
  int64_t body_bytes_max = int64_t{32} << 20;
  int64_t header_timeout_ms = 30'000;    // to send a request's head and body
  int64_t idle_timeout_ms = 120'000;     // keep-alive
  int64_t grace_ms = 30'000;             // for running requests after SIGTERM
  int64_t http_threads = 2;
  std::vector<std::string> api_keys;     // empty: open
  std::vector<std::string> cors_origins;

  // [model]
  std::vector<std::string> models;       // paths or names; empty: the default models
  std::string cache_dir;                 // PENSIEVE_CACHE_DIR, AKIDB_CACHE_DIR; default ~/.cache/pensieve
  int64_t context_max = 0;               // MAX_CONTEXT_LENGTH; 0: the model's own
  std::string activations = "int8";      // int8, int16, f32
  std::string kv_dtype = "f16";          // f16, f32, int8
  int64_t threads = 0;                   // 0: one per core
  std::string chat_template_file;

  // [engine]
  int64_t kv_bytes_max = 0;              // GPU_MEMORY_LIMIT; 0: a quarter of the memory that is free at start, bounded by what can be used
  int64_t queue_depth_max = 64;
  int64_t sequences_max = 64;
  int64_t step_rows_max = 512;

  // [logging]
  std::string log_level = "info";        // LOG_LEVEL, AKIDB_LOG_LEVEL: trace, debug, info, warn, error
  std::string log_format = "pretty";     // pretty, json
  bool log_prompts = false;

  // [memory]
  bool memory_gate = true;
  double memory_critical_gb = 1.0;
  double memory_emergency_gb = 0.5;
};

// One setting as `--print-config` shows it.
struct Setting {
  std::string key;     // "server.http_port"
  std::string value;   // as TOML would spell it
  std::string source;  // "default", "config.toml", "environment AKIDB_REST_PORT", "flag --port"
};

struct LoadedConfig {
  ServerConfig config;
  std::vector<Setting> settings;
  std::vector<std::string> warnings;  // ignored keys and unreadable environment values
};

struct ConfigSources {
  // Key ("server.http_port") -> value text, from command-line flags, with the flag's spelling for messages.
  struct Flag { std::string value; std::string spelling; };
  std::map<std::string, Flag> flags;
  // Path of the TOML file; "" means ./config.toml if there is one.
  std::string file;
  // A snapshot of the environment (tests pass their own).
  std::map<std::string, std::string> environment;
};

std::map<std::string, std::string> ProcessEnvironment();

// Reads, merges and validates. InvalidArgument names the key, the value and its source.
Result<LoadedConfig> LoadConfig(const ConfigSources& sources);

// All keys with type, default, environment names and one line of help: for docs, --help and the flag parser.
struct KeyDescription {
  std::string key;
  std::string flag;         // "--port"
  std::vector<std::string> environment;
  std::string default_value;
  std::string help;
};
const std::vector<KeyDescription>& DescribeKeys();

}  // namespace pensieve::config
