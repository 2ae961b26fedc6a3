#include "chat/jinja_globals.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <ctime>

#include "chat/jinja_print.h"

namespace pensieve::chat::jinja {
namespace {

Result<Value> RaiseException(Runtime& runtime, const Value&, const CallArgs& args) {
  PENSIEVE_TRY(const auto bound, BoundArgs::Bind("raise_exception", {"message"}, args, 1));
  TracedText text;
  PENSIEVE_RETURN_IF_ERROR(AppendStr(*bound[0], runtime.limits().output_bytes_max, text));
  std::string message = kVerbatimMark + text.bytes();
  message.resize(std::min<size_t>(message.size(), 4096));
  return InvalidArgument(std::move(message));
}

Result<Value> MakeNamespace(Runtime& runtime, const Value&, const CallArgs& args) {
  PENSIEVE_TRY(NamespaceObject * space, runtime.New<NamespaceObject>());
  if (args.positional.size() > 1) return InvalidArgument("namespace takes at most 1 positional argument");
  if (!args.positional.empty()) {
    const DictObject* dict = args.positional[0].dict();
    if (dict == nullptr) return InvalidArgument("namespace takes a mapping or keyword arguments");
    for (const auto& [key, value] : dict->entries()) {
      if (key.IsString()) space->Set(key.text(), value);
    }
  }
  for (const auto& [name, value] : args.keywords) space->Set(name, value);
  return Value(Value::Storage(space));
}

Result<Value> MakeDict(Runtime& runtime, const Value&, const CallArgs& args) {
  PENSIEVE_TRY(DictObject * dict, runtime.NewDict());
  for (const Value& from : args.positional) {
    if (from.dict() == nullptr) return InvalidArgument("dict takes a mapping or keyword arguments");
    for (const auto& [key, value] : from.dict()->entries()) {
      PENSIEVE_RETURN_IF_ERROR(runtime.SetEntry(*dict, key, value));
    }
  }
  for (const auto& [name, value] : args.keywords) {
    PENSIEVE_RETURN_IF_ERROR(runtime.SetEntry(*dict, Value::Text(name), value));
  }
  return Value(Value::Storage(dict));
}

Result<Value> Range(Runtime& runtime, const Value&, const CallArgs& args) {
  PENSIEVE_TRY(const auto bound, BoundArgs::Bind("range", {"start", "stop", "step"}, args, 1));
  for (const Value& value : args.positional) {
    if (value.IsUndefined()) return UndefinedError(value);
    if (!value.IsIntegral()) {
      return InvalidArgument(fmt::format("'{}' object cannot be interpreted as an integer", value.TypeName()));
    }
  }
  PENSIEVE_TRY(const int64_t first, bound.Int64(0, 0));
  PENSIEVE_TRY(const int64_t second, bound.Int64(1, 0));
  PENSIEVE_TRY(const int64_t step, bound.Int64(2, 1));
  const Int start = bound[1] == nullptr ? 0 : first;
  const Int stop = bound[1] == nullptr ? first : second;
  if (step == 0) return InvalidArgument("range() arg 3 must not be zero");
  const Int distance = step > 0 ? stop - start : start - stop;
  const Int magnitude = step > 0 ? Int{step} : -Int{step};
  const Int count = distance <= 0 ? 0 : (distance + magnitude - 1) / magnitude;
  if (count > static_cast<Int>(runtime.limits().range_items_max)) {
    return InvalidArgument(fmt::format("Range too big. The sandbox blocks ranges larger than MAX_RANGE ({}).",
                                       runtime.limits().range_items_max));
  }
  std::vector<Value> items;
  for (Int i = 0; i < count; ++i) items.push_back(Value::Integer(start + i * step));
  return runtime.List(std::move(items), SequenceKind::kRange);
}

}  // namespace

std::span<const GlobalFunction> GlobalFunctions() {
  static constexpr std::array<GlobalFunction, 4> kFunctions = {
      {{"raise_exception", RaiseException}, {"namespace", MakeNamespace}, {"dict", MakeDict}, {"range", Range}}};
  return kFunctions;
}

Result<Value> StrftimeNow(Runtime& runtime, const Value& self, const CallArgs& args) {
  PENSIEVE_TRY(const auto bound, BoundArgs::Bind("strftime_now", {"format"}, args, 1));
  PENSIEVE_TRY(std::string format, bound.Text(0, ""));
  if (format.size() > 1024) return InvalidArgument("strftime_now: the format has more than 1024 bytes");
  // What a naive datetime of Python shows differently from C: no zone, and microseconds.
  std::string adapted;
  for (size_t i = 0; i < format.size(); ++i) {
    const bool pair = format[i] == '%' && i + 1 < format.size();
    if (pair && format[i + 1] == 'f') adapted += "000000";
    if (pair && format[i + 1] != 'f' && format[i + 1] != 'z' && format[i + 1] != 'Z') adapted += format.substr(i, 2);
    if (!pair) adapted += format[i];
    if (pair) ++i;
  }
  const auto seconds = static_cast<time_t>(self.integer());
  std::tm parts{};
  if (localtime_r(&seconds, &parts) == nullptr) return InvalidArgument("strftime_now: the time is out of range");
  // A space in front tells an empty result from a buffer that was too small.
  std::vector<char> buffer(64 * 1024);
  const size_t length = std::strftime(buffer.data(), buffer.size(), (" " + adapted).c_str(), &parts);
  if (length == 0) return InvalidArgument("strftime_now: the result is too long");
  return runtime.OwnString(std::string(buffer.data() + 1, length - 1));
}

}  // namespace pensieve::chat::jinja
