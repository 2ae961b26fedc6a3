// Objects: which keys there can be, and what may stand behind each.
#include <fmt/format.h>

#include <algorithm>
#include <set>

#include "chat/pattern.h"
#include "chat/schema_compiler.h"

namespace pensieve::chat {

using sampling::Budget;
using sampling::Dfa;
using sampling::kNoMax;
using NodeId = sampling::NodeId;

namespace {

constexpr size_t kNamesMax = 2048;
constexpr size_t kPatternsMax = 12;
constexpr size_t kKindsMax = 64;

// Whether `part` was applied by the schema of `ancestor`, at the same place, directly or through others.
bool IsBelow(const SchemaFacts& facts, const SchemaPart& part, const SchemaPart& ancestor) {
  const Json* schema = part.schema;
  for (size_t steps = 0; schema != nullptr && steps <= facts.parts.size(); ++steps) {
    if (schema == ancestor.schema) return true;
    const auto own = std::find_if(facts.parts.begin(), facts.parts.end(),
                                  [&](const SchemaPart& other) { return other.schema == schema; });
    if (own == facts.parts.end()) return false;
    schema = own->owner;
  }
  return false;
}

// What one part's own keywords say of a property; nothing when no keyword speaks of it.
SchemaParts OwnParts(const Json& schema, const std::string& name, const std::vector<std::string>& matching) {
  SchemaParts parts;
  const Json* properties = Find(schema, "properties");
  const Json* property = properties == nullptr ? nullptr : Find(*properties, name.c_str());
  if (property != nullptr) parts.push_back({.schema = property});
  if (const Json* patterns = Find(schema, "patternProperties")) {
    for (const std::string& pattern : matching) {
      if (const Json* found = Find(*patterns, pattern.c_str())) parts.push_back({.schema = found});
    }
  }
  const Json* additional = Find(schema, "additionalProperties");
  if (parts.empty() && additional != nullptr) parts.push_back({.schema = additional});
  return parts;
}

}  // namespace

SchemaParts PropertyParts(const SchemaFacts& facts, const std::string& name, const std::vector<std::string>& matching) {
  SchemaParts parts;
  for (const SchemaPart& part : facts.parts) {
    const SchemaParts own = OwnParts(*part.schema, name, matching);
    parts.insert(parts.end(), own.begin(), own.end());
    const Json* unevaluated = Find(*part.schema, "unevaluatedProperties");
    if (unevaluated == nullptr) continue;
    const bool evaluated = std::any_of(facts.parts.begin(), facts.parts.end(), [&](const SchemaPart& other) {
      return IsBelow(facts, other, part) && !OwnParts(*other.schema, name, matching).empty();
    });
    if (!evaluated) parts.push_back({.schema = unevaluated});
  }
  return parts;
}

// Keys as an automaton: labels of names first, in the order of their spelling, then one for each set of patterns that
// other keys may match.
class ObjectCompiler {
 public:
  ObjectCompiler(SchemaCompiler& compiler, const SchemaFacts& facts) : compiler_(compiler), facts_(facts) {}

  Result<NodeId> Make() {
    PENSIEVE_RETURN_IF_ERROR(FindNames());
    PENSIEVE_RETURN_IF_ERROR(FindKeys());
    auto& builder = compiler_.builder_;
    const NodeId open = builder.Terminal(compiler_.automata_.open_object);
    const NodeId close = builder.Terminal(compiler_.automata_.close_object);
    if (spec_.keys == nullptr || spec_.keys->empty()) {
      const bool possible = facts_.properties_min == 0 && facts_.required.empty();
      return possible ? builder.Sequence({open, close}) : builder.Choice({});
    }
    PENSIEVE_RETURN_IF_ERROR(AddValues());
    PENSIEVE_RETURN_IF_ERROR(AddCounts());
    spec_.separator = builder.Terminal(compiler_.automata_.comma);
    return builder.Sequence({open, builder.Members(std::move(spec_)), close});
  }

 private:
  struct Pattern {
    std::string text;
    Dfa dfa;
  };

