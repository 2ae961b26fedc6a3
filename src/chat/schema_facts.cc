#include "chat/schema_facts.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <unordered_map>

#include "base/utf8.h"

namespace pensieve::chat {
namespace {

constexpr int kDepthMax = 64;
constexpr int64_t kCountMax = 1'000'000;  // a minimum beyond this can never be met
constexpr size_t kPartsMax = 512;

enum class Keyword : uint8_t {
  kAnnotation,  // says nothing about what is valid, or is read together with another keyword
  kRefused,     // says something that cannot be enforced
  kType,
  kConst,
  kEnum,
  kAllOf,
  kAnyOf,
  kOneOf,
  kNot,
  kIf,
  kRef,
  kNullable,
  kMinimum,
  kMaximum,
  kExclusiveMinimum,
  kExclusiveMaximum,
  kMultipleOf,
  kMinLength,
  kMaxLength,
  kPattern,
  kFormat,
  kItems,
  kMinItems,
  kMaxItems,
  kUniqueItems,
  kContains,
  kProperties,
  kRequired,
  kMinProperties,
  kMaxProperties,
  kPropertyNames,
  kDependentRequired,
  kUnevaluated,
};

const std::unordered_map<std::string, Keyword>& Keywords() {
  using enum Keyword;
  static const std::unordered_map<std::string, Keyword> keywords = {
      {"type", kType},
      {"const", kConst},
      {"enum", kEnum},
      {"allOf", kAllOf},
      {"anyOf", kAnyOf},
      {"oneOf", kOneOf},
      {"not", kNot},
      {"if", kIf},
      {"$ref", kRef},
      {"nullable", kNullable},
      {"minimum", kMinimum},
      {"maximum", kMaximum},
      {"exclusiveMinimum", kExclusiveMinimum},
      {"exclusiveMaximum", kExclusiveMaximum},
      {"multipleOf", kMultipleOf},
      {"minLength", kMinLength},
      {"maxLength", kMaxLength},
      {"pattern", kPattern},
      {"format", kFormat},
      {"items", kItems},
      {"prefixItems", kItems},
      {"additionalItems", kItems},
      {"minItems", kMinItems},
      {"maxItems", kMaxItems},
      {"uniqueItems", kUniqueItems},
      {"contains", kContains},
      {"properties", kProperties},
      {"patternProperties", kProperties},
      {"additionalProperties", kProperties},
      {"required", kRequired},
      {"minProperties", kMinProperties},
      {"maxProperties", kMaxProperties},
      {"propertyNames", kPropertyNames},
      {"dependentRequired", kDependentRequired},
      {"dependencies", kDependentRequired},
      {"unevaluatedProperties", kUnevaluated},
      {"unevaluatedItems", kUnevaluated},
      {"dependentSchemas", kRefused},
      {"$dynamicRef", kRefused},
      {"$recursiveRef", kRefused},
      {"divisibleBy", kRefused},
      {"disallow", kRefused},
      {"extends", kRefused},
  };
  return keywords;
}

Status Refuse(const std::string& keyword, std::string_view why) {
  return InvalidArgument(fmt::format("{}: {}", keyword, why));
}

bool IsScalar(const Json& value) { return !value.is_structured(); }

Result<int64_t> ReadCount(const std::string& keyword, const Json& value) {
  if (value.is_number_unsigned() && value.get<uint64_t>() > INT64_MAX) return INT64_MAX;
  if (!value.is_number() || value < 0) return Refuse(keyword, "must be a whole number of 0 or more");
  if (value.is_number_float()) {
    const double number = value.get<double>();
    if (std::floor(number) != number) return Refuse(keyword, "must be a whole number of 0 or more");
    return number > 9e18 ? INT64_MAX : static_cast<int64_t>(number);
  }
  return value.get<int64_t>();
}

uint32_t TypesNamed(const std::string& name) {
  static const std::pair<const char*, uint32_t> kNames[] = {
      {"null", kNull},     {"boolean", kBoolean}, {"integer", kInteger}, {"number", kInteger | kFraction},
      {"string", kString}, {"array", kArray},     {"object", kObject}};
  for (const auto& [known, types] : kNames) {
    if (name == known) return types;
  }
  return 0;
}

Result<uint32_t> ReadTypes(const Json& value) {
  uint32_t types = 0;
  for (const Json& name : value.is_array() ? value : Json::array({value})) {
    const uint32_t named = name.is_string() ? TypesNamed(name.get<std::string>()) : 0;
    if (named == 0) return Refuse("type", "must name one or several of JSON's types");
    types |= named;
  }
  return types;
}

// The values that a schema of const or enum alone allows; nothing for any other schema.
bool TakeScalars(const Json& schema, std::vector<const Json*>& values) {
  if (!schema.is_object()) return false;
  bool found = false;
  for (const auto& [key, value] : schema.items()) {
    const auto known = Keywords().find(key);
    const bool is_value = key == "const" || key == "enum";
    if (!is_value && known != Keywords().end()) return false;
    if (key == "const") {
      if (found || !IsScalar(value)) return false;
      values.push_back(&value);
      found = true;
    }
    if (key == "enum") {
      if (found || !value.is_array() || !std::all_of(value.begin(), value.end(), IsScalar)) return false;
      for (const Json& each : value) values.push_back(&each);
      found = true;
    }
  }
  return found;
}

}  // namespace

JsonType TypeOf(const Json& value) {
  if (value.is_null()) return kNull;
  if (value.is_boolean()) return kBoolean;
  if (value.is_string()) return kString;
  if (value.is_array()) return kArray;
  if (value.is_object()) return kObject;
  if (value.is_number_float() && std::floor(value.get<double>()) != value.get<double>()) return kFraction;
  return kInteger;
}

class SchemaReader::Collector {
 public:
  explicit Collector(const SchemaReader& reader) : reader_(reader) {}

