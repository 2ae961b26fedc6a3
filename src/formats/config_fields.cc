#include "formats/config_fields.h"

#include <fmt/format.h>

#include <cmath>

#include "base/mapped_file.h"
#include "formats/foreign_file.h"
#include "formats/printable.h"

namespace pensieve::formats {
namespace {

const Json& EmptyObject() {
  static const Json kEmpty = Json::object();
  return kEmpty;
}

// Integers only; 1.0 counts as 1, as some writers store sizes as floats.
std::optional<int64_t> AsInt(const Json& value) {
  if (value.is_number_unsigned()) {
    const auto wide = value.get<uint64_t>();
    return wide <= INT64_MAX ? std::optional(static_cast<int64_t>(wide)) : std::nullopt;
  }
  if (value.is_number_integer()) return value.get<int64_t>();
  if (!value.is_number_float()) return std::nullopt;
  const double wide = value.get<double>();
  if (!(std::fabs(wide) < 9e15) || wide != std::floor(wide)) return std::nullopt;
  return static_cast<int64_t>(wide);
}

std::string RangeText(IntRange range) {
  if (range.max == INT64_MAX) return fmt::format("an integer of at least {}", range.min);
  return fmt::format("an integer between {} and {}", range.min, range.max);
}

}  // namespace

ConfigFields::ConfigFields(std::string place, const Json& object, std::string prefix)
    : place_(std::move(place)), object_(object.is_object() ? &object : &EmptyObject()), prefix_(std::move(prefix)) {}

const Json* ConfigFields::Find(std::string_view key) const {
  const auto it = object_->find(std::string(key));
  return it == object_->end() || it->is_null() ? nullptr : &*it;
}

Status ConfigFields::Error(std::string_view key, std::string_view problem) const {
  return DataLoss(fmt::format("{}: field \"{}\" {}", place_, Printable(fmt::format("{}{}", prefix_, key), 200),
                              Printable(problem, 400)));
}

void ConfigFields::Fail(const Status& error) {
  if (status_.ok()) status_ = error;
}

std::optional<int64_t> ConfigFields::OptionalInt(std::string_view key, IntRange range) {
  const Json* value = Find(key);
  if (value == nullptr) return std::nullopt;
  const auto number = AsInt(*value);
  if (number && *number >= range.min && *number <= range.max) return number;
  Fail(Error(key, fmt::format("must be {}, not {}", RangeText(range), DumpJson(*value).substr(0, 40))));
  return std::nullopt;
}

int64_t ConfigFields::Int(std::string_view key, int64_t fallback, IntRange range) {
  return OptionalInt(key, range).value_or(fallback);
}

int64_t ConfigFields::RequiredInt(std::string_view key, IntRange range) {
  if (!Has(key)) Fail(Error(key, "is missing"));
  return OptionalInt(key, range).value_or(range.min);
}

std::optional<double> ConfigFields::OptionalFloat(std::string_view key) {
  const Json* value = Find(key);
  if (value == nullptr) return std::nullopt;
  if (value->is_number() && std::isfinite(value->get<double>())) return value->get<double>();
  Fail(Error(key, fmt::format("must be a finite number, not {}", DumpJson(*value).substr(0, 40))));
  return std::nullopt;
}

double ConfigFields::Float(std::string_view key, double fallback) { return OptionalFloat(key).value_or(fallback); }

std::optional<bool> ConfigFields::OptionalBool(std::string_view key) {
  const Json* value = Find(key);
  if (value == nullptr) return std::nullopt;
  if (value->is_boolean()) return value->get<bool>();
  Fail(Error(key, fmt::format("must be true or false, not {}", DumpJson(*value).substr(0, 40))));
  return std::nullopt;
}

bool ConfigFields::Bool(std::string_view key, bool fallback) { return OptionalBool(key).value_or(fallback); }

std::string ConfigFields::String(std::string_view key, std::string_view fallback) {
  const Json* value = Find(key);
  if (value == nullptr) return std::string(fallback);
  if (value->is_string()) return value->get<std::string>();
  Fail(Error(key, fmt::format("must be a string, not {}", DumpJson(*value).substr(0, 40))));
  return std::string(fallback);
}

std::vector<double> ConfigFields::Floats(std::string_view key, size_t count_max) {
  std::vector<double> numbers;
  const Json* value = Find(key);
  if (value == nullptr) return numbers;
  bool good = value->is_array() && value->size() <= count_max;
  for (size_t i = 0; good && i < value->size(); ++i) {
    const Json& element = (*value)[i];
    good = element.is_number() && std::isfinite(element.get<double>());
    if (good) numbers.push_back(element.get<double>());
  }
  if (good) return numbers;
  Fail(Error(key, fmt::format("must be a list of at most {} finite numbers", count_max)));
  return {};
}

std::vector<std::string> ConfigFields::Strings(std::string_view key, size_t count_max) {
  std::vector<std::string> strings;
  const Json* value = Find(key);
  if (value == nullptr) return strings;
  bool good = value->is_array() && value->size() <= count_max;
  for (size_t i = 0; good && i < value->size(); ++i) {
    good = (*value)[i].is_string();
    if (good) strings.push_back((*value)[i].get<std::string>());
  }
  if (good) return strings;
  Fail(Error(key, fmt::format("must be a list of at most {} strings", count_max)));
  return {};
}

std::vector<int64_t> ConfigFields::IntOrInts(std::string_view key, IntRange range, size_t count_max) {
  const Json* value = Find(key);
  if (value == nullptr) return {};
  if (!value->is_array()) return {Int(key, range.min, range)};
  std::vector<int64_t> numbers;
  bool good = value->size() <= count_max;
  for (size_t i = 0; good && i < value->size(); ++i) {
    const auto number = AsInt((*value)[i]);
    good = number && *number >= range.min && *number <= range.max;
    if (good) numbers.push_back(*number);
  }
  if (good) return numbers;
  Fail(Error(key, fmt::format("must be {} or a list of at most {} of them", RangeText(range), count_max)));
  return {};
}

ConfigFields ConfigFields::Object(std::string_view key) {
  const Json* value = Find(key);
  if (value != nullptr && !value->is_object()) Fail(Error(key, "must be an object"));
  return ConfigFields(place_, value != nullptr ? *value : EmptyObject(), fmt::format("{}{}.", prefix_, key));
}

Result<Json> ReadJsonObject(const std::string& path, size_t bytes_max) {
  PENSIEVE_TRY(const std::string text, ReadFile(path, bytes_max));
  auto json = ParseJson(text, kFileJson);
  const auto foreign =
      json ? std::nullopt : ExplainForeignFile(path, std::as_bytes(std::span(text)), FileFormat::kJson);
  if (foreign) return *foreign;
  if (!json) return DataLoss(fmt::format("{}: {}", path, json.error().message()));
  if (!json->is_object()) return DataLoss(fmt::format("{}: must hold a JSON object", path));
  return json;
}

}  // namespace pensieve::formats