  Status FindNames() {
    std::set<std::string> names = facts_.required;
    std::set<std::string> patterns;
    for (const SchemaPart& part : facts_.parts) {
      if (const Json* properties = Find(*part.schema, "properties")) {
        for (const auto& entry : properties->items()) names.insert(entry.key());
      }
      if (const Json* found = Find(*part.schema, "patternProperties")) {
        for (const auto& entry : found->items()) patterns.insert(entry.key());
      }
      if (names.size() > kNamesMax) return RefuseKeyword("properties", "too many");
      if (patterns.size() > kPatternsMax) return RefuseKeyword("patternProperties", "too many");
    }
    for (const auto& [when, then] : facts_.implied) {
      names.insert(when);
      names.insert(then);
    }
    for (const std::string& name : names) names_.emplace_back(DumpJson(Json(name)), name);
    std::sort(names_.begin(), names_.end());
    for (const std::string& text : patterns) {
      auto dfa = compiler_.PatternAutomaton(text, /*whole=*/false);
      if (!dfa.has_value()) return AtKeyword("patternProperties", dfa.error());
      patterns_.push_back({text, *std::move(dfa)});
    }
    return OkStatus();
  }

  // Keys that propertyNames allow; nothing when it is not there.
  Result<std::optional<Dfa>> AllowedKeys() const {
    std::optional<Dfa> allowed;
    for (const Json* schema : facts_.name_schemas) {
      PENSIEVE_TRY(const SchemaFacts of_name, compiler_.reader_.Read({{.schema = schema}}));
      if (!of_name.alternatives.empty()) return RefuseKeyword("propertyNames", "anyOf and oneOf cannot be enforced");
      Dfa keys;
      if (of_name.impossible || (of_name.types & kString) == 0) { return std::optional<Dfa>(Dfa()); }
      if (!of_name.values.empty()) {
        PENSIEVE_TRY(const auto values, compiler_.AllowedValues(of_name));
        std::vector<std::string> texts;
        for (const Json* value : values) {
          if (value->is_string()) texts.push_back(DumpJson(*value));
        }
        PENSIEVE_TRY(keys, sampling::LiteralSet(texts, /*labelled=*/false, compiler_.budget_));
      } else {
        auto found = compiler_.StringAutomaton(of_name);
        if (!found.has_value()) return found.error().WithContext("propertyNames");
        keys = *std::move(found);
      }
      if (allowed) { PENSIEVE_TRY(keys, Intersect(*allowed, keys, compiler_.budget_)); }
      allowed = std::move(keys);
    }
    return allowed;
  }

  Status FindKeys() {
    PENSIEVE_TRY(const std::optional<Dfa> allowed, AllowedKeys());
    const auto named = static_cast<int32_t>(names_.size());
    std::vector<std::string> texts;
    for (const auto& [spelled, name] : names_) texts.push_back(spelled);
    PENSIEVE_TRY(Dfa keys, sampling::LiteralSet(texts, /*labelled=*/true, compiler_.budget_));
    const bool only_names = patterns_.empty() && IsImpossible(PropertyParts(facts_, kNoName, {}));
    if (only_names && !allowed) {
      PENSIEVE_RETURN_IF_ERROR(keys.FindReach(named));
      spec_.keys = std::make_shared<const Dfa>(std::move(keys));
      return OkStatus();
    }
    if (!allowed && names_.empty() && patterns_.empty()) {
      spec_.keys = compiler_.automata_.any_key;
      kinds_ = {0};
      return OkStatus();
    }
    const Dfa& base = allowed ? *allowed : *compiler_.automata_.canonical_string;
    const auto find_name = [&](int32_t, int32_t name) { return name == Dfa::kNoLabel ? named : name; };
    const auto of_base = [&](int32_t own, int32_t name) {
      return own == Dfa::kNoLabel ? Dfa::kNoLabel : find_name(own, name);
    };
    PENSIEVE_TRY(Dfa joined, Product(base, keys, of_base, /*both=*/only_names, compiler_.budget_));
    // Of keys without a name, the label says which patterns they match.
    for (size_t i = 0; i < patterns_.size(); ++i) {
      const auto add_bit = [&](int32_t label, int32_t match) {
        if (label < named || match == Dfa::kNoLabel) return label;
        return label + (int32_t{1} << i);
      };
      PENSIEVE_TRY(joined, Product(joined, patterns_[i].dfa, add_bit, /*both=*/false, compiler_.budget_));
    }
    return NumberKinds(joined);
  }

