// Typed, range-checked access to the fields of a JSON configuration file, with one good error instead of many tests.
//
// The first field that is missing, of the wrong type or out of range is remembered and later reads return their
// defaults; the caller looks at status() once, before it uses anything.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/json.h"
#include "base/status.h"

namespace pensieve::formats {

struct IntRange {
  int64_t min = INT64_MIN;
  int64_t max = INT64_MAX;
};

class ConfigFields {
 public:
  // Borrows `object`, which must outlive this. `place` is the file, for messages; `prefix` the path of `object` in it.
  ConfigFields(std::string place, const Json& object, std::string prefix = "");

  // The value of a field, or null when it is absent or JSON null.
  const Json* Find(std::string_view key) const;
  bool Has(std::string_view key) const { return Find(key) != nullptr; }

  int64_t RequiredInt(std::string_view key, IntRange range);
  int64_t Int(std::string_view key, int64_t fallback, IntRange range);
  std::optional<int64_t> OptionalInt(std::string_view key, IntRange range);
  double Float(std::string_view key, double fallback);  // finite
  std::optional<double> OptionalFloat(std::string_view key);
  bool Bool(std::string_view key, bool fallback);
  std::optional<bool> OptionalBool(std::string_view key);
  std::string String(std::string_view key, std::string_view fallback);
  std::vector<double> Floats(std::string_view key, size_t count_max);
  std::vector<std::string> Strings(std::string_view key, size_t count_max);
  // An integer or a list of integers, as eos_token_id is written.
  std::vector<int64_t> IntOrInts(std::string_view key, IntRange range, size_t count_max);
  // The nested object, or an empty one when the field is absent.
  ConfigFields Object(std::string_view key);
  // Takes over the first error of a nested reader.
  void Absorb(const ConfigFields& nested) { Fail(nested.status_); }

  // "config.json: field "rope_scaling.factor" must be ...".
  Status Error(std::string_view key, std::string_view problem) const;
  void Fail(const Status& error);
  const Status& status() const { return status_; }
  const Json& json() const { return *object_; }
  const std::string& place() const { return place_; }
  // Whether these are the fields of an object inside the file's.
  bool is_nested() const { return !prefix_.empty(); }

 private:
  std::string place_;
  const Json* object_;
  std::string prefix_;
  Status status_;
};

// Reads and parses a JSON object file of at most `bytes_max` bytes. Errors name the file.
Result<Json> ReadJsonObject(const std::string& path, size_t bytes_max);

}  // namespace pensieve::formats