  Status Add(SchemaPart part, int depth) {
    if (depth > kDepthMax || facts_.parts.size() >= kPartsMax)
      return Refuse("$ref", "too many schemas apply to one place");
    const Json& schema = *part.schema;
    if (schema.is_boolean()) {
      facts_.impossible |= !schema.get<bool>();
      return OkStatus();
    }
    if (!schema.is_object()) return InvalidArgument("a schema must be an object or a boolean");
    if (std::find(path_.begin(), path_.end(), part.schema) != path_.end()) return Refuse("$ref", "refers to itself");
    for (const SchemaPart& other : facts_.parts) {
      if (other.schema != part.schema) continue;
      // Itself among its own alternatives says nothing, and must not pass for one that is met.
      if (depth > 0 && (other.no_any_of || other.no_one_of)) return Refuse("$ref", "refers to itself");
      return OkStatus();
    }
    const bool expanded = std::exchange(part.expanded, true);
    part_ = facts_.parts.size();
    facts_.parts.push_back(part);
    const size_t own = part_;
    path_.push_back(part.schema);
    for (const auto& [key, value] : schema.items()) {
      const auto known = Keywords().find(key);
      if (known == Keywords().end()) continue;
      part_ = own;
      if (expanded && (known->second == Keyword::kRef || known->second == Keyword::kAllOf)) continue;
      PENSIEVE_RETURN_IF_ERROR(Apply(known->second, key, value, schema, depth));
    }
    path_.pop_back();
    return OkStatus();
  }

  SchemaFacts Take() {
    if (!facts_.typed && facts_.hinted_types != 0) facts_.types = facts_.hinted_types;
    return std::move(facts_);
  }

 private:
  // All but types and values count as more than that.
  Status Apply(Keyword keyword, const std::string& key, const Json& value, const Json& schema, int depth) {
    using enum Keyword;
    switch (keyword) {
      case kAnnotation: return OkStatus();
      case kRefused: return Refuse(key, "cannot be enforced");
      case kType: return AddTypes(value, schema);
      case kNullable: return OkStatus();  // read with the type
      case kConst:
      case kEnum: return AddValues(key, value);
      case kRef: return AddReference(key, value, schema, depth);
      case kAllOf: return AddAll(value, schema, depth);
      case kAnyOf:
      case kOneOf: return AddAlternatives(key, value);
      default: break;
    }
    facts_.only_types = false;
    switch (keyword) {
      case kNot: return AddNot(value);
      case kIf: {
        const bool used = schema.contains("then") || schema.contains("else");
        return used ? Refuse("if", "cannot be enforced") : OkStatus();
      }
      case kMinimum:
      case kMaximum:
      case kExclusiveMinimum:
      case kExclusiveMaximum:
      case kMultipleOf: return AddNumber(keyword, key, value);
      case kMinLength:
      case kMaxLength:
      case kPattern:
      case kFormat: return AddString(keyword, key, value);
      case kItems:
      case kMinItems:
      case kMaxItems:
      case kUniqueItems:
      case kContains: return AddArray(keyword, key, value, schema);
      default: return AddObject(keyword, key, value);
    }
  }

