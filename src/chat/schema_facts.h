// What a JSON Schema demands, keyword by keyword, of one place in a document: several schemas that must all hold there
// are read into one list of facts. Internal to chat/.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "base/json.h"
#include "base/status.h"
#include "chat/text_automata.h"

namespace pensieve::chat {

enum JsonType : uint32_t {
  kNull = 1,
  kBoolean = 2,
  kInteger = 4,
  kFraction = 8,  // numbers that are no integers
  kString = 16,
  kArray = 32,
  kObject = 64,
  kAnyType = 127,
};

// The type of a value; kInteger for 1.0 too.
JsonType TypeOf(const Json& value);

// One schema that must hold, and what of it was dealt with already.
struct SchemaPart {
  const Json* schema = nullptr;
  const Json* owner = nullptr;  // the schema which applied it at the same place, or null
  bool expanded = false;        // its $ref and allOf stand in the list by themselves
  bool no_any_of = false;
  bool no_one_of = false;
  bool no_values = false;  // const and enum
  auto operator<=>(const SchemaPart&) const = default;
};
using SchemaParts = std::vector<SchemaPart>;

struct SchemaFacts {
  SchemaParts parts;  // all that apply here, expanded
  bool impossible = false;
  uint32_t types = kAnyType;
  bool typed = false;      // a type was named
  bool only_types = true;  // nothing but types (and the values below) was demanded

  std::vector<std::vector<const Json*>> values;  // a value must be in each of the lists
  std::vector<const Json*> excluded;             // and equal to none of these

  std::optional<Decimal> min, max;
  bool min_excluded = false;
  bool max_excluded = false;
  std::vector<Decimal> multiples;

  int64_t length_min = 0;
  int64_t length_max = INT64_MAX;
  std::vector<std::string> patterns;
  std::vector<std::string> formats;

  bool unique_items = false;
  int64_t items_min = 0;
  int64_t items_max = INT64_MAX;

  std::set<std::string> required;
  std::vector<std::pair<std::string, std::string>> implied;  // dependentRequired
  std::vector<const Json*> name_schemas;                     // propertyNames
  int64_t properties_min = 0;
  int64_t properties_max = INT64_MAX;

  // Schemas of which one must hold, in the order in which they were found.
  struct Alternatives {
    size_t part;  // of `parts`
    const Json* schemas;
    bool exactly_one;
  };
  std::vector<Alternatives> alternatives;
  uint32_t hinted_types = 0;  // those to which keywords apply, for schemas without any type
};

// Reads schemas of one document, whose references lead into it. Thread-compatible; the document must outlive it.
class SchemaReader {
 public:
  explicit SchemaReader(const Json& document);

  // InvalidArgument beginning with the keyword that is wrong or cannot be enforced.
  Result<SchemaFacts> Read(const SchemaParts& parts) const;

 private:
  class Collector;
  Result<const Json*> Resolve(const std::string& reference) const;
  void FindNames(const Json& json, int depth);

  const Json& document_;
  std::map<std::string, const Json*> names_;  // $id, and "#" with $anchor
};

}  // namespace pensieve::chat
