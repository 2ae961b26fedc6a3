// Typed, bounded reading of the fields of a stranger's JSON object. The first error is kept and names the field in
// dotted form ("tools.2.name: must be a string"), as both vendors' clients show it.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/json.h"
#include "base/status.h"

namespace pensieve::api {

// The member `key`, or null when `object` is no object, lacks it, or holds JSON null there.
const Json* Find(const Json& object, std::string_view key);

// The string member `key`, or "" for anything else: for parts of history that are rendered leniently.
std::string StringOr(const Json& object, std::string_view key, std::string_view fallback = "");

// "outer.inner"; just `inner` when `outer` is empty.
std::string JoinPath(std::string_view outer, std::string_view inner);
std::string JoinPath(std::string_view outer, size_t index);

// Absent and null mean "not given" throughout. Not thread-safe; `object` must outlive the reader.
class FieldReader {
 public:
  // `object` is what stands at `path` ("" for the body); anything but an object is an error.
  FieldReader(const Json& object, std::string path);

  const Json* Any(std::string_view key) const { return Find(object_, key); }
  std::optional<std::string> String(std::string_view key);
  std::optional<bool> Bool(std::string_view key);
  // A JSON number without a fractional part in [min, max].
  std::optional<int64_t> Integer(std::string_view key, int64_t min, int64_t max);
  std::optional<double> Number(std::string_view key, double min, double max);
  const Json* Array(std::string_view key);
  const Json* Object(std::string_view key);
  std::optional<std::vector<std::string>> Strings(std::string_view key, size_t count_max);

  std::string RequiredString(std::string_view key);
  const Json* RequiredArray(std::string_view key);
  void Require(std::string_view key);

  // Remembers "path.key: message" unless there is an error already.
  void Fail(std::string_view key, std::string_view message);
  const Status& status() const { return status_; }

 private:
  const Json& object_;
  const std::string path_;
  Status status_;
};

}  // namespace pensieve::api