  Status AddTypes(const Json& value, const Json& schema) {
    PENSIEVE_TRY(uint32_t types, ReadTypes(value));
    const auto nullable = schema.find("nullable");  // of OpenAPI 3.0
    if (nullable != schema.end() && *nullable == true) types |= kNull;
    facts_.types &= types;
    facts_.typed = true;
    return OkStatus();
  }

  Status AddValues(const std::string& key, const Json& value) {
    if (facts_.parts[part_].no_values) return OkStatus();
    if (key == "enum" && !value.is_array()) return Refuse(key, "must be an array");
    std::vector<const Json*> values;
    if (key == "const") values.push_back(&value);
    if (key == "enum") {
      for (const Json& each : value) values.push_back(&each);
    }
    facts_.values.push_back(std::move(values));
    return OkStatus();
  }

  Status AddReference(const std::string& key, const Json& value, const Json& schema, int depth) {
    if (!value.is_string()) return Refuse(key, "must be a string");
    PENSIEVE_TRY(const Json* target, reader_.Resolve(value.get<std::string>()));
    return Add({.schema = target, .owner = &schema}, depth + 1);
  }

  Status AddAll(const Json& value, const Json& schema, int depth) {
    if (!value.is_array()) return Refuse("allOf", "must be an array");
    for (const Json& each : value) PENSIEVE_RETURN_IF_ERROR(Add({.schema = &each, .owner = &schema}, depth + 1));
    return OkStatus();
  }

  Status AddAlternatives(const std::string& key, const Json& value) {
    const SchemaPart& part = facts_.parts[part_];
    const bool exactly_one = key == "oneOf";
    if (exactly_one ? part.no_one_of : part.no_any_of) return OkStatus();
    if (!value.is_array() || value.empty()) return Refuse(key, "must be an array of schemas");
    // Many constants are one list of values.
    std::vector<const Json*> values;
    const bool scalars =
        std::all_of(value.begin(), value.end(), [&](const Json& each) { return TakeScalars(each, values); });
    if (scalars) {
      if (!part.no_values) facts_.values.push_back(std::move(values));
    } else {
      facts_.alternatives.push_back({part_, &value, exactly_one});
    }
    return OkStatus();
  }

  // Only what leaves a list of types, or all but some values.
  Status AddNot(const Json& value) {
    if (value.is_boolean() || (value.is_object() && value.empty())) {
      facts_.impossible |= value != false;
      return OkStatus();
    }
    if (!value.is_object() || value.size() != 1) return Refuse("not", "cannot be enforced");
    const std::string& key = value.begin().key();
    const Json& inner = value.begin().value();
    if (key == "const") {
      facts_.excluded.push_back(&inner);
      return OkStatus();
    }
    if (key == "enum" && inner.is_array()) {
      for (const Json& each : inner) facts_.excluded.push_back(&each);
      return OkStatus();
    }
    if (key != "type") return Refuse("not", "cannot be enforced");
    PENSIEVE_TRY(const uint32_t types, ReadTypes(inner));
    facts_.types &= ~types;
    if ((types & (kInteger | kFraction)) == kInteger) return Refuse("not", "cannot be enforced for integers");
    facts_.typed = true;
    return OkStatus();
  }

  Status AddNumber(Keyword keyword, const std::string& key, const Json& value) {
    facts_.hinted_types |= kInteger | kFraction;
    if (!value.is_number()) return Refuse(key, "must be a number");
    const Decimal number = ToDecimal(value);
    if (keyword == Keyword::kMultipleOf) {
      if (number.negative || Compare(number, Decimal()) == 0) return Refuse(key, "must be greater than 0");
      facts_.multiples.push_back(number);
      return OkStatus();
    }
    const bool is_min = keyword == Keyword::kMinimum || keyword == Keyword::kExclusiveMinimum;
    const bool excluded = keyword == Keyword::kExclusiveMinimum || keyword == Keyword::kExclusiveMaximum;
    AddBound(number, is_min, excluded);
    return OkStatus();
  }

