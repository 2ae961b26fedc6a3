// The table of all settings: one row says everything about one of them. Private to config/.
#pragma once

#include <cstdint>
#include <string>
#include <variant>
#include <vector>

#include "config/server_config.h"

namespace pensieve::config {

enum class ValueType : uint8_t { kString, kInteger, kNumber, kBoolean, kSize, kDuration, kList, kChoice };

struct Key {
  std::string name;  // "server.http_port"
  std::string flag;  // "--port"
  // In order of precedence; the first is our own.
  std::vector<std::string> environment;
  std::vector<std::string> file_aliases = {};  // other spellings in TOML files: "server.rest_port"
  ValueType type = ValueType::kString;
  std::variant<std::string ServerConfig::*, int64_t ServerConfig::*, double ServerConfig::*, bool ServerConfig::*,
               std::vector<std::string> ServerConfig::*>
      field;
  std::string help;
  double min = 0;  // numbers, sizes and durations: inclusive
  double max = 0;
  std::vector<std::string> choices = {};
  bool secret = false;   // never printed
  bool is_path = false;  // "~/" is the home directory
};

const std::vector<Key>& AllKeys();

// Keys of AkiDB's configuration files that have no meaning here and are accepted in silence; "database." stands for
// the whole section.
bool IsToleratedFileKey(const std::string& name);
// PENSIEVE_ names that are not settings of the server.
bool IsForeignPensieveVariable(const std::string& name);

}  // namespace pensieve::config
