// Typed access to the fields of one JSON object of an untrusted file. Every error is a DataLoss that names the field.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "base/json.h"
#include "base/status.h"

namespace pensieve::tokenizer {

class JsonFields {
 public:
  // `place` names the object in messages ("pre_tokenizer"). Borrows `object`.
  static Result<JsonFields> Of(const Json& object, std::string place);

  const std::string& place() const { return place_; }
  // The value, or null when it is missing or JSON's null.
  const Json* Find(std::string_view key) const;
  std::string PlaceOf(std::string_view key) const;
  Status Malformed(std::string_view key, std::string_view expected) const;

  Result<std::string> String(std::string_view key) const;  // required
  Result<std::string> StringOr(std::string_view key, std::string fallback) const;
  Result<std::optional<std::string>> OptionalString(std::string_view key) const;
  Result<bool> BoolOr(std::string_view key, bool fallback) const;
  Result<int64_t> Integer(std::string_view key) const;  // required
  Result<int64_t> IntegerOr(std::string_view key, int64_t fallback) const;
  Result<JsonFields> Object(std::string_view key) const;  // required
  Result<const Json*> Array(std::string_view key) const;  // required

 private:
  JsonFields(const Json& object, std::string place) : object_(&object), place_(std::move(place)) {}
  const Json* object_;
  std::string place_;
};

}  // namespace pensieve::tokenizer