  void AddBound(const Decimal& number, bool is_min, bool excluded) {
    auto& bound = is_min ? facts_.min : facts_.max;
    bool& bound_excluded = is_min ? facts_.min_excluded : facts_.max_excluded;
    const int order = bound ? Compare(number, *bound) * (is_min ? 1 : -1) : 1;
    if (order > 0) bound = number;
    if (order >= 0) bound_excluded = excluded || (order == 0 && bound_excluded);
  }

  Status AddString(Keyword keyword, const std::string& key, const Json& value) {
    if (keyword == Keyword::kFormat) return AddFormat(value);
    facts_.hinted_types |= kString;
    if (keyword == Keyword::kPattern) {
      if (!value.is_string()) return Refuse(key, "must be a string");
      facts_.patterns.push_back(value.get<std::string>());
      return OkStatus();
    }
    return AddRange(key, value, keyword == Keyword::kMinLength, facts_.length_min, facts_.length_max);
  }

  static Status AddRange(const std::string& key, const Json& value, bool is_min, int64_t& min, int64_t& max) {
    PENSIEVE_TRY(const int64_t count, ReadCount(key, value));
    if (!is_min) {
      max = std::min(max, count > kCountMax * 1000 ? INT64_MAX : count);
      return OkStatus();
    }
    if (count > kCountMax) return Refuse(key, "is more than an answer can hold");
    min = std::max(min, count);
    return OkStatus();
  }

  Status AddFormat(const Json& value) {
    if (!value.is_string()) return Refuse("format", "must be a string");
    const auto name = value.get<std::string>();
    static const std::unordered_map<std::string, std::pair<const char*, const char*>> kIntegers = {
        {"int32", {"-2147483648", "2147483647"}},
        {"uint32", {"0", "4294967295"}},
        {"int64", {"-9223372036854775808", "9223372036854775807"}},
        {"uint64", {"0", "18446744073709551615"}}};
    // These say how a value is kept or shown.
    for (const char* harmless : {"float", "double", "decimal", "password", "binary", "path", "file-path", "textarea",
                                 "multi-line", "markdown", "html", "string", "json-string"}) {
      if (name == harmless) return OkStatus();
    }
    const auto integer = kIntegers.find(name);
    if (integer == kIntegers.end()) {
      facts_.hinted_types |= kString;
      facts_.formats.push_back(name);
      return OkStatus();
    }
    const bool numbers = (facts_.types & (kInteger | kFraction)) != 0;
    for (const bool is_min : {true, false}) {
      const std::string text = is_min ? integer->second.first : integer->second.second;
      Decimal bound;
      bound.negative = text.starts_with('-');
      bound.whole = text.substr(bound.negative ? 1 : 0);
      if (numbers) AddBound(bound, is_min, /*excluded=*/false);
    }
    return OkStatus();
  }

  Status AddArray(Keyword keyword, const std::string& key, const Json& value, const Json& schema) {
    facts_.hinted_types |= kArray;
    switch (keyword) {
      case Keyword::kMinItems: return AddRange(key, value, true, facts_.items_min, facts_.items_max);
      case Keyword::kMaxItems: return AddRange(key, value, false, facts_.items_min, facts_.items_max);
      case Keyword::kUniqueItems:
        if (!value.is_boolean()) return Refuse(key, "must be a boolean");
        facts_.unique_items |= value.get<bool>();
        return OkStatus();
      case Keyword::kContains: {
        const auto min = schema.find("minContains");
        const bool optional = min != schema.end() && *min == 0 && !schema.contains("maxContains");
        return optional ? OkStatus() : Refuse(key, "cannot be enforced");
      }
      default: break;
    }
    const bool tuple = key == "prefixItems" || (key == "items" && value.is_array());
    if (tuple ? !value.is_array() : !value.is_object() && !value.is_boolean())
      return Refuse(key, tuple ? "must be an array of schemas" : "must be a schema");
    if (key == "items" && value.is_array() && schema.contains("prefixItems"))
      return Refuse(key, "must be a schema beside prefixItems");
    return OkStatus();  // read where arrays are made
  }

