#include "chat/json_schema.h"

#include <fmt/format.h>

#include <algorithm>
#include <numeric>
#include <set>
#include <unordered_set>

#include "chat/pattern.h"
#include "chat/schema_compiler.h"
#include "sampling/constraint.h"

namespace pensieve::chat {

using sampling::Budget;
using sampling::Dfa;
using sampling::DfaPtr;
using sampling::GrammarBuilder;
using sampling::kNoMax;
using NodeId = sampling::NodeId;

namespace {

constexpr size_t kPlacesMax = 4096;
constexpr size_t kTupleMax = 1024;
constexpr size_t kOneOfMax = 64;
constexpr int kDisjointDepthMax = 6;
constexpr int64_t kMultipleMax = 10'000;
// To bring the product of a pattern and a length to an end within the budget.
constexpr int64_t kCountedLengthMax = 4096;

// Equal values have equal keys: 1 and 1.0 are one value, and so are objects in another order.
std::string ValueKey(const Json& value) {
  if (value.is_number()) {
    const Decimal number = ToDecimal(value);
    return (number.negative ? "-" : "") + number.whole + "." + number.fraction;
  }
  if (value.is_array()) {
    std::string key = "[";
    for (const Json& each : value) key += ValueKey(each) + ",";
    return key + "]";
  }
  if (!value.is_object()) return DumpJson(value);
  std::map<std::string, std::string> members;
  for (const auto& [name, each] : value.items()) members[DumpJson(Json(name))] = ValueKey(each);
  std::string key = "{";
  for (const auto& [name, each] : members) key += name + ":" + each + ",";
  return key + "}";
}

SchemaParts With(SchemaParts parts, SchemaPart more) {
  parts.push_back(more);
  return parts;
}

}  // namespace

Status RefuseKeyword(const std::string& keyword, std::string_view why) {
  return InvalidArgument(fmt::format("{}: {}", keyword, why));
}

Status AtKeyword(const std::string& keyword, const Status& error) {
  return Status(StatusCode::kInvalidArgument, error.message()).WithContext(keyword);
}

const Json* Find(const Json& schema, const char* keyword) {
  if (!schema.is_object()) return nullptr;
  const auto found = schema.find(keyword);
  return found == schema.end() ? nullptr : &*found;
}

bool IsImpossible(const SchemaParts& parts) {
  return std::any_of(parts.begin(), parts.end(), [](const SchemaPart& part) { return *part.schema == false; });
}

SchemaParts ItemParts(const SchemaFacts& facts, size_t position) {
  SchemaParts parts;
  for (const SchemaPart& part : facts.parts) {
    const Json* items = Find(*part.schema, "items");
    const Json* tuple = Find(*part.schema, "prefixItems");
    if (tuple == nullptr && items != nullptr && items->is_array()) {
      tuple = items;
      items = Find(*part.schema, "additionalItems");
    }
    const Json* item = tuple != nullptr && position < tuple->size() ? &(*tuple)[position] : items;
    if (item != nullptr) parts.push_back({.schema = item});
  }
  return parts;
}

Result<NodeId> SchemaCompiler::Compile(SchemaParts parts) {
  const NodeId root = NodeFor(std::move(parts));
  while (!open_.empty()) {
    PENSIEVE_RETURN_IF_ERROR(builder_.status());
    if (nodes_.size() > kPlacesMax) return ResourceExhausted("the schema is too large");
    const auto [place, node] = std::move(open_.front());
    open_.pop_front();
    PENSIEVE_RETURN_IF_ERROR(budget_.Spend(50));
    PENSIEVE_TRY(const NodeId body, Make(place));
    builder_.Define(node, body);
  }
  return root;
}

NodeId SchemaCompiler::NodeFor(SchemaParts parts) {
  std::erase_if(parts, [](const SchemaPart& part) { return *part.schema == true; });
  std::sort(parts.begin(), parts.end());
  parts.erase(std::unique(parts.begin(), parts.end()), parts.end());
  const auto [entry, is_new] = nodes_.try_emplace(std::move(parts), 0);
  if (is_new) {
    entry->second = builder_.Reserve();
    open_.emplace_back(entry->first, entry->second);
  }
  return entry->second;
}

Result<NodeId> SchemaCompiler::Make(const SchemaParts& parts) {
  PENSIEVE_TRY(const SchemaFacts facts, reader_.Read(parts));
  if (facts.impossible) return builder_.Choice({});
  if (!facts.alternatives.empty()) return MakeAlternatives(facts);
  if (!facts.values.empty()) return MakeValues(facts);
  std::vector<NodeId> choices;
  constexpr uint32_t kKinds[] = {kObject, kArray, kString, kInteger | kFraction, kBoolean, kNull};
  for (const uint32_t type : kKinds) {
    if ((facts.types & type) == 0) continue;
    PENSIEVE_TRY(const NodeId node, MakeType(facts, type));
    choices.push_back(node);
  }
  return builder_.Choice(std::move(choices));
}

// All that holds beside the alternatives holds for each of them.
Result<NodeId> SchemaCompiler::MakeAlternatives(const SchemaFacts& facts) {
  const SchemaFacts::Alternatives& alternatives = facts.alternatives.front();
  SchemaParts rest = facts.parts;
  SchemaPart& owner = rest[alternatives.part];
  (alternatives.exactly_one ? owner.no_one_of : owner.no_any_of) = true;
  std::vector<SchemaParts> places;
  for (const Json& schema : *alternatives.schemas) {
    PENSIEVE_RETURN_IF_ERROR(budget_.Spend(10));
    places.push_back(With(rest, {.schema = &schema, .owner = owner.schema}));
  }
  if (alternatives.exactly_one) {
    if (places.size() > kOneOfMax) return RefuseKeyword("oneOf", "too many alternatives");
    for (size_t i = 0; i < places.size(); ++i) {
      for (size_t j = 0; j < i; ++j) {
        PENSIEVE_TRY(const bool disjoint, AreDisjoint(places[i], places[j], 0));
        if (!disjoint)
          return RefuseKeyword("oneOf",
                               fmt::format("alternatives {} and {} may both be met, which cannot be ruled out", j, i));
      }
    }
  }
  std::vector<NodeId> choices;
  for (SchemaParts& place : places) choices.push_back(NodeFor(std::move(place)));
  return builder_.Choice(std::move(choices));
}

Result<std::vector<const Json*>> SchemaCompiler::AllowedValues(const SchemaFacts& facts) {
  std::vector<const Json*> values = facts.values.front();
  std::unordered_set<std::string> excluded;
  for (const Json* value : facts.excluded) excluded.insert(ValueKey(*value));
  std::vector<std::unordered_set<std::string>> others;
  for (size_t i = 1; i < facts.values.size(); ++i) {
    others.emplace_back();
    for (const Json* value : facts.values[i]) others.back().insert(ValueKey(*value));
  }
  PENSIEVE_RETURN_IF_ERROR(budget_.Spend(static_cast<int64_t>(10 * values.size() * facts.values.size())));
  std::erase_if(values, [&](const Json* value) {
    if ((TypeOf(*value) & facts.types) == 0) return true;
    if (excluded.empty() && others.empty()) return false;
    const std::string key = ValueKey(*value);
    return excluded.contains(key) ||
           std::any_of(others.begin(), others.end(), [&](const auto& other) { return !other.contains(key); });
  });
  if (facts.only_types || values.empty()) return values;
  // What else is demanded is asked of a grammar of its own.
  SchemaParts rest = facts.parts;
  for (SchemaPart& part : rest) part.no_values = part.no_any_of = part.no_one_of = true;
  GrammarBuilder builder(budget_);
  SchemaCompiler compiler(builder, reader_, budget_);
  PENSIEVE_TRY(const NodeId root, compiler.Compile(std::move(rest)));
  const auto grammar = builder.Build(root);
  if (!grammar.has_value()) return std::vector<const Json*>();
  std::erase_if(values, [&](const Json* value) { return !sampling::Matches(**grammar, DumpJson(*value)); });
  return values;
}

Result<NodeId> SchemaCompiler::MakeValues(const SchemaFacts& facts) {
  PENSIEVE_TRY(const auto values, AllowedValues(facts));
  std::vector<std::string> scalars;
  std::vector<NodeId> choices;
  for (const Json* value : values) {
    if (value->is_structured()) {
      PENSIEVE_TRY(const NodeId node, LiteralValue(*value));
      choices.push_back(node);
    } else {
      scalars.push_back(DumpJson(*value));
    }
  }
  if (!scalars.empty()) {
    PENSIEVE_TRY(const NodeId node, LiteralSet(scalars));
    choices.push_back(node);
  }
  return builder_.Choice(std::move(choices));
}

Result<NodeId> SchemaCompiler::LiteralSet(const std::vector<std::string>& texts) {
  PENSIEVE_TRY(Dfa dfa, sampling::LiteralSet(texts, /*labelled=*/false, budget_));
  return builder_.Terminal(std::make_shared<const Dfa>(std::move(dfa)));
}

Result<NodeId> SchemaCompiler::LiteralValue(const Json& value) {
  PENSIEVE_RETURN_IF_ERROR(builder_.status());
  if (!value.is_structured()) return LiteralSet({DumpJson(value)});
  if (value.is_array()) {
    std::vector<NodeId> nodes{builder_.Terminal(automata_.open_array)};
    for (const Json& each : value) {
      if (nodes.size() > 1) nodes.push_back(builder_.Terminal(automata_.comma));
      PENSIEVE_TRY(const NodeId node, LiteralValue(each));
      nodes.push_back(node);
    }
    nodes.push_back(builder_.Terminal(automata_.close_array));
    return builder_.Sequence(std::move(nodes));
  }
  sampling::MembersSpec spec;
  std::vector<std::string> names;
  for (const auto& [name, each] : value.items()) names.push_back(DumpJson(Json(name)));
  std::sort(names.begin(), names.end());
  for (const std::string& name : names) {
    spec.required.push_back(static_cast<int32_t>(spec.values.size()));
    PENSIEVE_TRY(const Json unquoted, ParseJson(name));
    PENSIEVE_TRY(const NodeId node, LiteralValue(value[unquoted.get<std::string>()]));
    spec.values.push_back(builder_.Sequence({builder_.Terminal(automata_.colon), node}));
  }
  PENSIEVE_TRY(Dfa keys, sampling::LiteralSet(names, /*labelled=*/true, budget_));
  PENSIEVE_RETURN_IF_ERROR(keys.FindReach(static_cast<int32_t>(names.size())));
  spec.keys = std::make_shared<const Dfa>(std::move(keys));
  spec.separator = builder_.Terminal(automata_.comma);
  return builder_.Sequence({builder_.Terminal(automata_.open_object), builder_.Members(std::move(spec)),
                            builder_.Terminal(automata_.close_object)});
}

Result<NodeId> SchemaCompiler::MakeType(const SchemaFacts& facts, uint32_t type) {
  const auto all_but = [&](const char* keyword, JsonType excluded_type) {
    const bool named = std::any_of(facts.excluded.begin(), facts.excluded.end(),
                                   [&](const Json* value) { return TypeOf(*value) == excluded_type; });
    return named ? RefuseKeyword(keyword, "cannot be enforced for these values") : OkStatus();
  };
  switch (type) {
    case kNull:
    case kBoolean: {
      std::vector<std::string> texts{"null"};
      if (type == kBoolean) texts = {"false", "true"};
      for (const Json* value : facts.excluded) std::erase(texts, DumpJson(*value));
      if (!facts.excluded.empty()) return LiteralSet(texts);
      return builder_.Terminal(type == kNull ? automata_.null : automata_.boolean);
    }
    case kString: return MakeString(facts);
    case kArray: PENSIEVE_RETURN_IF_ERROR(all_but("not", kArray)); return MakeArray(facts);
    case kObject: PENSIEVE_RETURN_IF_ERROR(all_but("not", kObject)); return MakeObject(facts);
    default: break;
  }
  PENSIEVE_RETURN_IF_ERROR(all_but("not", kFraction));
  return MakeNumber(facts);
}

Result<Dfa> SchemaCompiler::PatternAutomaton(const std::string& pattern, bool whole) {
  const auto known = patterns_.find({pattern, whole});
  if (known != patterns_.end()) return known->second;
  PENSIEVE_TRY(Dfa dfa, CompilePattern(pattern, whole, Spelling::kJsonString, budget_));
  patterns_.emplace(std::pair(pattern, whole), dfa);
  return dfa;
}

Result<Dfa> SchemaCompiler::StringAutomaton(const SchemaFacts& facts) {
  Dfa all = *automata_.canonical_string;
  for (const std::string& pattern : facts.patterns) {
    auto dfa = PatternAutomaton(pattern, /*whole=*/false);
    if (dfa.has_value()) dfa = Intersect(all, *dfa, budget_);
    if (!dfa.has_value()) return AtKeyword("pattern", dfa.error());
    all = *std::move(dfa);
  }
  for (const std::string& format : facts.formats) {
    const char* pattern = FormatPattern(format);
    if (pattern == nullptr) return RefuseKeyword("format", fmt::format("\"{}\" is not known", format.substr(0, 60)));
    auto dfa = PatternAutomaton(pattern, /*whole=*/true);
    if (dfa.has_value()) dfa = Intersect(all, *dfa, budget_);
    if (!dfa.has_value()) return AtKeyword("format", dfa.error());
    all = *std::move(dfa);
  }
  std::vector<std::string> excluded;
  for (const Json* value : facts.excluded) {
    if (value->is_string()) excluded.push_back(DumpJson(*value));
  }
  if (!excluded.empty()) {
    PENSIEVE_TRY(const Dfa texts, sampling::LiteralSet(excluded, /*labelled=*/false, budget_));
    PENSIEVE_TRY(all, Subtract(all, texts, budget_));
  }
  // A character is one byte at least; the quotes are two.
  const int64_t longest = all.longest_bytes();
  const bool by_max = facts.length_max != INT64_MAX && (longest == INT64_MAX || longest - 2 > facts.length_max);
  if (facts.length_min == 0 && !by_max) return all;
  const char* keyword = by_max ? "maxLength" : "minLength";
  if (facts.length_min > kCountedLengthMax || (by_max && facts.length_max > kCountedLengthMax))
    return RefuseKeyword(keyword, "cannot be enforced together with a pattern or format");
  const int64_t max = by_max ? facts.length_max : INT64_MAX;
  auto limited = LimitUnits(all, *automata_.canonical_string, facts.length_min, max, budget_);
  if (!limited.has_value()) return AtKeyword(keyword, limited.error());
  return limited;
}

Result<NodeId> SchemaCompiler::MakeString(const SchemaFacts& facts) {
  const bool excludes =
      std::any_of(facts.excluded.begin(), facts.excluded.end(), [](const Json* value) { return value->is_string(); });
  if (facts.patterns.empty() && facts.formats.empty() && !excludes)
    return builder_.Counted(automata_.string, facts.length_min, facts.length_max);
  PENSIEVE_TRY(Dfa dfa, StringAutomaton(facts));
  return builder_.Terminal(std::make_shared<const Dfa>(std::move(dfa)));
}

Result<NodeId> SchemaCompiler::MakeNumber(const SchemaFacts& facts) {
  NumberLimits limits{.integer = (facts.types & kFraction) == 0,
                      .min = facts.min,
                      .max = facts.max,
                      .min_excluded = facts.min_excluded,
                      .max_excluded = facts.max_excluded,
                      .fraction_digits = {}};
  for (const Decimal& multiple : facts.multiples) {
    if (multiple.fraction.empty()) {
      const int64_t number = multiple.whole.size() > 6 ? kMultipleMax + 1 : std::stoll(multiple.whole);
      const int64_t common = number > kMultipleMax ? number : std::lcm(limits.multiple_of, number);
      if (common > kMultipleMax) return RefuseKeyword("multipleOf", "is too large to be enforced");
      limits.multiple_of = common;
    } else if (multiple.whole == "0" && multiple.fraction.find_first_not_of('0') == multiple.fraction.size() - 1 &&
               multiple.fraction.back() == '1') {
      const auto digits = static_cast<int>(multiple.fraction.size());
      limits.fraction_digits = std::min(limits.fraction_digits.value_or(digits), digits);
    } else {
      return RefuseKeyword("multipleOf", "only whole numbers, 0.1, 0.01 and so on can be enforced");
    }
  }
  const bool plain = !limits.min && !limits.max && facts.multiples.empty() && facts.excluded.empty();
  if (plain) return builder_.Terminal(limits.integer ? automata_.integer : automata_.number);
  auto dfa = JsonNumber(limits, budget_);
  if (!dfa.has_value()) return AtKeyword(facts.multiples.empty() ? "minimum" : "multipleOf", dfa.error());
  std::vector<std::string> excluded;
  for (const Json* value : facts.excluded) {
    if (value->is_number() && !limits.integer) return RefuseKeyword("not", "cannot be enforced for numbers");
    if (TypeOf(*value) == kInteger) excluded.push_back(ToDecimal(*value).negative ? "-" : "");
    if (TypeOf(*value) == kInteger) excluded.back() += ToDecimal(*value).whole;
  }
  PENSIEVE_TRY(const Dfa texts, sampling::LiteralSet(excluded, /*labelled=*/false, budget_));
  PENSIEVE_TRY(Dfa rest, Subtract(*dfa, texts, budget_));
  return builder_.Terminal(std::make_shared<const Dfa>(std::move(rest)));
}

Result<NodeId> SchemaCompiler::MakeArray(const SchemaFacts& facts) {
  size_t tuple = 0;
  for (const SchemaPart& part : facts.parts) {
    for (const char* keyword : {"prefixItems", "items"}) {
      const Json* items = Find(*part.schema, keyword);
      if (items != nullptr && items->is_array()) tuple = std::max(tuple, items->size());
    }
  }
  if (tuple > kTupleMax) return RefuseKeyword("prefixItems", "too many");
  const SchemaParts rest = ItemParts(facts, SIZE_MAX);
  if (facts.unique_items && facts.items_max > 1) {
    if (tuple > 0) return RefuseKeyword("uniqueItems", "cannot be enforced beside prefixItems");
    return MakeUniqueArray(facts, rest);
  }
  int64_t items_max = facts.items_max;
  if (IsImpossible(rest)) items_max = std::min(items_max, static_cast<int64_t>(tuple));
  const NodeId comma = builder_.Terminal(automata_.comma);
  const auto fixed = static_cast<int64_t>(tuple);
  // From behind: what may come after the first i items.
  NodeId behind = builder_.Empty();
  if (items_max > fixed) {
    const NodeId item = NodeFor(rest);
    const int64_t min = std::max<int64_t>(facts.items_min - fixed, 0);
    const int64_t max = items_max == INT64_MAX ? kNoMax : items_max - fixed;
    if (fixed == 0) {
      behind = builder_.Repeat(item, comma, min, max);
    } else {
      behind = builder_.Repeat(builder_.Sequence({comma, item}), -1, min, max);
    }
  } else if (facts.items_min > items_max) {
    return builder_.Choice({});
  }
  for (size_t i = tuple; i-- > 0;) {
    const auto position = static_cast<int64_t>(i);
    if (position >= items_max) continue;
    std::vector<NodeId> nodes;
    if (i > 0) nodes.push_back(comma);
    nodes.push_back(NodeFor(ItemParts(facts, i)));
    nodes.push_back(behind);
    behind = builder_.Sequence(std::move(nodes));
    if (position >= facts.items_min) behind = builder_.Optional(behind);
  }
  return builder_.Sequence({builder_.Terminal(automata_.open_array), behind, builder_.Terminal(automata_.close_array)});
}

// Different items, when there is a list of what they can be: each is a key of its own, without a value.
Result<NodeId> SchemaCompiler::MakeUniqueArray(const SchemaFacts& facts, const SchemaParts& item) {
  PENSIEVE_TRY(const SchemaFacts of_item, reader_.Read(item));
  std::vector<std::string> texts;
  if (!of_item.alternatives.empty()) return RefuseKeyword("uniqueItems", "can be enforced for a list of values only");
  if (!of_item.values.empty()) {
    PENSIEVE_TRY(const auto values, AllowedValues(of_item));
    for (const Json* value : values) {
      if (value->is_structured()) return RefuseKeyword("uniqueItems", "cannot be enforced for arrays and objects");
      texts.push_back(DumpJson(*value));
    }
  } else if ((of_item.types & ~(kBoolean | kNull)) == 0 && of_item.only_types) {
    if ((of_item.types & kBoolean) != 0) texts = {"false", "true"};
    if ((of_item.types & kNull) != 0) texts.push_back("null");
  } else {
    return RefuseKeyword("uniqueItems", "can be enforced for a list of values only");
  }
  std::sort(texts.begin(), texts.end());
  texts.erase(std::unique(texts.begin(), texts.end()), texts.end());
  sampling::MembersSpec spec;
  PENSIEVE_TRY(Dfa keys, sampling::LiteralSet(texts, /*labelled=*/true, budget_));
  if (keys.empty()) {
    if (facts.items_min > 0) return builder_.Choice({});
    return builder_.Sequence({builder_.Terminal(automata_.open_array), builder_.Terminal(automata_.close_array)});
  }
  PENSIEVE_RETURN_IF_ERROR(keys.FindReach(static_cast<int32_t>(texts.size())));
  spec.keys = std::make_shared<const Dfa>(std::move(keys));
  spec.values.assign(texts.size(), builder_.Empty());
  spec.separator = builder_.Terminal(automata_.comma);
  spec.min = facts.items_min;
  spec.max = facts.items_max == INT64_MAX ? kNoMax : facts.items_max;
  return builder_.Sequence({builder_.Terminal(automata_.open_array), builder_.Members(std::move(spec)),
                            builder_.Terminal(automata_.close_array)});
}

Result<NodeId> AddJsonSchema(GrammarBuilder& builder, const Json& schema, bool object_only, Budget& budget) {
  static const Json kObjectSchema = {{"type", "object"}};
  const SchemaReader reader(schema);
  SchemaCompiler compiler(builder, reader, budget);
  SchemaParts parts{{.schema = &schema}};
  if (object_only) parts.push_back({.schema = &kObjectSchema});
  return compiler.Compile(std::move(parts));
}

// Whether no value can satisfy both (for oneOf).
Result<bool> SchemaCompiler::AreDisjoint(const SchemaParts& a, const SchemaParts& b, int depth) {
  if (depth > kDisjointDepthMax) return false;
  PENSIEVE_RETURN_IF_ERROR(budget_.Spend(50));
  PENSIEVE_TRY(const SchemaFacts of_a, reader_.Read(a));
  PENSIEVE_TRY(const SchemaFacts of_b, reader_.Read(b));
  if (of_a.impossible || of_b.impossible) return true;
  // Alternatives within: each must be apart from the other side.
  for (const bool second : {false, true}) {
    const SchemaFacts& facts = second ? of_b : of_a;
    if (facts.alternatives.empty()) continue;
    const auto& alternatives = facts.alternatives.front();
    SchemaParts rest = facts.parts;
    (alternatives.exactly_one ? rest[alternatives.part].no_one_of : rest[alternatives.part].no_any_of) = true;
    for (const Json& schema : *alternatives.schemas) {
      const SchemaParts place = With(rest, {.schema = &schema});
      PENSIEVE_TRY(const bool disjoint, AreDisjoint(second ? a : place, second ? place : b, depth + 1));
      if (!disjoint) return false;
    }
    return true;
  }
  if (!of_a.values.empty() && !of_b.values.empty()) {
    PENSIEVE_TRY(const auto values, AllowedValues(of_a));
    PENSIEVE_TRY(const auto others, AllowedValues(of_b));
    std::unordered_set<std::string> keys;
    for (const Json* value : values) keys.insert(ValueKey(*value));
    return std::none_of(others.begin(), others.end(),
                        [&](const Json* value) { return keys.contains(ValueKey(*value)); });
  }
  uint32_t types[2] = {of_a.types, of_b.types};
  for (const bool second : {false, true}) {
    const SchemaFacts& facts = second ? of_b : of_a;
    if (facts.values.empty()) continue;
    PENSIEVE_TRY(const auto values, AllowedValues(facts));
    types[second ? 1 : 0] = 0;
    for (const Json* value : values) types[second ? 1 : 0] |= TypeOf(*value);
  }
  for (uint32_t type = kNull; type <= kObject; type *= 2) {
    if ((types[0] & types[1] & type) == 0) continue;
    PENSIEVE_TRY(const bool disjoint, AreDisjointTypes(of_a, of_b, type, depth));
    if (!disjoint) return false;
  }
  return true;
}

Result<bool> SchemaCompiler::AreDisjointTypes(const SchemaFacts& a, const SchemaFacts& b, uint32_t type, int depth) {
  if (type == kInteger || type == kFraction) {
    const auto below = [](const SchemaFacts& low, const SchemaFacts& high) {
      if (!low.max || !high.min) return false;
      const int order = Compare(*low.max, *high.min);
      return order < 0 || (order == 0 && (low.max_excluded || high.min_excluded));
    };
    return a.values.empty() && b.values.empty() && (below(a, b) || below(b, a));
  }
  if (type == kString && a.values.empty() && b.values.empty()) {
    PENSIEVE_TRY(const Dfa of_a, StringAutomaton(a));
    PENSIEVE_TRY(const Dfa of_b, StringAutomaton(b));
    PENSIEVE_TRY(const Dfa both, Intersect(of_a, of_b, budget_));
    return both.empty();
  }
  if (type == kArray) {
    if (a.items_min > b.items_max || b.items_min > a.items_max) return true;
    const int64_t common = std::min<int64_t>(std::max(a.items_min, b.items_min), 16);
    for (int64_t i = 0; i < common; ++i) {
      const auto at = static_cast<size_t>(i);
      PENSIEVE_TRY(const bool disjoint, AreDisjoint(ItemParts(a, at), ItemParts(b, at), depth + 1));
      if (disjoint) return true;
    }
    return false;
  }
  if (type != kObject) return false;
  for (const SchemaFacts* facts : {&a, &b}) {
    for (const SchemaPart& part : facts->parts) {
      if (Find(*part.schema, "patternProperties") != nullptr) return false;  // who knows what they match
    }
  }
  std::set<std::string> names = a.required;
  names.insert(b.required.begin(), b.required.end());
  for (const std::string& name : names) {
    const SchemaParts of_a = PropertyParts(a, name, {});
    const SchemaParts of_b = PropertyParts(b, name, {});
    if (IsImpossible(of_a) || IsImpossible(of_b)) return true;
    if (!a.required.contains(name) || !b.required.contains(name)) continue;
    PENSIEVE_TRY(const bool disjoint, AreDisjoint(of_a, of_b, depth + 1));
    if (disjoint) return true;
  }
  return false;
}

}  // namespace pensieve::chat
