// The adapter around toml++. Private to config/.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "base/status.h"

namespace pensieve::config {

// One leaf of a TOML document.
struct FileValue {
  std::string key;                 // "server.http_port"
  std::vector<std::string> items;  // is_list
  std::string text;                // scalars, as StoreValue reads them
  bool is_list = false;
  bool is_string = false;  // was quoted
  int64_t line = 0;
};

// All leaves of the document, in order. InvalidArgument with line and column; `path` is only for messages.
Result<std::vector<FileValue>> ParseToml(std::string_view text, const std::string& path);

// `["a", "b,c"]` as its strings.
Result<std::vector<std::string>> ParseTomlArray(std::string_view text);

}  // namespace pensieve::config
