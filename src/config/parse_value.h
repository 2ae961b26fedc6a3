// Text <-> typed values of settings. Private to config/.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "base/status.h"
#include "config/keys.h"

namespace pensieve::config {

// "4GB" -> 4 * 2^30. Units B, K, KB, KiB ... T, TB, TiB in any case.
Result<int64_t> ParseSize(std::string_view text);
// "30s" -> 30000. Units ms, s, m, h; none is milliseconds.
Result<int64_t> ParseDurationMs(std::string_view text);
Result<bool> ParseBoolean(std::string_view text);
// Commas separate, blanks around items and empty items are dropped. A text that starts with '[' is a TOML array.
Result<std::vector<std::string>> ParseList(std::string_view text);

// Reads `text` as the type of `key`, checks its limits and stores it in `config`. The error says only what is wrong
// with the value ("must be a size such as 4GB").
Status StoreValue(const Key& key, const std::string& text, ServerConfig& config);
Status StoreList(const Key& key, std::vector<std::string> items, ServerConfig& config);

// The value as TOML would spell it; "***" for each item of a secret.
std::string FormatValue(const Key& key, const ServerConfig& config);

}  // namespace pensieve::config
