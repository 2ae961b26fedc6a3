#include "config/parse_value.h"

#include <array>
#include <charconv>
#include <cmath>

#include "base/json.h"
#include "config/toml_file.h"

namespace pensieve::config {
namespace {

constexpr size_t kListItemsMax = 1024;

std::string_view Trim(std::string_view text) {
  const size_t first = text.find_first_not_of(" \t\r\n");
  if (first == std::string_view::npos) return {};
  return text.substr(first, text.find_last_not_of(" \t\r\n") - first + 1);
}

std::string Lower(std::string_view text) {
  std::string lower(text);
  for (char& c : lower)
    if (c >= 'A' && c <= 'Z') c = static_cast<char>(c - 'A' + 'a');
  return lower;
}

bool ParseWhole(std::string_view text, int64_t& value) {
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  return error == std::errc() && end == text.data() + text.size();
}

bool ParseWhole(std::string_view text, double& value) {
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  return error == std::errc() && end == text.data() + text.size() && std::isfinite(value);
}

struct Unit {
  std::string_view name;
  double factor;
};

// "1.5 GB" as 1.5 times the factor of "gb"; false for anything else, or when the product is no int64.
bool ParseWithUnit(std::string_view text, std::span<const Unit> units, int64_t& value) {
  text = Trim(text);
  const size_t digits = text.find_first_not_of("0123456789.");
  const std::string_view number = text.substr(0, digits);
  const std::string unit = digits == std::string_view::npos ? "" : Lower(Trim(text.substr(digits)));
  double amount = 0;
  if (!ParseWhole(number, amount)) return false;
  for (const Unit& candidate : units) {
    if (candidate.name != unit) continue;
    const double product = amount * candidate.factor;
    if (!(product <= 0x1p62)) return false;
    value = std::llround(product);
    return true;
  }
  return false;
}

Status CheckLimits(const Key& key, double value) {
  if (value >= key.min && value <= key.max) return OkStatus();
  return InvalidArgument(fmt::format("must be from {} to {}", key.min, key.max));
}

template <typename T>
T& Field(const Key& key, ServerConfig& config) {
  return config.*std::get<T ServerConfig::*>(key.field);
}

template <typename T>
Status StoreNumber(const Key& key, T value, ServerConfig& config) {
  PENSIEVE_RETURN_IF_ERROR(CheckLimits(key, static_cast<double>(value)));
  Field<T>(key, config) = value;
  return OkStatus();
}

std::string Quote(const std::string& text) { return DumpJson(Json(text)); }

}  // namespace

Result<int64_t> ParseSize(std::string_view text) {
  static constexpr double kKi = 1024;
  static constexpr std::array<Unit, 14> kUnits = {{{"", 1},
                                                   {"b", 1},
                                                   {"k", kKi},
                                                   {"kb", kKi},
                                                   {"kib", kKi},
                                                   {"m", kKi * kKi},
                                                   {"mb", kKi * kKi},
                                                   {"mib", kKi * kKi},
                                                   {"g", kKi * kKi * kKi},
                                                   {"gb", kKi * kKi * kKi},
                                                   {"gib", kKi * kKi * kKi},
                                                   {"t", kKi * kKi * kKi * kKi},
                                                   {"tb", kKi * kKi * kKi * kKi},
                                                   {"tib", kKi * kKi * kKi * kKi}}};
  int64_t bytes = 0;
  if (!ParseWithUnit(text, kUnits, bytes))
    return InvalidArgument("must be a size such as 4GB, 512MB or a number of bytes");
  return bytes;
}

Result<int64_t> ParseDurationMs(std::string_view text) {
  static constexpr std::array<Unit, 5> kUnits = {{{"", 1}, {"ms", 1}, {"s", 1000}, {"m", 60'000}, {"h", 3'600'000}}};
  int64_t ms = 0;
  if (!ParseWithUnit(text, kUnits, ms)) return InvalidArgument("must be a duration such as 30s, 500ms or 2m");
  return ms;
}

Result<bool> ParseBoolean(std::string_view text) {
  const std::string word = Lower(Trim(text));
  if (word == "true" || word == "yes" || word == "on" || word == "1") return true;
  if (word == "false" || word == "no" || word == "off" || word == "0") return false;
  return InvalidArgument("must be true or false");
}

Result<std::vector<std::string>> ParseList(std::string_view text) {
  text = Trim(text);
  if (!text.empty() && text.front() == '[') return ParseTomlArray(text);
  std::vector<std::string> items;
  while (!text.empty()) {
    const size_t comma = text.find(',');
    const std::string_view item = Trim(text.substr(0, comma));
    if (!item.empty()) items.emplace_back(item);
    text = comma == std::string_view::npos ? std::string_view() : text.substr(comma + 1);
  }
  return items;
}

Status StoreList(const Key& key, std::vector<std::string> items, ServerConfig& config) {
  if (items.size() > kListItemsMax) return InvalidArgument(fmt::format("may have at most {} items", kListItemsMax));
  for (const std::string& item : items)
    if (item.empty()) return InvalidArgument("must not hold an empty item");
  Field<std::vector<std::string>>(key, config) = std::move(items);
  return OkStatus();
}

Status StoreValue(const Key& key, const std::string& text, ServerConfig& config) {
  switch (key.type) {
    case ValueType::kString:
      if (text.find('\0') != std::string::npos) return InvalidArgument("must not hold a NUL character");
      Field<std::string>(key, config) = text;
      return OkStatus();
    case ValueType::kInteger: {
      int64_t value = 0;
      if (!ParseWhole(Trim(text), value)) return InvalidArgument("must be a whole number");
      return StoreNumber(key, value, config);
    }
    case ValueType::kNumber: {
      double value = 0;
      if (!ParseWhole(Trim(text), value)) return InvalidArgument("must be a number");
      return StoreNumber(key, value, config);
    }
    case ValueType::kBoolean: {
      PENSIEVE_TRY(Field<bool>(key, config), ParseBoolean(text));
      return OkStatus();
    }
    case ValueType::kSize: {
      PENSIEVE_TRY(const int64_t bytes, ParseSize(text));
      return StoreNumber(key, bytes, config);
    }
    case ValueType::kDuration: {
      PENSIEVE_TRY(const int64_t ms, ParseDurationMs(text));
      return StoreNumber(key, ms, config);
    }
    case ValueType::kList: {
      PENSIEVE_TRY(auto items, ParseList(text));
      // An empty secret is mostly a variable that was not set: nobody means an open server by it.
      if (key.secret && items.empty() && Trim(text) != "[]") return InvalidArgument("must not be empty; [] means none");
      return StoreList(key, std::move(items), config);
    }
    case ValueType::kChoice: {
      std::string word = Lower(Trim(text));
      if (word == "warning") word = "warn";  // Python's and Rust's spelling of the level
      for (const std::string& choice : key.choices) {
        if (choice != word) continue;
        Field<std::string>(key, config) = choice;
        return OkStatus();
      }
      return InvalidArgument(fmt::format("must be one of {}", fmt::join(key.choices, ", ")));
    }
  }
  PENSIEVE_UNREACHABLE();
}

std::string FormatValue(const Key& key, const ServerConfig& config) {
  if (const auto* list = std::get_if<std::vector<std::string> ServerConfig::*>(&key.field)) {
    std::vector<std::string> quoted;
    for (const std::string& item : config.**list) quoted.push_back(Quote(key.secret ? "***" : item));
    return fmt::format("[{}]", fmt::join(quoted, ", "));
  }
  if (const auto* text = std::get_if<std::string ServerConfig::*>(&key.field)) return Quote(config.**text);
  if (const auto* flag = std::get_if<bool ServerConfig::*>(&key.field)) return config.**flag ? "true" : "false";
  if (const auto* number = std::get_if<double ServerConfig::*>(&key.field)) {
    std::string spelled = fmt::format("{}", config.**number);
    return spelled.find_first_of(".en") == std::string::npos ? spelled + ".0" : spelled;
  }
  return fmt::format("{}", config.*std::get<int64_t ServerConfig::*>(key.field));
}

}  // namespace pensieve::config
