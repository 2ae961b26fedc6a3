#include "api/fields.h"

#include <fmt/format.h>

#include <cmath>

namespace pensieve::api {

const Json* Find(const Json& object, std::string_view key) {
  if (!object.is_object()) return nullptr;
  const auto it = object.find(std::string(key));
  return it == object.end() || it->is_null() ? nullptr : &*it;
}

std::string StringOr(const Json& object, std::string_view key, std::string_view fallback) {
  const Json* value = Find(object, key);
  return value != nullptr && value->is_string() ? value->get_ref<const std::string&>() : std::string(fallback);
}

std::string JoinPath(std::string_view outer, std::string_view inner) {
  return outer.empty() ? std::string(inner) : fmt::format("{}.{}", outer, inner);
}

std::string JoinPath(std::string_view outer, size_t index) { return JoinPath(outer, std::to_string(index)); }

FieldReader::FieldReader(const Json& object, std::string path) : object_(object), path_(std::move(path)) {
  if (!object.is_object()) {
    status_ = InvalidArgument(path_.empty() ? "the request body must be a JSON object" : path_ + ": must be an object");
  }
}

void FieldReader::Fail(std::string_view key, std::string_view message) {
  if (status_.ok()) status_ = InvalidArgument(fmt::format("{}: {}", JoinPath(path_, key), message));
}

void FieldReader::Require(std::string_view key) {
  if (Any(key) == nullptr) Fail(key, "Field required");
}

std::optional<std::string> FieldReader::String(std::string_view key) {
  const Json* value = Any(key);
  if (value == nullptr) return std::nullopt;
  if (!value->is_string()) {
    Fail(key, "must be a string");
    return std::nullopt;
  }
  return value->get<std::string>();
}

std::optional<bool> FieldReader::Bool(std::string_view key) {
  const Json* value = Any(key);
  if (value == nullptr) return std::nullopt;
  if (!value->is_boolean()) {
    Fail(key, "must be true or false");
    return std::nullopt;
  }
  return value->get<bool>();
}

namespace {

// Whole numbers written as floats ("100.0", "1e3") count as integers, as JavaScript clients expect.
std::optional<int64_t> ToInteger(const Json& value) {
  if (value.is_number_unsigned()) {
    const auto number = value.get<uint64_t>();
    return number > static_cast<uint64_t>(INT64_MAX) ? INT64_MAX : static_cast<int64_t>(number);
  }
  if (value.is_number_integer()) return value.get<int64_t>();
  if (!value.is_number_float()) return std::nullopt;
  const double number = value.get<double>();
  if (std::trunc(number) != number) return std::nullopt;
  if (number >= 0x1p63) return INT64_MAX;
  if (number < -0x1p63) return INT64_MIN;
  return static_cast<int64_t>(number);
}

}  // namespace

std::optional<int64_t> FieldReader::Integer(std::string_view key, int64_t min, int64_t max) {
  const Json* value = Any(key);
  if (value == nullptr) return std::nullopt;
  const std::optional<int64_t> number = ToInteger(*value);
  if (number && *number >= min && *number <= max) return number;
  if (!number) {
    Fail(key, "must be an integer");
  } else if (max == INT64_MAX) {
    Fail(key, fmt::format("must be at least {}", min));
  } else {
    Fail(key, fmt::format("must be an integer from {} to {}", min, max));
  }
  return std::nullopt;
}

std::optional<double> FieldReader::Number(std::string_view key, double min, double max) {
  const Json* value = Any(key);
  if (value == nullptr) return std::nullopt;
  if (value->is_number()) {
    const double number = value->get<double>();
    if (number >= min && number <= max) return number;
  }
  Fail(key, fmt::format("must be a number from {:g} to {:g}", min, max));
  return std::nullopt;
}

const Json* FieldReader::Array(std::string_view key) {
  const Json* value = Any(key);
  if (value == nullptr || value->is_array()) return value;
  Fail(key, "must be an array");
  return nullptr;
}

const Json* FieldReader::Object(std::string_view key) {
  const Json* value = Any(key);
  if (value == nullptr || value->is_object()) return value;
  Fail(key, "must be an object");
  return nullptr;
}

std::optional<std::vector<std::string>> FieldReader::Strings(std::string_view key, size_t count_max) {
  const Json* value = Array(key);
  if (value == nullptr) return std::nullopt;
  if (value->size() > count_max) {
    Fail(key, fmt::format("must have at most {} entries", count_max));
    return std::nullopt;
  }
  std::vector<std::string> strings;
  for (const Json& entry : *value) {
    if (!entry.is_string()) {
      Fail(JoinPath(key, strings.size()), "must be a string");
      return std::nullopt;
    }
    strings.push_back(entry.get<std::string>());
  }
  return strings;
}

std::string FieldReader::RequiredString(std::string_view key) {
  Require(key);
  return String(key).value_or("");
}

const Json* FieldReader::RequiredArray(std::string_view key) {
  Require(key);
  return Array(key);
}

}  // namespace pensieve::api
