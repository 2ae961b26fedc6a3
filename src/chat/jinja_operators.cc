// Arithmetic and comparison operators with Python's rules.
#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "chat/jinja_print.h"
#include "chat/jinja_runtime.h"

namespace pensieve::chat::jinja {
namespace {

Status Mismatch(const char* op, const Value& left, const Value& right) {
  if (left.IsUndefined()) return UndefinedError(left);
  if (right.IsUndefined()) return UndefinedError(right);
  if (op[0] == '+' && left.IsString()) {
    return InvalidArgument(fmt::format("can only concatenate str (not \"{}\") to str", right.TypeName()));
  }
  return InvalidArgument(
      fmt::format("unsupported operand type(s) for {}: '{}' and '{}'", op, left.TypeName(), right.TypeName()));
}

Status OutOfRange() { return InvalidArgument("an integer result is out of range"); }

Result<Value> Repeat(Runtime& runtime, const Value& sequence, Int count) {
  if (count < 0) count = 0;
  const auto limit = static_cast<Int>(runtime.limits().output_bytes_max);
  if (sequence.IsString()) {
    const std::string& text = sequence.text();
    if (static_cast<Int>(text.size()) * count > limit || count > limit) {
      return InvalidArgument("a repeated string is too long");
    }
    PENSIEVE_RETURN_IF_ERROR(runtime.Step(static_cast<size_t>(count) / 64));
    TracedText repeated;
    repeated.Reserve(text.size() * static_cast<size_t>(count));
    for (Int i = 0; i < count && !text.empty(); ++i) repeated.Append(sequence.traced());
    return runtime.String(std::move(repeated));
  }
  const auto& items = sequence.list()->items;
  const auto items_max = static_cast<Int>(runtime.limits().range_items_max);
  if (count > items_max || static_cast<Int>(items.size()) * count > items_max) {
    return InvalidArgument("a repeated list is too long");
  }
  std::vector<Value> repeated;
  for (Int i = 0; i < count; ++i) repeated.insert(repeated.end(), items.begin(), items.end());
  return runtime.List(std::move(repeated), sequence.list()->kind);
}

Result<Value> Add(Runtime& runtime, const Value& left, const Value& right) {
  if (left.IsString() && right.IsString()) {
    if (left.text().size() + right.text().size() > runtime.limits().output_bytes_max) {
      return InvalidArgument("a concatenated string is too long");
    }
    const bool markup = left.IsMarkup() || right.IsMarkup();
    TracedText joined;
    joined.Reserve(left.text().size() + right.text().size());
    for (const Value* side : {&left, &right}) {
      joined.Append(markup && !side->IsMarkup() ? side->traced().Map(EscapeHtml) : side->traced());
    }
    return runtime.String(std::move(joined), markup);
  }
  const ListObject* a = left.list();
  const ListObject* b = right.list();
  if (a == nullptr || b == nullptr || a->kind != b->kind || a->kind > SequenceKind::kTuple) {
    return Mismatch("+", left, right);
  }
  PENSIEVE_RETURN_IF_ERROR(runtime.Step(a->items.size() + b->items.size()));
  std::vector<Value> joined = a->items;
  joined.insert(joined.end(), b->items.begin(), b->items.end());
  return runtime.List(std::move(joined), a->kind);
}

// Rounds towards minus infinity, as Python does; the remainder has the divisor's sign.
Int FloorDivide(Int a, Int b) { return a / b - ((a % b != 0 && (a < 0) != (b < 0)) ? 1 : 0); }

Result<Value> IntegerPower(Int base, Int exponent) {
  if (exponent < 0) return Value::Float(std::pow(static_cast<double>(base), static_cast<double>(exponent)));
  Int result = 1;
  while (exponent > 0) {
    if ((exponent & 1) != 0 && __builtin_mul_overflow(result, base, &result)) return OutOfRange();
    exponent >>= 1;
    if (exponent > 0 && __builtin_mul_overflow(base, base, &base)) return OutOfRange();
  }
  return Value::Integer(result);
}

Result<Value> IntegerOperation(Op op, Int a, Int b) {
  Int result = 0;
  if ((op == Op::kDivide || op == Op::kFloorDivide || op == Op::kModulo) && b == 0) {
    return InvalidArgument("division by zero");
  }
  switch (op) {
    case Op::kAdd: return __builtin_add_overflow(a, b, &result) ? Result<Value>(OutOfRange()) : Value::Integer(result);
    case Op::kSubtract:
      return __builtin_sub_overflow(a, b, &result) ? Result<Value>(OutOfRange()) : Value::Integer(result);
    case Op::kMultiply:
      return __builtin_mul_overflow(a, b, &result) ? Result<Value>(OutOfRange()) : Value::Integer(result);
    case Op::kDivide: return Value::Float(static_cast<double>(a) / static_cast<double>(b));
    case Op::kPower: return IntegerPower(a, b);
    default: break;
  }
  // The smallest integer divided by -1 overflows, in the remainder too.
  if (b == -1) {
    if (op == Op::kModulo) return Value::Integer(0);
    return __builtin_sub_overflow(Int{0}, a, &result) ? Result<Value>(OutOfRange()) : Value::Integer(result);
  }
  if (op == Op::kFloorDivide) return Value::Integer(FloorDivide(a, b));
  const Int remainder = a % b;
  return Value::Integer(remainder != 0 && (remainder < 0) != (b < 0) ? remainder + b : remainder);
}

Result<Value> FloatOperation(Op op, double a, double b) {
  if ((op == Op::kDivide || op == Op::kFloorDivide || op == Op::kModulo) && b == 0) {
    return InvalidArgument("float division by zero");
  }
  switch (op) {
    case Op::kAdd: return Value::Float(a + b);
    case Op::kSubtract: return Value::Float(a - b);
    case Op::kMultiply: return Value::Float(a * b);
    case Op::kDivide: return Value::Float(a / b);
    case Op::kFloorDivide: return Value::Float(std::floor(a / b));
    case Op::kPower: return Value::Float(std::pow(a, b));
    default: break;
  }
  const double remainder = std::fmod(a, b);
  return Value::Float(remainder != 0 && (remainder < 0) != (b < 0) ? remainder + b : remainder);
}

// "%s and %d" % values: the conversions s, r, d, i, f (with precision) and %%.
class PercentFormat {
 public:
  PercentFormat(Runtime& runtime, const TracedText& format, const Value& values) : runtime_(runtime), format_(format) {
    if (values.list() != nullptr && values.list()->kind == SequenceKind::kTuple) {
      values_ = values.list()->items;
    } else {
      values_.push_back(values);
    }
  }

