// The tests behind `is`.
#include <fmt/format.h>

#include <map>

#include "chat/jinja_runtime.h"
#include "chat/python_text.h"

namespace pensieve::chat::jinja {
namespace {

using Args = CallArgs;

bool IsIterable(const Value& v) {
  return v.IsString() || v.IsUndefined() || v.list() != nullptr || v.dict() != nullptr;
}

Result<bool> Compared(Runtime& rt, Op op, const Value& v, const Args& args) {
  PENSIEVE_TRY(const auto bound, BoundArgs::Bind("the test", {"other"}, args, 1));
  return CompareValues(rt, op, v, *bound[0]);
}

Result<bool> Divisible(const Value& v, Int divisor) {
  if (v.IsUndefined()) return UndefinedError(v);
  if (!v.IsIntegral()) return InvalidArgument(fmt::format("'{}' cannot be divided as an integer", v.TypeName()));
  if (divisor == 0) return InvalidArgument("division by zero");
  return divisor == -1 || v.integer() % divisor == 0;
}

// str.islower and str.isupper: some cased letter, and none of the other case.
bool AllCased(const Value& v, bool upper) {
  if (!v.IsString()) return false;
  const std::string& text = v.text();
  const std::string other = upper ? ToUpper(text) : ToLower(text);
  const std::string opposite = upper ? ToLower(text) : ToUpper(text);
  return text == other && text != opposite;
}

Result<bool> SameAs(const Value& v, const Args& args) {
  PENSIEVE_TRY(const auto bound, BoundArgs::Bind("sameas", {"other"}, args, 1));
  const Value& other = *bound[0];
  if (v.IsBool() || other.IsBool()) return v.IsBool() && other.IsBool() && v.bool_value() == other.bool_value();
  if (v.IsNone() || other.IsNone()) return v.IsNone() && other.IsNone();
  if (v.list() != nullptr || other.list() != nullptr) return v.list() == other.list();
  if (v.dict() != nullptr || other.dict() != nullptr) return v.dict() == other.dict();
  if (std::string_view(v.TypeName()) != other.TypeName()) return false;
  CompareCost cost;
  return Equals(v, other, cost);
}

using Table = std::map<std::string_view, TestFunction>;

const Table& Tests() {
  static const Table kTests = {
      {"defined", [](Runtime&, const Value& v, const Args&) -> Result<bool> { return !v.IsUndefined(); }},
      {"undefined", [](Runtime&, const Value& v, const Args&) -> Result<bool> { return v.IsUndefined(); }},
      {"none", [](Runtime&, const Value& v, const Args&) -> Result<bool> { return v.IsNone(); }},
      {"boolean", [](Runtime&, const Value& v, const Args&) -> Result<bool> { return v.IsBool(); }},
      {"true", [](Runtime&, const Value& v, const Args&) -> Result<bool> { return v.IsBool() && v.bool_value(); }},
      {"false", [](Runtime&, const Value& v, const Args&) -> Result<bool> { return v.IsBool() && !v.bool_value(); }},
      {"integer", [](Runtime&, const Value& v, const Args&) -> Result<bool> { return v.IsInt(); }},
      {"float", [](Runtime&, const Value& v, const Args&) -> Result<bool> { return v.IsFloat(); }},
      {"number", [](Runtime&, const Value& v, const Args&) -> Result<bool> { return v.IsNumber(); }},
      {"string", [](Runtime&, const Value& v, const Args&) -> Result<bool> { return v.IsString(); }},
      {"escaped", [](Runtime&, const Value& v, const Args&) -> Result<bool> { return v.IsMarkup(); }},
      {"mapping", [](Runtime&, const Value& v, const Args&) -> Result<bool> { return v.dict() != nullptr; }},
      {"iterable", [](Runtime&, const Value& v, const Args&) -> Result<bool> { return IsIterable(v); }},
      {"sequence",
       [](Runtime&, const Value& v, const Args&) -> Result<bool> {
         return IsIterable(v) && (v.list() == nullptr || v.list()->Indexable());
       }},
      {"callable",
       [](Runtime&, const Value& v, const Args&) -> Result<bool> {
         return v.callable() != nullptr || v.IsUndefined() || v.loop() != nullptr;
       }},
      {"lower", [](Runtime&, const Value& v, const Args&) -> Result<bool> { return AllCased(v, false); }},
      {"upper", [](Runtime&, const Value& v, const Args&) -> Result<bool> { return AllCased(v, true); }},
      {"even", [](Runtime&, const Value& v, const Args&) { return Divisible(v, 2); }},
      {"odd",
       [](Runtime&, const Value& v, const Args&) -> Result<bool> {
         PENSIEVE_TRY(const bool even, Divisible(v, 2));
         return !even;
       }},
      {"divisibleby",
       [](Runtime&, const Value& v, const Args& args) -> Result<bool> {
         PENSIEVE_TRY(const auto bound, BoundArgs::Bind("divisibleby", {"num"}, args, 1));
         PENSIEVE_TRY(const int64_t divisor, bound.Int64(0, 1));
         return Divisible(v, divisor);
       }},
      {"sameas", [](Runtime&, const Value& v, const Args& args) { return SameAs(v, args); }},
      {"in", [](Runtime& rt, const Value& v, const Args& args) { return Compared(rt, Op::kIn, v, args); }},
      {"eq", [](Runtime& rt, const Value& v, const Args& args) { return Compared(rt, Op::kEqual, v, args); }},
      {"ne", [](Runtime& rt, const Value& v, const Args& args) { return Compared(rt, Op::kNotEqual, v, args); }},
      {"lt", [](Runtime& rt, const Value& v, const Args& args) { return Compared(rt, Op::kLess, v, args); }},
      {"le", [](Runtime& rt, const Value& v, const Args& args) { return Compared(rt, Op::kLessEqual, v, args); }},
      {"gt", [](Runtime& rt, const Value& v, const Args& args) { return Compared(rt, Op::kGreater, v, args); }},
      {"ge", [](Runtime& rt, const Value& v, const Args& args) { return Compared(rt, Op::kGreaterEqual, v, args); }},
  };
  return kTests;
}

}  // namespace

TestFunction FindTest(std::string_view name) {
  static const std::map<std::string_view, std::string_view> kAliases = {
      {"equalto", "eq"}, {"==", "eq"}, {"!=", "ne"}, {"<", "lt"},          {"lessthan", "lt"},
      {"<=", "le"},      {">", "gt"},  {">=", "ge"}, {"greaterthan", "gt"}};
  if (const auto alias = kAliases.find(name); alias != kAliases.end()) name = alias->second;
  const auto found = Tests().find(name);
  return found == Tests().end() ? nullptr : found->second;
}

}  // namespace pensieve::chat::jinja
