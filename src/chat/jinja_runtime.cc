#include "chat/jinja_runtime.h"

#include <fmt/format.h>

#include <algorithm>
#include <limits>

#include "base/utf8.h"
#include "chat/jinja_print.h"
#include "chat/python_text.h"

namespace pensieve::chat::jinja {

Result<BoundArgs> BoundArgs::Bind(std::string_view callee, std::initializer_list<std::string_view> names,
                                  const CallArgs& args, size_t required) {
  BoundArgs bound;
  bound.callee_ = callee;
  bound.values_.resize(names.size());
  if (args.positional.size() > names.size()) {
    return InvalidArgument(
        fmt::format("{} takes at most {} arguments, got {}", callee, names.size(), args.positional.size()));
  }
  for (size_t i = 0; i < args.positional.size(); ++i) bound.values_[i] = &args.positional[i];
  for (const auto& [name, value] : args.keywords) {
    const auto at = static_cast<size_t>(std::find(names.begin(), names.end(), name) - names.begin());
    if (at == names.size()) return InvalidArgument(fmt::format("{} has no argument '{}'", callee, name));
    if (bound.values_[at] != nullptr) return InvalidArgument(fmt::format("{} got '{}' twice", callee, name));
    bound.values_[at] = &value;
  }
  for (size_t i = 0; i < required; ++i) {
    if (bound.values_[i] == nullptr) {
      return InvalidArgument(fmt::format("{} is missing its argument '{}'", callee, *(names.begin() + i)));
    }
  }
  return bound;
}

bool BoundArgs::IsTrue(size_t index, bool otherwise) const {
  return values_[index] == nullptr ? otherwise : Truthy(*values_[index]);
}

Result<int64_t> BoundArgs::Int64(size_t index, int64_t otherwise) const {
  const Value* value = values_[index];
  if (value == nullptr || value->IsNone()) return otherwise;
  if (!value->IsIntegral()) {
    return InvalidArgument(fmt::format("{}: '{}' is no integer", callee_, value->TypeName()));
  }
  const Int clamped =
      std::clamp<Int>(value->integer(), std::numeric_limits<int64_t>::min(), std::numeric_limits<int64_t>::max());
  return static_cast<int64_t>(clamped);
}

Result<TracedText> BoundArgs::Traced(size_t index, std::string_view otherwise) const {
  const Value* value = values_[index];
  if (value == nullptr || value->IsNone()) return TracedText(std::string(otherwise), kFromTemplate);
  if (value->IsUndefined()) return UndefinedError(*value);
  if (!value->IsString()) return InvalidArgument(fmt::format("{}: '{}' is no string", callee_, value->TypeName()));
  return value->traced();
}

Result<std::string> BoundArgs::Text(size_t index, std::string_view otherwise) const {
  PENSIEVE_TRY(TracedText text, Traced(index, otherwise));
  return std::move(text).TakeBytes();
}

Status Runtime::Step(size_t count) {
  steps_ += count;
  if (steps_ <= limits_.steps_max) return OkStatus();
  return InvalidArgument(fmt::format("the template takes more than {} steps", limits_.steps_max));
}

Status Runtime::Charge(size_t bytes) {
  allocated_bytes_ += bytes;
  if (allocated_bytes_ <= limits_.allocated_bytes_max) return OkStatus();
  return InvalidArgument(fmt::format("the template needs more than {} bytes of memory", limits_.allocated_bytes_max));
}

Result<Value> Runtime::String(TracedText text, bool markup) {
  if (text.size() > limits_.output_bytes_max) {
    return InvalidArgument(fmt::format("the template makes a text of more than {} bytes", limits_.output_bytes_max));
  }
  PENSIEVE_RETURN_IF_ERROR(Charge(sizeof(Str) + 16 + text.Bytes()));
  return Value(Value::Storage(std::make_shared<const Str>(Str{std::move(text), markup})));
}

Result<Value> Runtime::List(std::vector<Value> items, SequenceKind kind) {
  PENSIEVE_RETURN_IF_ERROR(Charge(items.size() * sizeof(Value)));
  PENSIEVE_TRY(ListObject * list, New<ListObject>());
  list->kind = kind;
  list->items = std::move(items);
  return Value(Value::Storage(list));
}

Status Runtime::SetEntry(DictObject& dict, const Value& key, Value value) {
  // The key is kept three times: as value, canonical, and in the index.
  PENSIEVE_RETURN_IF_ERROR(Charge(160 + (key.IsString() ? 2 * key.text().size() : 0)));
  return dict.Set(key, std::move(value));
}

Result<Value> Runtime::FromJson(const Json& json, Origin origin) {
  switch (json.type()) {
    case Json::value_t::boolean: return Value::Bool(json.get<bool>());
    case Json::value_t::number_integer: return Value::Integer(json.get<int64_t>());
    case Json::value_t::number_unsigned: return Value::Integer(json.get<uint64_t>());
    case Json::value_t::number_float: return Value::Float(json.get<double>());
    case Json::value_t::string: return String(TracedText(json.get_ref<const std::string&>(), origin));
    case Json::value_t::array: {
      std::vector<Value> items;
      items.reserve(json.size());
      for (const Json& element : json) {
        PENSIEVE_TRY(Value item, FromJson(element, origin));
        items.push_back(std::move(item));
      }
      return List(std::move(items));
    }
    case Json::value_t::object: {
      PENSIEVE_TRY(DictObject * dict, NewDict());
      for (const auto& [key, element] : json.items()) {
        PENSIEVE_TRY(const Value name, String(TracedText(key, origin)));
        PENSIEVE_TRY(Value item, FromJson(element, origin));
        PENSIEVE_RETURN_IF_ERROR(SetEntry(*dict, name, std::move(item)));
      }
      return Value(Value::Storage(dict));
    }
    default: return Value::None();
  }
}

Result<Value> Runtime::Native(std::string_view name, NativeFunction function, Value self) {
  PENSIEVE_TRY(CallableObject * callable, New<CallableObject>());
  callable->name = name;
  callable->native = function;
  callable->self = std::move(self);
  return Value(Value::Storage(callable));
}

Result<std::vector<Value>> Runtime::Items(const Value& iterable) {
  PENSIEVE_RETURN_IF_ERROR(Step(iterable.IsString() ? iterable.text().size() : WorkSize(iterable)));
  if (iterable.IsUndefined()) return std::vector<Value>();
  if (ListObject* list = iterable.list()) {
    if (list->kind == SequenceKind::kGenerator) return std::exchange(list->items, {});
    return list->items;
  }
  std::vector<Value> items;
  if (const DictObject* dict = iterable.dict()) {
    for (const auto& entry : dict->entries()) items.push_back(entry.first);
    return items;
  }
  if (!iterable.IsString()) { return InvalidArgument(fmt::format("'{}' object is not iterable", iterable.TypeName())); }
  const std::string& text = iterable.text();
  for (size_t i = 0; i < text.size(); i += CodePointBytes(text, i)) {
    PENSIEVE_TRY(Value item, String(iterable.traced().Slice(i, i + CodePointBytes(text, i))));
    items.push_back(std::move(item));
  }
  return items;
}

Result<Value> Runtime::Attribute(const Value& object, std::string_view name) {
  if (object.IsUndefined()) return UndefinedError(object);
  if (const NamespaceObject* space = object.name_space()) {
    const Value* found = space->Find(name);
    return found != nullptr ? *found : MissingAttribute(object, Value::Text(std::string(name)));
  }
  if (object.loop() != nullptr) return LoopAttribute(*object.loop(), name);
  NativeFunction method = nullptr;
  if (object.IsString()) method = FindStringMethod(name);
  if (object.list() != nullptr && object.list()->kind <= SequenceKind::kTuple) method = FindListMethod(name);
  if (object.dict() != nullptr) method = FindDictMethod(name);
  if (method != nullptr) return Native(name, method, object);
  if (object.dict() != nullptr) {
    if (const Value* found = object.dict()->Find(name)) return *found;
  }
  return MissingAttribute(object, Value::Text(std::string(name)));
}

Result<Value> Runtime::Item(const Value& object, const Value& key) {
  if (object.IsUndefined()) return UndefinedError(object);
  if (const DictObject* dict = object.dict()) {
    if (const Value* found = dict->Find(key)) return *found;
  }
  if (key.IsString()) return Attribute(object, key.text());
  if (!key.IsIntegral()) return MissingAttribute(object, key);
  if (object.list() != nullptr && object.list()->Indexable()) {
    const auto& items = object.list()->items;
    const Int index = key.integer() < 0 ? key.integer() + static_cast<Int>(items.size()) : key.integer();
    if (index >= 0 && index < static_cast<Int>(items.size())) return items[static_cast<size_t>(index)];
  }
  if (object.IsString()) {
    const std::string& text = object.text();
    PENSIEVE_RETURN_IF_ERROR(Step(WorkSize(object)));
    const auto count = static_cast<Int>(CodePointCount(text));
    const Int index = key.integer() < 0 ? key.integer() + count : key.integer();
    if (index >= 0 && index < count) {
      const size_t at = ByteOffset(text, static_cast<size_t>(index));
      return String(object.traced().Slice(at, at + CodePointBytes(text, at)));
    }
  }
  return MissingAttribute(object, key);
}

Result<bool> Runtime::Equal(const Value& a, const Value& b) {
  CompareCost cost;
  PENSIEVE_TRY(const bool same, Equals(a, b, cost));
  PENSIEVE_RETURN_IF_ERROR(Step(cost.nodes + (a.IsString() ? WorkSize(a) : 0)));
  return same;
}

Result<int> Runtime::Order(const Value& a, const Value& b) {
  CompareCost cost;
  PENSIEVE_TRY(const int order, Compare(a, b, cost));
  PENSIEVE_RETURN_IF_ERROR(Step(cost.nodes + (a.IsString() ? WorkSize(a) : 0)));
  return order;
}

Result<bool> Runtime::Contains(const Value& container, const Value& item) {
  PENSIEVE_RETURN_IF_ERROR(Step(WorkSize(container)));
  if (container.IsString()) {
    if (item.IsUndefined()) return UndefinedError(item);
    if (!item.IsString()) {
      return InvalidArgument(fmt::format("'in <string>' requires string as left operand, not {}", item.TypeName()));
    }
    return Find(container.text(), item.text()) != std::string_view::npos;
  }
  if (container.IsUndefined()) return false;
  if (const DictObject* dict = container.dict()) return dict->Find(item) != nullptr;
  const ListObject* list = container.list();
  if (list == nullptr) {
    return InvalidArgument(fmt::format("argument of type '{}' is not iterable", container.TypeName()));
  }
  for (const Value& candidate : list->items) {
    PENSIEVE_TRY(const bool same, Equal(candidate, item));
    if (same) return true;
  }
  return false;
}

Result<Value> Runtime::Call(const Value& callee, const CallArgs& args) {
  if (callee.IsUndefined()) return UndefinedError(callee);
  if (callee.loop() != nullptr) return CallLoop(*callee.loop(), args);
  const CallableObject* callable = callee.callable();
  if (callable == nullptr) return InvalidArgument(fmt::format("'{}' object is not callable", callee.TypeName()));
  if (callable->native == nullptr) return CallMacro(*callable, args);
  // Methods of containers that look at all items count these themselves.
  PENSIEVE_RETURN_IF_ERROR(Step(1 + (callable->self.IsString() ? WorkSize(callable->self) : 0)));
  return callable->native(*this, callable->self, args);
}

Result<Value> Runtime::ApplyFilter(std::string_view name, const Value& input, const CallArgs& args) {
  const NativeFunction filter = FindFilter(name);
  if (filter == nullptr) return InvalidArgument(fmt::format("No filter named '{}'.", name));
  PENSIEVE_RETURN_IF_ERROR(Step(1 + (input.IsString() || !IgnoresItems(name) ? WorkSize(input) : 0)));
  return filter(*this, input, args);
}

Result<bool> Runtime::ApplyTest(std::string_view name, const Value& input, const CallArgs& args) {
  const TestFunction test = FindTest(name);
  if (test == nullptr) return InvalidArgument(fmt::format("No test named '{}'.", name));
  PENSIEVE_RETURN_IF_ERROR(Step());
  return test(*this, input, args);
}

Value MissingName(std::string_view name) { return UndefinedWith(fmt::format("'{}' is undefined", name)); }

Value MissingAttribute(const Value& object, const Value& key) {
  const std::string type = object.IsNone() ? "None" : fmt::format("{} object", object.TypeName());
  if (key.IsString())
    return UndefinedWith(fmt::format("'{}' has no attribute {}", type, StringRepr(key.text().substr(0, 200))));
  return UndefinedWith(
      fmt::format("{} has no element {}", type, key.IsInt() ? IntRepr(key.integer()) : key.TypeName()));
}

size_t WorkSize(const Value& value) {
  if (value.IsString()) return value.text().size() / 64;
  if (value.list() != nullptr) return value.list()->items.size();
  if (value.dict() != nullptr) return value.dict()->entries().size();
  return 0;
}

}  // namespace pensieve::chat::jinja
