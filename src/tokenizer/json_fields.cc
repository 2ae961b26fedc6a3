#include "tokenizer/json_fields.h"

#include "fmt/format.h"

namespace pensieve::tokenizer {

Result<JsonFields> JsonFields::Of(const Json& object, std::string place) {
  if (!object.is_object()) return DataLoss(fmt::format("{} is no object", place));
  return JsonFields(object, std::move(place));
}

const Json* JsonFields::Find(std::string_view key) const {
  const auto found = object_->find(std::string(key));
  return found == object_->end() || found->is_null() ? nullptr : &*found;
}

std::string JsonFields::PlaceOf(std::string_view key) const {
  return place_.empty() ? std::string(key) : fmt::format("{}.{}", place_, key);
}

Status JsonFields::Malformed(std::string_view key, std::string_view expected) const {
  return DataLoss(
      fmt::format("{} {} {}", PlaceOf(key), Find(key) == nullptr ? "is missing: expected" : "is not", expected));
}

Result<std::string> JsonFields::String(std::string_view key) const {
  const Json* value = Find(key);
  if (value == nullptr || !value->is_string()) return Malformed(key, "a string");
  return value->get_ref<const std::string&>();
}

Result<std::string> JsonFields::StringOr(std::string_view key, std::string fallback) const {
  if (Find(key) == nullptr) return fallback;
  return String(key);
}

Result<std::optional<std::string>> JsonFields::OptionalString(std::string_view key) const {
  if (Find(key) == nullptr) return std::optional<std::string>();
  PENSIEVE_TRY(std::string value, String(key));
  return std::optional<std::string>(std::move(value));
}

Result<bool> JsonFields::BoolOr(std::string_view key, bool fallback) const {
  const Json* value = Find(key);
  if (value == nullptr) return fallback;
  if (!value->is_boolean()) return Malformed(key, "true or false");
  return value->get<bool>();
}

Result<int64_t> JsonFields::Integer(std::string_view key) const {
  const Json* value = Find(key);
  if (value == nullptr || !value->is_number_integer()) return Malformed(key, "an integer");
  constexpr uint64_t kMax = INT64_MAX;
  if (value->is_number_unsigned() && value->get<uint64_t>() > kMax) return Malformed(key, "an integer below 2^63");
  return value->get<int64_t>();
}

Result<int64_t> JsonFields::IntegerOr(std::string_view key, int64_t fallback) const {
  if (Find(key) == nullptr) return fallback;
  return Integer(key);
}

Result<JsonFields> JsonFields::Object(std::string_view key) const {
  const Json* value = Find(key);
  if (value == nullptr || !value->is_object()) return Malformed(key, "an object");
  return JsonFields(*value, PlaceOf(key));
}

Result<const Json*> JsonFields::Array(std::string_view key) const {
  const Json* value = Find(key);
  if (value == nullptr || !value->is_array()) return Malformed(key, "an array");
  return value;
}

}  // namespace pensieve::tokenizer
