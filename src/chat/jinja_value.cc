#include "chat/jinja_value.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "base/utf8.h"

namespace pensieve::chat::jinja {
namespace {

// A text that is equal exactly for keys that Python takes as equal; empty for what cannot be hashed.
std::string CanonicalKey(const Value& key, int depth = 0) {
  if (key.IsString()) return "s" + key.text();
  if (key.IsNone()) return "n";
  if (key.IsIntegral()) return fmt::format("i{}", static_cast<__int128>(key.integer()));
  if (key.IsFloat()) {
    const double number = key.number();
    if (number == std::floor(number) && std::abs(number) < 1e30)
      return fmt::format("i{}", static_cast<__int128>(number));
    return fmt::format("f{}", number);
  }
  const ListObject* tuple = key.list();
  if (tuple == nullptr || tuple->kind != SequenceKind::kTuple || depth > kValueDepthMax) return "";
  std::string canonical = "t";
  for (const Value& item : tuple->items) {
    const std::string part = CanonicalKey(item, depth + 1);
    if (part.empty()) return "";
    canonical += fmt::format("{}:{}", part.size(), part);
  }
  return canonical;
}

int Sign(double a, double b) { return a < b ? -1 : a > b ? 1 : 0; }

int CompareNumbers(const Value& a, const Value& b) {
  if (a.IsIntegral() && b.IsIntegral()) return a.integer() < b.integer() ? -1 : a.integer() > b.integer() ? 1 : 0;
  return Sign(a.number(), b.number());
}

Status Account(CompareCost& cost) {
  if (cost.depth > kValueDepthMax) {
    return InvalidArgument(fmt::format("values are nested deeper than {} levels", kValueDepthMax));
  }
  if (++cost.nodes > kCompareNodesMax) {
    return InvalidArgument(fmt::format("a comparison looks at more than {} values", kCompareNodesMax));
  }
  return OkStatus();
}

Result<bool> ItemsEqual(const Value& a, const Value& b, CompareCost& cost) {
  ++cost.depth;
  auto same = Equals(a, b, cost);
  --cost.depth;
  return same;
}

Result<bool> SequencesEqual(const ListObject& a, const ListObject& b, CompareCost& cost) {
  if (&a == &b) return true;
  if (a.kind != b.kind || a.kind == SequenceKind::kGenerator || a.items.size() != b.items.size()) return false;
  for (size_t i = 0; i < a.items.size(); ++i) {
    PENSIEVE_TRY(const bool same, ItemsEqual(a.items[i], b.items[i], cost));
    if (!same) return false;
  }
  return true;
}

Result<bool> DictsEqual(const DictObject& a, const DictObject& b, CompareCost& cost) {
  if (&a == &b) return true;
  if (a.entries().size() != b.entries().size()) return false;
  for (const auto& [key, value] : a.entries()) {
    const Value* other = b.Find(key);
    if (other == nullptr) return false;
    PENSIEVE_TRY(const bool same, ItemsEqual(value, *other, cost));
    if (!same) return false;
  }
  return true;
}

}  // namespace

const char* Value::TypeName() const {
  static constexpr const char* kNames[] = {"Undefined", "NoneType", "bool",      "int",         "float",   "str",
                                           "list",      "dict",     "namespace", "LoopContext", "function"};
  if (const ListObject* sequence = list()) {
    static constexpr const char* kSequences[] = {"list",       "tuple",     "range",      "generator",
                                                 "dict_items", "dict_keys", "dict_values"};
    return kSequences[static_cast<size_t>(sequence->kind)];
  }
  return kNames[storage_.index()];
}

const Value* DictObject::Find(const Value& key) const {
  const std::string canonical = CanonicalKey(key);
  const size_t index = canonical.empty() ? entries_.size() : IndexOf(canonical);
  return index == entries_.size() ? nullptr : &entries_[index].second;
}

const Value* DictObject::Find(std::string_view key) const {
  std::string canonical = "s";
  canonical += key;
  const size_t index = IndexOf(canonical);
  return index == entries_.size() ? nullptr : &entries_[index].second;
}

size_t DictObject::IndexOf(const std::string& canonical) const {
  const auto found = position_.find(canonical);
  return found == position_.end() ? entries_.size() : found->second;
}

Status DictObject::Set(const Value& key, Value value) {
  std::string canonical = CanonicalKey(key);
  if (canonical.empty()) return InvalidArgument(fmt::format("unhashable type: '{}'", key.TypeName()));
  const auto [at, added] = position_.emplace(canonical, entries_.size());
  if (!added) {
    entries_[at->second].second = std::move(value);
    return OkStatus();
  }
  canonical_.push_back(std::move(canonical));
  entries_.emplace_back(key, std::move(value));
  return OkStatus();
}

std::unique_ptr<Value> DictObject::Remove(const Value& key) {
  const std::string canonical = CanonicalKey(key);
  const size_t index = IndexOf(canonical);
  if (index == entries_.size()) return nullptr;
  auto taken = std::make_unique<Value>(std::move(entries_[index].second));
  entries_.erase(entries_.begin() + static_cast<std::ptrdiff_t>(index));
  canonical_.erase(canonical_.begin() + static_cast<std::ptrdiff_t>(index));
  position_.erase(canonical);
  for (size_t i = index; i < canonical_.size(); ++i) position_[canonical_[i]] = i;
  return taken;
}

const Value* NamespaceObject::Find(std::string_view name) const {
  for (const auto& [key, value] : attributes) {
    if (key == name) return &value;
  }
  return nullptr;
}

void NamespaceObject::Set(std::string_view name, Value value) {
  for (auto& [key, held] : attributes) {
    if (key == name) {
      held = std::move(value);
      return;
    }
  }
  attributes.emplace_back(std::string(name), std::move(value));
}

bool Truthy(const Value& value) {
  if (value.IsUndefined() || value.IsNone()) return false;
  if (value.IsIntegral()) return value.integer() != 0;
  if (value.IsFloat()) return value.number() != 0;
  if (value.IsString()) return !value.text().empty();
  // A generator is true even when it yields nothing.
  if (const ListObject* list = value.list()) return list->kind == SequenceKind::kGenerator || !list->items.empty();
  if (const DictObject* dict = value.dict()) return !dict->entries().empty();
  return true;
}

Result<bool> Equals(const Value& a, const Value& b, CompareCost& cost) {
  PENSIEVE_RETURN_IF_ERROR(Account(cost));
  if (a.IsNumber() && b.IsNumber()) return CompareNumbers(a, b) == 0 && a.number() == b.number();
  if (a.IsString() && b.IsString()) return a.text() == b.text();
  if (a.list() != nullptr && b.list() != nullptr) return SequencesEqual(*a.list(), *b.list(), cost);
  if (a.dict() != nullptr && b.dict() != nullptr) return DictsEqual(*a.dict(), *b.dict(), cost);
  if (a.IsUndefined() && b.IsUndefined()) return true;
  if (a.IsNone() && b.IsNone()) return true;
  if (a.name_space() != nullptr) return a.name_space() == b.name_space();
  if (a.loop() != nullptr) return a.loop() == b.loop();
  return a.callable() != nullptr && a.callable() == b.callable();
}

Result<int> Compare(const Value& a, const Value& b, CompareCost& cost) {
  PENSIEVE_RETURN_IF_ERROR(Account(cost));
  if (a.IsUndefined()) return UndefinedError(a);
  if (b.IsUndefined()) return UndefinedError(b);
  if (a.IsNumber() && b.IsNumber()) return CompareNumbers(a, b);
  if (a.IsString() && b.IsString()) return a.text().compare(b.text());
  const ListObject* left = a.list();
  const ListObject* right = b.list();
  if (left == nullptr || right == nullptr || left->kind != right->kind || left->kind > SequenceKind::kTuple) {
    return InvalidArgument(fmt::format("'{}' and '{}' have no order between them", a.TypeName(), b.TypeName()));
  }
  const size_t common = std::min(left->items.size(), right->items.size());
  for (size_t i = 0; i < common; ++i) {
    PENSIEVE_TRY(const bool same, ItemsEqual(left->items[i], right->items[i], cost));
    if (same) continue;
    ++cost.depth;
    auto order = Compare(left->items[i], right->items[i], cost);
    --cost.depth;
    return order;
  }
  return left->items.size() < right->items.size() ? -1 : left->items.size() > right->items.size() ? 1 : 0;
}

Result<size_t> Length(const Value& value) {
  if (value.IsString()) return CodePointCount(value.text());
  if (value.dict() != nullptr) return value.dict()->entries().size();
  if (value.IsUndefined()) return size_t{0};
  const ListObject* list = value.list();
  if (list == nullptr || list->kind == SequenceKind::kGenerator) {
    return InvalidArgument(fmt::format("object of type '{}' has no length", value.TypeName()));
  }
  return list->items.size();
}

Status UndefinedError(const Value& value) {
  const StrPtr& hint = value.undefined().hint;
  return InvalidArgument(hint == nullptr ? "a value is undefined" : hint->text.bytes());
}

}  // namespace pensieve::chat::jinja