  Result<Value> Run() {
    const std::string& format = format_.bytes();
    for (size_t i = 0; i < format.size(); ++i) {
      const size_t mark = std::min(format.find('%', i), format.size());
      out_.Append(format_, i, mark);
      i = mark;
      if (i < format.size()) PENSIEVE_RETURN_IF_ERROR(Conversion(format, ++i));
    }
    if (next_ != values_.size()) return InvalidArgument("not all arguments converted during string formatting");
    return runtime_.String(std::move(out_));
  }

 private:
  Status Conversion(const std::string& format, size_t& i) {
    int precision = 6;
    if (i < format.size() && format[i] == '.') {
      precision = 0;
      for (++i; i < format.size() && format[i] >= '0' && format[i] <= '9' && precision < 100; ++i) {
        precision = precision * 10 + (format[i] - '0');
      }
    }
    if (i >= format.size()) return InvalidArgument("incomplete format");
    const char kind = format[i];
    if (kind == '%') {
      out_.Append(format_, i, i + 1);
      return OkStatus();
    }
    if (next_ >= values_.size()) return InvalidArgument("not enough arguments for format string");
    const Value& value = values_[next_++];
    const size_t bytes_max = runtime_.limits().output_bytes_max;
    if (kind == 's') return AppendStr(value, bytes_max, out_);
    if (kind == 'r') return AppendRepr(value, bytes_max, out_);
    if (!value.IsNumber()) return InvalidArgument(fmt::format("%{} format: a number is required", kind));
    if (kind == 'f') {
      out_.Append(fmt::format("{:.{}f}", value.number(), precision), kFromTemplate);
    } else if ((kind == 'd' || kind == 'i') && std::abs(value.number()) < 1e30) {
      out_.Append(IntRepr(value.IsFloat() ? static_cast<Int>(value.number()) : value.integer()), kFromTemplate);
    } else {
      return InvalidArgument(fmt::format("unsupported format character '{}'", kind));
    }
    return OkStatus();
  }

  Runtime& runtime_;
  const TracedText& format_;
  std::vector<Value> values_;
  size_t next_ = 0;
  TracedText out_;
};

bool IsRepeatable(const Value& value) {
  return value.IsString() || (value.list() != nullptr && value.list()->kind <= SequenceKind::kTuple);
}

}  // namespace

Result<Value> BinaryOperation(Runtime& runtime, Op op, const Value& left, const Value& right) {
  static constexpr const char* kSymbols[] = {"+", "-", "*", "/", "//", "%", "**"};
  if (left.IsIntegral() && right.IsIntegral()) return IntegerOperation(op, left.integer(), right.integer());
  if (left.IsNumber() && right.IsNumber()) return FloatOperation(op, left.number(), right.number());
  if (op == Op::kAdd) return Add(runtime, left, right);
  if (op == Op::kMultiply) {
    if (IsRepeatable(left) && right.IsIntegral()) return Repeat(runtime, left, right.integer());
    if (left.IsIntegral() && IsRepeatable(right)) return Repeat(runtime, right, left.integer());
  }
  if (op == Op::kModulo && left.IsString() && !right.IsUndefined()) {
    return PercentFormat(runtime, left.traced(), right).Run();
  }
  return Mismatch(kSymbols[static_cast<size_t>(op)], left, right);
}

Result<bool> CompareValues(Runtime& runtime, Op op, const Value& left, const Value& right) {
  switch (op) {
    case Op::kIn: return runtime.Contains(right, left);
    case Op::kNotIn: {
      PENSIEVE_TRY(const bool inside, runtime.Contains(right, left));
      return !inside;
    }
    case Op::kEqual: return runtime.Equal(left, right);
    case Op::kNotEqual: {
      PENSIEVE_TRY(const bool same, runtime.Equal(left, right));
      return !same;
    }
    default: break;
  }
  PENSIEVE_TRY(const int order, runtime.Order(left, right));
  switch (op) {
    case Op::kLess: return order < 0;
    case Op::kLessEqual: return order <= 0;
    case Op::kGreater: return order > 0;
    default: return order >= 0;
  }
}

}  // namespace pensieve::chat::jinja