  Status NumberKinds(const Dfa& joined) {
    const auto named = static_cast<int32_t>(names_.size());
    const auto renumber = [&](int32_t label, int32_t) {
      if (label < named) return label;
      const auto found = std::find(kinds_.begin(), kinds_.end(), label - named);
      if (found == kinds_.end()) kinds_.push_back(label - named);
      return named + static_cast<int32_t>(std::find(kinds_.begin(), kinds_.end(), label - named) - kinds_.begin());
    };
    PENSIEVE_TRY(Dfa keys, Product(joined, Dfa(), renumber, /*both=*/false, compiler_.budget_));
    if (kinds_.size() > kKindsMax) return RefuseKeyword("patternProperties", "match too many kinds of keys");
    PENSIEVE_RETURN_IF_ERROR(keys.FindReach(named));
    spec_.keys = std::make_shared<const Dfa>(std::move(keys));
    return OkStatus();
  }

  Status AddValues() {
    for (const auto& [spelled, name] : names_) {
      std::vector<std::string> matching;
      for (const Pattern& pattern : patterns_) {
        if (pattern.dfa.Match(spelled) != Dfa::kNoLabel) matching.push_back(pattern.text);
      }
      PENSIEVE_RETURN_IF_ERROR(AddValue(PropertyParts(facts_, name, matching)));
    }
    for (const int32_t bits : kinds_) {
      std::vector<std::string> matching;
      for (size_t i = 0; i < patterns_.size(); ++i) {
        if ((bits >> i & 1) != 0) matching.push_back(patterns_[i].text);
      }
      PENSIEVE_RETURN_IF_ERROR(AddValue(PropertyParts(facts_, kNoName, matching)));
    }
    return compiler_.builder_.status();
  }

  Status AddValue(SchemaParts parts) {
    auto& builder = compiler_.builder_;
    if (IsImpossible(parts)) {
      spec_.values.push_back(builder.Choice({}));
      return OkStatus();
    }
    const NodeId value = compiler_.NodeFor(std::move(parts));
    spec_.values.push_back(builder.Sequence({builder.Terminal(compiler_.automata_.colon), value}));
    return OkStatus();
  }

  Status AddCounts() {
    for (size_t i = 0; i < names_.size(); ++i) {
      const auto label = static_cast<int32_t>(i);
      if (facts_.required.contains(names_[i].second)) {
        // A name that no key may have: nothing can satisfy it.
        if (spec_.keys->Match(names_[i].first) != label) spec_.values[i] = compiler_.builder_.Choice({});
        spec_.required.push_back(label);
      } else if (spec_.keys->Match(names_[i].first) != label) {
        spec_.values[i] = compiler_.builder_.Choice({});
      }
    }
    const auto label_of = [&](const std::string& name) {
      const auto found = std::find_if(names_.begin(), names_.end(), [&](const auto& n) { return n.second == name; });
      return static_cast<int32_t>(found - names_.begin());
    };
    for (const auto& [when, then] : facts_.implied) spec_.implies.emplace_back(label_of(when), label_of(then));
    if (!spec_.implies.empty() && facts_.properties_max != INT64_MAX)
      return RefuseKeyword("dependentRequired", "cannot be enforced together with maxProperties");
    if (!kinds_.empty() && facts_.properties_min > static_cast<int64_t>(names_.size()) + 1)
      return RefuseKeyword("minProperties", "cannot be enforced for properties without a name in the schema");
    spec_.min = facts_.properties_min;
    spec_.max = facts_.properties_max == INT64_MAX ? kNoMax : facts_.properties_max;
    return OkStatus();
  }

  // Stands for a key that is not among the names; no pattern is asked about it.
  inline static const std::string kNoName = std::string("\xFF", 1);

  SchemaCompiler& compiler_;
  const SchemaFacts& facts_;
  std::vector<std::pair<std::string, std::string>> names_;  // as JSON strings, ascending, and as they are
  std::vector<Pattern> patterns_;
  std::vector<int32_t> kinds_;  // of each label behind the names: the patterns it matches, as bits
  sampling::MembersSpec spec_;
};

Result<NodeId> SchemaCompiler::MakeObject(const SchemaFacts& facts) { return ObjectCompiler(*this, facts).Make(); }

}  // namespace pensieve::chat