  Status AddObject(Keyword keyword, const std::string& key, const Json& value) {
    if (keyword == Keyword::kUnevaluated) {
      if (value == true) return OkStatus();
      return key == "unevaluatedProperties" ? OkStatus() : Refuse(key, "cannot be enforced");
    }
    facts_.hinted_types |= kObject;
    switch (keyword) {
      case Keyword::kMinProperties: return AddRange(key, value, true, facts_.properties_min, facts_.properties_max);
      case Keyword::kMaxProperties: return AddRange(key, value, false, facts_.properties_min, facts_.properties_max);
      case Keyword::kPropertyNames: facts_.name_schemas.push_back(&value); return OkStatus();
      case Keyword::kRequired:
        if (!value.is_array()) return Refuse(key, "must be an array of strings");
        for (const Json& name : value) {
          if (!name.is_string()) return Refuse(key, "must be an array of strings");
          facts_.required.insert(name.get<std::string>());
        }
        return OkStatus();
      case Keyword::kDependentRequired: return AddImplied(key, value);
      default: break;
    }
    const bool schema = key == "additionalProperties";
    if (schema ? !value.is_object() && !value.is_boolean() : !value.is_object())
      return Refuse(key, schema ? "must be a schema" : "must be an object of schemas");
    return OkStatus();  // read where objects are made
  }

  Status AddImplied(const std::string& key, const Json& value) {
    if (!value.is_object()) return Refuse(key, "must be an object");
    for (const auto& [name, others] : value.items()) {
      if (!others.is_array()) return Refuse(key, "only lists of names can be enforced");
      for (const Json& other : others) {
        if (!other.is_string()) return Refuse(key, "only lists of names can be enforced");
        facts_.implied.emplace_back(name, other.get<std::string>());
      }
    }
    return OkStatus();
  }

  const SchemaReader& reader_;
  SchemaFacts facts_;
  size_t part_ = 0;
  std::vector<const Json*> path_;
};

SchemaReader::SchemaReader(const Json& document) : document_(document) { FindNames(document, 0); }

void SchemaReader::FindNames(const Json& json, int depth) {
  if (depth > 2 * kDepthMax) return;
  if (json.is_object()) {
    for (const char* key : {"$id", "$anchor"}) {
      const auto name = json.find(key);
      if (name == json.end() || !name->is_string()) continue;
      names_.try_emplace((key[1] == 'a' ? "#" : "") + name->get<std::string>(), &json);
    }
  }
  if (!json.is_structured()) return;
  for (const Json& child : json) FindNames(child, depth + 1);
}

// A JSON pointer behind "#", an anchor, or what some part of the document calls itself.
Result<const Json*> SchemaReader::Resolve(const std::string& reference) const {
  if (reference == "#") return &document_;
  const auto named = names_.find(reference);
  if (named != names_.end()) return named->second;
  if (!reference.starts_with("#/"))
    return Refuse("$ref", fmt::format("\"{}\" leads nowhere", reference.substr(0, 100)));
  const Json* at = &document_;
  for (size_t begin = 2; begin <= reference.size();) {
    const size_t end = std::min(reference.find('/', begin), reference.size());
    std::string step;
    for (size_t i = begin; i < end; ++i) {
      if (reference[i] == '%' && i + 2 < end) {
        step += static_cast<char>(std::strtol(reference.substr(i + 1, 2).c_str(), nullptr, 16));
        i += 2;
      } else if (reference[i] == '~' && i + 1 < end) {
        step += reference[++i] == '0' ? '~' : '/';
      } else {
        step += reference[i];
      }
    }
    begin = end + 1;
    const bool is_number =
        !step.empty() && step.size() < 7 && step.find_first_not_of("0123456789") == std::string::npos;
    if (at->is_object() && at->contains(step)) {
      at = &(*at)[step];
    } else if (at->is_array() && is_number && static_cast<size_t>(std::stoi(step)) < at->size()) {
      at = &(*at)[static_cast<size_t>(std::stoi(step))];
    } else {
      return Refuse("$ref", fmt::format("\"{}\" leads nowhere", reference.substr(0, 100)));
    }
  }
  return at;
}

Result<SchemaFacts> SchemaReader::Read(const SchemaParts& parts) const {
  Collector collector(*this);
  for (const SchemaPart& part : parts) PENSIEVE_RETURN_IF_ERROR(collector.Add(part, 0));
  return collector.Take();
}

}  // namespace pensieve::chat
