// What filters, tests and methods need from a running template: values, limits, calls. One Runtime serves one
// rendering on one thread and frees every container of it when it dies.
#pragma once

#include <cstddef>
#include <functional>
#include <initializer_list>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/json.h"
#include "base/status.h"
#include "chat/jinja_ast.h"
#include "chat/jinja_value.h"

namespace pensieve::chat::jinja {

// Templates come with model files, so they are untrusted programs. Passing a limit is InvalidArgument.
struct Limits {
  size_t output_bytes_max = size_t{64} << 20;    // of the result, and of any string made on the way
  size_t allocated_bytes_max = size_t{1} << 29;  // of all strings and containers ever made in one rendering
  size_t steps_max = 20'000'000;                 // evaluated nodes, plus work proportional to sizes
  int depth_max = 1000;                          // nested evaluations: bounds the stack, and macro recursion with it
  size_t range_items_max = 100'000;
};

struct CallArgs {
  std::vector<Value> positional;
  std::vector<std::pair<std::string, Value>> keywords;
};

// Arguments of a call by parameter name. Borrows `args`.
class BoundArgs {
 public:
  // Refuses surplus, unknown and doubled arguments, and fewer than `required`.
  static Result<BoundArgs> Bind(std::string_view callee, std::initializer_list<std::string_view> names,
                                const CallArgs& args, size_t required = 0);
  // Null when the argument was not given.
  const Value* operator[](size_t index) const { return values_[index]; }
  bool IsTrue(size_t index, bool otherwise = false) const;
  // The integer, or `otherwise` when absent. InvalidArgument for other types, clamped to int64.
  Result<int64_t> Int64(size_t index, int64_t otherwise) const;
  // For what is looked at only; Traced is for what becomes a part of a result.
  Result<std::string> Text(size_t index, std::string_view otherwise) const;
  Result<TracedText> Traced(size_t index, std::string_view otherwise) const;

 private:
  std::string callee_;
  std::vector<const Value*> values_;
};

class Runtime;
struct Scope;

using NativeFunction = Result<Value> (*)(Runtime& runtime, const Value& self, const CallArgs& args);

// A macro, a caller(), a global function or a method bound to its object.
struct CallableObject : Object {
  std::string name;
  NativeFunction native = nullptr;  // else it is a macro
  Value self;
  const Stmt* macro = nullptr;
  Scope* closure = nullptr;  // where the macro was defined
};

class Runtime {
 public:
  explicit Runtime(const Limits& limits) : limits_(limits) {}
  virtual ~Runtime() = default;
  Runtime(const Runtime&) = delete;
  Runtime& operator=(const Runtime&) = delete;

  const Limits& limits() const { return limits_; }
  // Accounts for work; an error when the budget is spent.
  Status Step(size_t count = 1);
  Status Charge(size_t bytes);

  Result<Value> String(TracedText text, bool markup = false);
  // Words of the template or of this engine.
  Result<Value> OwnString(std::string text) { return String(TracedText(std::move(text), kFromTemplate)); }
  Result<Value> List(std::vector<Value> items, SequenceKind kind = SequenceKind::kList);
  Result<DictObject*> NewDict() { return New<DictObject>(); }
  Status SetEntry(DictObject& dict, const Value& key, Value value);
  // All strings in it, keys too, come from `origin`.
  Result<Value> FromJson(const Json& json, Origin origin);
  Result<Value> Native(std::string_view name, NativeFunction function, Value self = {});

  // All items of whatever can be iterated: list items, dict keys, code points. Empties a generator.
  Result<std::vector<Value>> Items(const Value& iterable);
  // x.name and x[key] with Jinja's fallbacks; undefined when there is no such thing.
  Result<Value> Attribute(const Value& object, std::string_view name);
  Result<Value> Item(const Value& object, const Value& key);
  // == and ordering, with their cost accounted for.
  Result<bool> Equal(const Value& a, const Value& b);
  Result<int> Order(const Value& a, const Value& b);
  Result<bool> Contains(const Value& container, const Value& item);
  Result<Value> Call(const Value& callee, const CallArgs& args);
  Result<Value> ApplyFilter(std::string_view name, const Value& input, const CallArgs& args);
  Result<bool> ApplyTest(std::string_view name, const Value& input, const CallArgs& args);

  template <typename T>
  Result<T*> New() {
    PENSIEVE_RETURN_IF_ERROR(Charge(sizeof(T) + 16));
    auto object = std::make_unique<T>();
    T* borrowed = object.get();
    objects_.push_back(std::move(object));
    return borrowed;
  }

 protected:
  virtual Result<Value> CallMacro(const CallableObject& macro, const CallArgs& args) = 0;
  virtual Result<Value> LoopAttribute(LoopObject& loop, std::string_view name) = 0;
  virtual Result<Value> CallLoop(LoopObject& loop, const CallArgs& args) = 0;

 private:
  const Limits limits_;
  size_t steps_ = 0;
  size_t allocated_bytes_ = 0;
  std::vector<std::unique_ptr<Object>> objects_;
};

// A hint-carrying undefined.
Value MissingName(std::string_view name);
Value MissingAttribute(const Value& object, const Value& key);
inline Value UndefinedWith(std::string hint) {
  return Value(
      Value::Storage(Undefined{std::make_shared<const Str>(Str{TracedText(std::move(hint), kFromTemplate), false})}));
}

// A number for work proportional to the size of `value`: characters / 64, or items.
size_t WorkSize(const Value& value);

// The tables. Null when the name is unknown.
NativeFunction FindFilter(std::string_view name);
// Whether a filter's work does not grow with the items of a list or a dict: messages | length in a loop over all messages
// is no quadratic work.
bool IgnoresItems(std::string_view filter);
using TestFunction = Result<bool> (*)(Runtime& runtime, const Value& input, const CallArgs& args);
TestFunction FindTest(std::string_view name);
NativeFunction FindStringMethod(std::string_view name);
NativeFunction FindListMethod(std::string_view name);
NativeFunction FindDictMethod(std::string_view name);

// Binary operators but comparisons: Python's + - * / // % **.
Result<Value> BinaryOperation(Runtime& runtime, Op op, const Value& left, const Value& right);
Result<bool> CompareValues(Runtime& runtime, Op op, const Value& left, const Value& right);

}  // namespace pensieve::chat::jinja
