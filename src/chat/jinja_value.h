// Values of the template language, with Python's semantics where a template can see them.
//
// Strings are shared and immutable. Containers live in the Runtime of one rendering and are freed together with it, so
// values hold plain pointers to them: cycles cannot leak and deep nesting cannot overflow the stack when freed.
// Not thread-safe, except that strings may be shared between threads.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <variant>
#include <vector>

#include "base/status.h"
#include "chat/jinja_text.h"

namespace pensieve::chat::jinja {

// `markup` marks the result of |safe and |escape: adding an ordinary string to it escapes that string for HTML, a
// surprise of Jinja that a byte-equal renderer has to share.
struct Str {
  TracedText text;
  bool markup = false;
};
using StrPtr = std::shared_ptr<const Str>;

// What a missing name or key gives. `hint` is the error to report when it is used ("'x' is undefined").
struct Undefined {
  StrPtr hint;
};
struct NoneType {};
// Wide enough for every JSON integer (int64 and uint64); results beyond it are errors, not big integers.
__extension__ typedef __int128 Int;

struct ListObject;
struct DictObject;
struct NamespaceObject;
struct LoopObject;
struct CallableObject;

class Value {
 public:
  using Storage = std::variant<Undefined, NoneType, bool, Int, double, StrPtr, ListObject*, DictObject*,
                               NamespaceObject*, LoopObject*, CallableObject*>;
  Value() = default;                                        // undefined without a name
  Value(Storage storage) : storage_(std::move(storage)) {}  // NOLINT: implicit on purpose

  static Value None() { return Value(Storage(NoneType{})); }
  static Value Bool(bool value) { return Value(Storage(std::in_place_type<bool>, value)); }
  static Value Integer(Int value) { return Value(Storage(std::in_place_type<Int>, value)); }
  static Value Float(double value) { return Value(Storage(std::in_place_type<double>, value)); }
  // Outside the accounting of a Runtime: for constants of a template.
  static Value Text(std::string text) {
    return Value(Storage(std::make_shared<const Str>(Str{TracedText(std::move(text), kFromTemplate), false})));
  }

  bool IsUndefined() const { return Is<Undefined>(); }
  bool IsNone() const { return Is<NoneType>(); }
  bool IsBool() const { return Is<bool>(); }
  bool IsInt() const { return Is<Int>(); }
  bool IsFloat() const { return Is<double>(); }
  bool IsString() const { return Is<StrPtr>(); }
  bool IsNumber() const { return IsBool() || IsInt() || IsFloat(); }
  bool IsIntegral() const { return IsBool() || IsInt(); }
  bool IsMarkup() const { return IsString() && std::get<StrPtr>(storage_)->markup; }

  bool bool_value() const { return std::get<bool>(storage_); }
  // Of a bool or an int, as Python does.
  Int integer() const { return IsBool() ? Int{bool_value()} : std::get<Int>(storage_); }
  // Of any number.
  double number() const { return IsFloat() ? std::get<double>(storage_) : static_cast<double>(integer()); }
  const std::string& text() const { return traced().bytes(); }
  const TracedText& traced() const { return std::get<StrPtr>(storage_)->text; }
  // Null when the value is of another kind.
  ListObject* list() const { return Get<ListObject*>(); }
  DictObject* dict() const { return Get<DictObject*>(); }
  NamespaceObject* name_space() const { return Get<NamespaceObject*>(); }
  LoopObject* loop() const { return Get<LoopObject*>(); }
  CallableObject* callable() const { return Get<CallableObject*>(); }
  const Undefined& undefined() const { return std::get<Undefined>(storage_); }

  // Python's name of the type, for messages: "str", "dict", "Undefined"...
  const char* TypeName() const;

 private:
  template <typename T>
  bool Is() const {
    return std::holds_alternative<T>(storage_);
  }
  template <typename T>
  T Get() const {
    const T* held = std::get_if<T>(&storage_);
    return held == nullptr ? nullptr : *held;
  }

  Storage storage_;
};

// Everything that a Runtime owns.
struct Object {
  virtual ~Object() = default;
};

// Python's several sequence types differ in how they print, compare and count; their items are always materialized.
enum class SequenceKind : uint8_t { kList, kTuple, kRange, kGenerator, kDictItems, kDictKeys, kDictValues };

struct ListObject : Object {
  SequenceKind kind = SequenceKind::kList;
  std::vector<Value> items;
  // list, tuple and range have an order that can be indexed.
  bool Indexable() const { return kind <= SequenceKind::kRange; }
};

// Keeps insertion order. Keys are strings, numbers, booleans, None or tuples of these.
struct DictObject : Object {
  const std::vector<std::pair<Value, Value>>& entries() const { return entries_; }
  const Value* Find(const Value& key) const;
  const Value* Find(std::string_view key) const;
  // InvalidArgument when the key cannot be hashed.
  Status Set(const Value& key, Value value);
  // Null, or the value taken out.
  std::unique_ptr<Value> Remove(const Value& key);

 private:
  size_t IndexOf(const std::string& canonical) const;

  std::vector<std::pair<Value, Value>> entries_;
  std::vector<std::string> canonical_;                // of each key; 1, 1.0 and True are one key
  std::unordered_map<std::string, size_t> position_;  // by canonical key
};

struct NamespaceObject : Object {
  std::vector<std::pair<std::string, Value>> attributes;
  const Value* Find(std::string_view name) const;
  void Set(std::string_view name, Value value);
};

// Python semantics. Errors are InvalidArgument with Python-like words.
bool Truthy(const Value& value);
//
// Shared sub-values can make a comparison exponential in the size of what is held, so its cost is counted: at most
// kCompareNodesMax per comparison, and the caller accounts for `nodes`.
struct CompareCost {
  size_t nodes = 0;
  int depth = 0;
};
inline constexpr size_t kCompareNodesMax = 1'000'000;
Result<bool> Equals(const Value& a, const Value& b, CompareCost& cost);
// < 0, 0, > 0; an error for types that have no order between them.
Result<int> Compare(const Value& a, const Value& b, CompareCost& cost);
// len(value).
Result<size_t> Length(const Value& value);
// The error of using an undefined value.
Status UndefinedError(const Value& value);

// Nested deeper than this, values are refused by comparison and printing.
inline constexpr int kValueDepthMax = 200;

}  // namespace pensieve::chat::jinja
