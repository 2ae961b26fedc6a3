// The filters behind `|`, as Jinja and HF transformers define them.
#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cmath>
#include <cstdlib>
#include <map>

#include "base/utf8.h"
#include "chat/jinja_print.h"
#include "chat/jinja_runtime.h"
#include "chat/python_text.h"

namespace pensieve::chat::jinja {
namespace {

using Args = CallArgs;
using Table = std::map<std::string_view, NativeFunction>;

// str(value), keeping strings as they are.
Result<Value> SoftStr(Runtime& rt, const Value& value) {
  if (value.IsString()) return value;
  TracedText text;
  PENSIEVE_RETURN_IF_ERROR(AppendStr(value, rt.limits().output_bytes_max, text));
  return rt.String(std::move(text));
}

// A filter that is a string method applied to str(input).
template <const char* kMethod>
Result<Value> AsMethod(Runtime& rt, const Value& input, const Args& args) {
  PENSIEVE_TRY(const Value text, SoftStr(rt, input));
  return FindStringMethod(kMethod)(rt, text, args);
}
constexpr char kStrip[] = "strip", kUpper[] = "upper", kLower[] = "lower", kCapitalize[] = "capitalize",
               kReplace[] = "replace";

Result<Value> StringFilter(Runtime& rt, const Value& input, const Args&) { return SoftStr(rt, input); }

Result<Value> ToJson(Runtime& rt, const Value& input, const Args& args) {
  PENSIEVE_TRY(const auto bound,
               BoundArgs::Bind("tojson", {"ensure_ascii", "indent", "separators", "sort_keys"}, args));
  JsonStyle style;
  style.ensure_ascii = bound.IsTrue(0);
  style.sort_keys = bound.IsTrue(3);
  if (bound[1] != nullptr && !bound[1]->IsNone()) {
    style.indented = true;
    style.item_separator = ",";
    if (bound[1]->IsString()) {
      style.indent = bound[1]->text();
    } else {
      PENSIEVE_TRY(const int64_t width, bound.Int64(1, 0));
      style.indent.assign(static_cast<size_t>(std::clamp<int64_t>(width, 0, 64)), ' ');
    }
  }
  if (bound[2] != nullptr && !bound[2]->IsNone()) {
    const ListObject* pair = bound[2]->list();
    if (pair == nullptr || pair->items.size() != 2 || !pair->items[0].IsString() || !pair->items[1].IsString()) {
      return InvalidArgument("tojson: separators must be a pair of strings");
    }
    style.item_separator = pair->items[0].text();
    style.key_separator = pair->items[1].text();
  }
  TracedText text;
  PENSIEVE_RETURN_IF_ERROR(AppendJson(input, style, rt.limits().output_bytes_max, text));
  return rt.String(std::move(text));
}

Result<Value> FromJsonFilter(Runtime& rt, const Value& input, const Args&) {
  PENSIEVE_TRY(const Value text, SoftStr(rt, input));
  PENSIEVE_TRY(const Json json, ParseJson(text.text()));
  return rt.FromJson(json, text.traced().FirstSource());
}

Result<Value> LengthFilter(Runtime&, const Value& input, const Args&) {
  PENSIEVE_TRY(const size_t length, Length(input));
  return Value::Integer(static_cast<Int>(length));
}

Result<Value> ListFilter(Runtime& rt, const Value& input, const Args&) {
  PENSIEVE_TRY(auto items, rt.Items(input));
  return rt.List(std::move(items));
}

Result<Value> ItemsFilter(Runtime& rt, const Value& input, const Args& args) {
  if (input.IsUndefined()) return rt.List({}, SequenceKind::kGenerator);
  if (input.dict() == nullptr) return InvalidArgument("Can only get item pairs from a mapping.");
  PENSIEVE_TRY(const Value items, FindDictMethod("items")(rt, input, args));
  items.list()->kind = SequenceKind::kGenerator;
  return items;
}

Result<Value> Default(Runtime& rt, const Value& input, const Args& args) {
  PENSIEVE_TRY(const auto bound, BoundArgs::Bind("default", {"default_value", "boolean"}, args));
  const bool wanted = input.IsUndefined() || (bound.IsTrue(1) && !Truthy(input));
  if (!wanted) return input;
  return bound[0] == nullptr ? rt.OwnString("") : Result<Value>(*bound[0]);
}

Result<Value> Safe(Runtime& rt, const Value& input, const Args&) {
  PENSIEVE_TRY(const Value text, SoftStr(rt, input));
  return rt.String(text.traced(), true);
}

Result<Value> Escape(Runtime& rt, const Value& input, const Args&) {
  PENSIEVE_TRY(const Value text, SoftStr(rt, input));
  if (text.IsMarkup()) return text;
  return rt.String(text.traced().Map(EscapeHtml), true);
}

Result<Value> Title(Runtime& rt, const Value& input, const Args&) {
  PENSIEVE_TRY(const Value text, SoftStr(rt, input));
  TracedText out;
  bool in_word = false;
  const std::string& s = text.text();
  for (size_t i = 0; i < s.size(); i += CodePointBytes(s, i)) {
    const TracedText letter = text.traced().Slice(i, i + CodePointBytes(s, i));
    const char32_t c = DecodeAt(s, i);
    const bool delimiter = IsSpace(c) || c == '-' || c == '(' || c == '{' || c == '[' || c == '<';
    out.Append(letter.Map(in_word && !delimiter ? ToLower : ToUpper));
    in_word = !delimiter;
  }
  return rt.String(std::move(out));
}

Result<Value> Indent(Runtime& rt, const Value& input, const Args& args) {
  PENSIEVE_TRY(const auto bound, BoundArgs::Bind("indent", {"width", "first", "blank"}, args));
  TracedText indent;
  if (bound[0] != nullptr && bound[0]->IsString()) {
    indent = bound[0]->traced();
  } else {
    PENSIEVE_TRY(const int64_t width, bound.Int64(0, 4));
    if (width > 1000) return InvalidArgument("indent: the width is larger than 1000");
    indent.Append(std::string(static_cast<size_t>(std::max<int64_t>(0, width)), ' '), kFromTemplate);
  }
  PENSIEVE_TRY(const Value text, SoftStr(rt, input));
  // The extra line end keeps a last empty line.
  TracedText closed = text.traced();
  closed.AppendAlike("\n");
  PENSIEVE_TRY(const Value source, rt.String(std::move(closed)));
  PENSIEVE_TRY(const Value lines, FindStringMethod("splitlines")(rt, source, {}));
  TracedText out = bound.IsTrue(1) ? indent : TracedText();
  const auto& items = lines.list()->items;
  for (size_t i = 0; i < items.size(); ++i) {
    if (i != 0) out.AppendAlike("\n");
    if (i != 0 && (bound.IsTrue(2) || !items[i].text().empty())) out.Append(indent);
    out.Append(items[i].traced());
    if (out.size() > rt.limits().output_bytes_max) return InvalidArgument("indent makes a string that is too long");
  }
  return rt.String(std::move(out));
}

// --- numbers -------------------------------------------------------------------------------------------------------

// int(text) as Python reads it: blanks around, a sign, single underscores between digits. False when it is no integer.
bool ParseInt(std::string_view text, int base, Int& value) {
  text = StripSpace(text);
  const bool negative = text.starts_with('-');
  if (negative || text.starts_with('+')) text.remove_prefix(1);
  if (base == 16 && (text.starts_with("0x") || text.starts_with("0X"))) text.remove_prefix(2);
  if (text.empty() || text.front() == '_' || text.back() == '_') return false;
  value = 0;
  char previous = '0';
  for (const char c : text) {
    const int digit = c >= '0' && c <= '9'   ? c - '0'
                      : c >= 'a' && c <= 'z' ? c - 'a' + 10
                      : c >= 'A' && c <= 'Z' ? c - 'A' + 10
                                             : 99;
    if (c == '_' ? previous == '_' : digit >= base) return false;
    previous = c;
    if (c == '_') continue;
    if (__builtin_mul_overflow(value, Int{base}, &value) || __builtin_add_overflow(value, Int{digit}, &value))
      return false;
  }
  if (negative) value = -value;
  return true;
}

bool ParseFloat(const std::string& text, double& value) {
  const std::string trimmed(StripSpace(text));
  if (trimmed.empty() || trimmed.find_first_of("xX(") != std::string::npos) return false;
  char* end = nullptr;
  value = std::strtod(trimmed.c_str(), &end);
  return end == trimmed.c_str() + trimmed.size();
}

Result<Value> IntFilter(Runtime&, const Value& input, const Args& args) {
  PENSIEVE_TRY(const auto bound, BoundArgs::Bind("int", {"default", "base"}, args));
  PENSIEVE_TRY(const int64_t base, bound.Int64(1, 10));
  const Value otherwise = bound[0] == nullptr ? Value::Integer(0) : *bound[0];
  if (input.IsIntegral()) return Value::Integer(input.integer());
  double number = 0;
  if (input.IsString()) {
    Int value = 0;
    if (base >= 2 && base <= 36 && ParseInt(input.text(), static_cast<int>(base), value)) return Value::Integer(value);
    if (!ParseFloat(input.text(), number)) return otherwise;
  } else if (input.IsFloat()) {
    number = input.number();
  } else {
    return otherwise;
  }
  if (!(std::abs(number) < 1e30)) return otherwise;
  return Value::Integer(static_cast<Int>(number));
}

Result<Value> FloatFilter(Runtime&, const Value& input, const Args& args) {
  PENSIEVE_TRY(const auto bound, BoundArgs::Bind("float", {"default"}, args));
  if (input.IsNumber()) return Value::Float(input.number());
  double number = 0;
  if (input.IsString() && ParseFloat(input.text(), number)) return Value::Float(number);
  return bound[0] == nullptr ? Value::Float(0.0) : *bound[0];
}

Result<Value> Abs(Runtime&, const Value& input, const Args&) {
  if (input.IsUndefined()) return UndefinedError(input);
  if (!input.IsNumber()) return InvalidArgument(fmt::format("bad operand type for abs(): '{}'", input.TypeName()));
  if (input.IsFloat()) return Value::Float(std::abs(input.number()));
  return Value::Integer(input.integer() < 0 ? -input.integer() : input.integer());
}

Result<Value> Round(Runtime&, const Value& input, const Args& args) {
  PENSIEVE_TRY(const auto bound, BoundArgs::Bind("round", {"precision", "method"}, args));
  PENSIEVE_TRY(const int64_t precision, bound.Int64(0, 0));
  PENSIEVE_TRY(const std::string method, bound.Text(1, "common"));
  if (input.IsUndefined()) return UndefinedError(input);
  if (!input.IsNumber()) return InvalidArgument("round needs a number");
  if (std::abs(static_cast<double>(precision)) > 15) return InvalidArgument("round: the precision is beyond 15");
  const double scale = std::pow(10.0, static_cast<double>(precision));
  const double number = input.number();
  if (method == "ceil") return Value::Float(std::ceil(number * scale) / scale);
  if (method == "floor") return Value::Float(std::floor(number * scale) / scale);
  if (method != "common") return InvalidArgument("round: method must be common, ceil or floor");
  if (input.IsIntegral() && precision >= 0) return Value::Integer(input.integer());
  // Correctly rounded decimal digits, as Python does it.
  if (precision >= 0) return Value::Float(std::strtod(fmt::format("{:.{}f}", number, precision).c_str(), nullptr));
  return Value::Float(std::nearbyint(number * scale) / scale);
}

// --- sequences -----------------------------------------------------------------------------------------------------

Result<Value> First(Runtime& rt, const Value& input, const Args&) {
  if (const ListObject* list = input.list(); list != nullptr && list->Indexable() && !list->items.empty()) {
    return list->items.front();
  }
  PENSIEVE_TRY(const auto items, rt.Items(input));
  return items.empty() ? UndefinedWith("No first item, sequence was empty.") : items.front();
}

Result<Value> Last(Runtime& rt, const Value& input, const Args&) {
  if (const ListObject* list = input.list(); list != nullptr && list->Indexable() && !list->items.empty()) {
    return list->items.back();
  }
  PENSIEVE_TRY(const auto items, rt.Items(input));
  return items.empty() ? UndefinedWith("No last item, sequence was empty.") : items.back();
}

Result<Value> Reverse(Runtime& rt, const Value& input, const Args&) {
  PENSIEVE_TRY(auto items, rt.Items(input));
  std::reverse(items.begin(), items.end());
  if (!input.IsString()) return rt.List(std::move(items), SequenceKind::kGenerator);
  TracedText out;
  for (const Value& item : items) out.Append(item.traced());
  return rt.String(std::move(out));
}

// "a.b.0" looked up step by step; an absent path is the value itself.
Result<Value> Path(Runtime& rt, const Value& value, const Value* path) {
  if (path == nullptr || path->IsNone()) return value;
  if (path->IsIntegral()) return rt.Item(value, *path);
  PENSIEVE_TRY(const Value text, SoftStr(rt, *path));
  Value at = value;
  std::string_view rest = text.text();
  while (true) {
    const size_t dot = rest.find('.');
    const std::string_view part = rest.substr(0, dot);
    const bool number =
        !part.empty() && part.size() < 10 && part.find_first_not_of("0123456789") == std::string_view::npos;
    PENSIEVE_TRY(at, rt.Item(at, number ? Value::Integer(std::atoi(std::string(part).c_str()))
                                        : Value::Text(std::string(part))));
    if (dot == std::string_view::npos) return at;
    rest.remove_prefix(dot + 1);
  }
}

Result<Value> Join(Runtime& rt, const Value& input, const Args& args) {
  PENSIEVE_TRY(const auto bound, BoundArgs::Bind("join", {"d", "attribute"}, args));
  PENSIEVE_TRY(const auto items, rt.Items(input));
  TracedText separator;
  if (bound[0] != nullptr) PENSIEVE_RETURN_IF_ERROR(AppendStr(*bound[0], rt.limits().output_bytes_max, separator));
  TracedText out;
  for (size_t i = 0; i < items.size(); ++i) {
    if (i != 0) out.Append(separator);
    PENSIEVE_TRY(const Value item, Path(rt, items[i], bound[1]));
    PENSIEVE_RETURN_IF_ERROR(AppendStr(item, rt.limits().output_bytes_max, out));
  }
  return rt.String(std::move(out));
}

// Splits the arguments of map, select and reject: the first is a name, the rest goes to what it names.
Args Rest(const Args& args, size_t from) {
  Args rest;
  rest.positional.assign(args.positional.begin() + static_cast<std::ptrdiff_t>(from), args.positional.end());
  rest.keywords = args.keywords;
  return rest;
}

Result<Value> Map(Runtime& rt, const Value& input, const Args& args) {
  PENSIEVE_TRY(auto items, rt.Items(input));
  if (args.positional.empty()) {
    PENSIEVE_TRY(const auto bound, BoundArgs::Bind("map", {"attribute", "default"}, args, 1));
    for (Value& item : items) {
      PENSIEVE_TRY(item, Path(rt, item, bound[0]));
      if (item.IsUndefined() && bound[1] != nullptr) item = *bound[1];
    }
    return rt.List(std::move(items), SequenceKind::kGenerator);
  }
  if (!args.positional[0].IsString()) return InvalidArgument("map needs a filter name or attribute=");
  const Args rest = Rest(args, 1);
  for (Value& item : items) { PENSIEVE_TRY(item, rt.ApplyFilter(args.positional[0].text(), item, rest)); }
  return rt.List(std::move(items), SequenceKind::kGenerator);
}

// select, reject and their attr forms: keeps the items whose test gives `wanted`.
Result<Value> Choose(Runtime& rt, const Value& input, const Args& args, bool by_attribute, bool wanted) {
  PENSIEVE_TRY(const auto items, rt.Items(input));
  const size_t test_at = by_attribute ? 1 : 0;
  if (by_attribute && args.positional.empty()) return InvalidArgument("Missing parameter for attribute name");
  const bool has_test = args.positional.size() > test_at;
  if (has_test && !args.positional[test_at].IsString()) return InvalidArgument("a test's name must be a string");
  const Args rest = has_test ? Rest(args, test_at + 1) : Args();
  std::vector<Value> kept;
  for (const Value& item : items) {
    PENSIEVE_TRY(const Value subject, Path(rt, item, by_attribute ? &args.positional[0] : nullptr));
    bool holds = Truthy(subject);
    if (has_test) { PENSIEVE_TRY(holds, rt.ApplyTest(args.positional[test_at].text(), subject, rest)); }
    if (holds == wanted) kept.push_back(item);
  }
  return rt.List(std::move(kept), SequenceKind::kGenerator);
}

Result<Value> Select(Runtime& rt, const Value& v, const Args& args) { return Choose(rt, v, args, false, true); }
Result<Value> Reject(Runtime& rt, const Value& v, const Args& args) { return Choose(rt, v, args, false, false); }
Result<Value> SelectAttr(Runtime& rt, const Value& v, const Args& args) { return Choose(rt, v, args, true, true); }
Result<Value> RejectAttr(Runtime& rt, const Value& v, const Args& args) { return Choose(rt, v, args, true, false); }

// What sort, unique, min and max compare: the attribute, in lower case unless case matters.
Result<Value> SortKey(Runtime& rt, const Value& item, const Value* attribute, bool case_sensitive) {
  PENSIEVE_TRY(const Value key, Path(rt, item, attribute));
  if (case_sensitive || !key.IsString()) return key;
  return rt.String(key.traced().Map(ToLower));
}

struct Keyed {
  Value key;
  Value item;
};

Result<std::vector<Keyed>> WithKeys(Runtime& rt, const Value& input, const Value* attribute, bool case_sensitive) {
  PENSIEVE_TRY(const auto items, rt.Items(input));
  std::vector<Keyed> keyed;
  for (const Value& item : items) {
    PENSIEVE_TRY(Value key, SortKey(rt, item, attribute, case_sensitive));
    keyed.push_back(Keyed{std::move(key), item});
  }
  return keyed;
}

// Stable merge sort that stops at the first pair without an order; std::sort must not see a failing comparison.
Status SortKeyed(Runtime& rt, std::vector<Keyed>& keyed, bool reverse) {
  std::vector<Keyed> merged(keyed.size());
  for (size_t width = 1; width < keyed.size(); width *= 2) {
    for (size_t low = 0; low < keyed.size(); low += 2 * width) {
      const size_t middle = std::min(low + width, keyed.size());
      const size_t high = std::min(low + 2 * width, keyed.size());
      size_t left = low;
      size_t right = middle;
      for (size_t out = low; out < high; ++out) {
        bool take_right = left == middle;
        if (!take_right && right < high) {
          PENSIEVE_TRY(const int order, rt.Order(keyed[right].key, keyed[left].key));
          take_right = reverse ? order > 0 : order < 0;
        }
        merged[out] = std::move(keyed[take_right ? right++ : left++]);
      }
    }
    keyed.swap(merged);
  }
  return OkStatus();
}

Result<Value> ListOfItems(Runtime& rt, std::vector<Keyed> keyed) {
  std::vector<Value> items;
  for (Keyed& entry : keyed) items.push_back(std::move(entry.item));
  return rt.List(std::move(items));
}

Result<Value> Sort(Runtime& rt, const Value& input, const Args& args) {
  PENSIEVE_TRY(const auto bound, BoundArgs::Bind("sort", {"reverse", "case_sensitive", "attribute"}, args));
  PENSIEVE_TRY(auto keyed, WithKeys(rt, input, bound[2], bound.IsTrue(1)));
  PENSIEVE_RETURN_IF_ERROR(SortKeyed(rt, keyed, bound.IsTrue(0)));
  return ListOfItems(rt, std::move(keyed));
}

Result<Value> DictSort(Runtime& rt, const Value& input, const Args& args) {
  PENSIEVE_TRY(const auto bound, BoundArgs::Bind("dictsort", {"case_sensitive", "by", "reverse"}, args));
  PENSIEVE_TRY(const std::string by, bound.Text(1, "key"));
  if (by != "key" && by != "value") return InvalidArgument("You can only sort by either \"key\" or \"value\"");
  if (input.dict() == nullptr) return InvalidArgument("dictsort needs a mapping");
  PENSIEVE_TRY(const Value pairs, FindDictMethod("items")(rt, input, {}));
  const Value position = Value::Integer(by == "key" ? 0 : 1);
  PENSIEVE_TRY(auto keyed, WithKeys(rt, pairs, &position, bound.IsTrue(0)));
  PENSIEVE_RETURN_IF_ERROR(SortKeyed(rt, keyed, bound.IsTrue(2)));
  return ListOfItems(rt, std::move(keyed));
}

Result<Value> Unique(Runtime& rt, const Value& input, const Args& args) {
  PENSIEVE_TRY(const auto bound, BoundArgs::Bind("unique", {"case_sensitive", "attribute"}, args));
  PENSIEVE_TRY(const auto keyed, WithKeys(rt, input, bound[1], bound.IsTrue(0)));
  PENSIEVE_TRY(DictObject * seen, rt.NewDict());
  std::vector<Value> kept;
  for (const Keyed& entry : keyed) {
    if (seen->Find(entry.key) != nullptr) continue;
    PENSIEVE_RETURN_IF_ERROR(rt.SetEntry(*seen, entry.key, Value::None()));
    kept.push_back(entry.item);
  }
  return rt.List(std::move(kept), SequenceKind::kGenerator);
}

Result<Value> Extreme(Runtime& rt, const Value& input, const Args& args, int wanted_order) {
  PENSIEVE_TRY(const auto bound, BoundArgs::Bind("min", {"case_sensitive", "attribute"}, args));
  PENSIEVE_TRY(const auto keyed, WithKeys(rt, input, bound[1], bound.IsTrue(0)));
  if (keyed.empty()) return UndefinedWith("No aggregated item, sequence was empty.");
  size_t best = 0;
  for (size_t i = 1; i < keyed.size(); ++i) {
    PENSIEVE_TRY(const int order, rt.Order(keyed[i].key, keyed[best].key));
    if (order * wanted_order > 0) best = i;
  }
  return keyed[best].item;
}

Result<Value> Min(Runtime& rt, const Value& input, const Args& args) { return Extreme(rt, input, args, -1); }
Result<Value> Max(Runtime& rt, const Value& input, const Args& args) { return Extreme(rt, input, args, 1); }

Result<Value> Sum(Runtime& rt, const Value& input, const Args& args) {
  PENSIEVE_TRY(const auto bound, BoundArgs::Bind("sum", {"attribute", "start"}, args));
  PENSIEVE_TRY(const auto items, rt.Items(input));
  Value total = bound[1] == nullptr ? Value::Integer(0) : *bound[1];
  for (const Value& item : items) {
    PENSIEVE_TRY(const Value term, Path(rt, item, bound[0]));
    PENSIEVE_TRY(total, BinaryOperation(rt, Op::kAdd, total, term));
  }
  return total;
}

Result<Value> Attr(Runtime& rt, const Value& input, const Args& args) {
  PENSIEVE_TRY(const auto bound, BoundArgs::Bind("attr", {"name"}, args, 1));
  PENSIEVE_TRY(const std::string name, bound.Text(0, ""));
  // Attributes only: unlike x.y, keys of a dict are not looked at.
  if (input.dict() != nullptr && FindDictMethod(name) == nullptr) return MissingAttribute(input, *bound[0]);
  return rt.Attribute(input, name);
}

Result<Value> FormatFilter(Runtime& rt, const Value& input, const Args& args) {
  PENSIEVE_TRY(const Value text, SoftStr(rt, input));
  PENSIEVE_TRY(const Value values, rt.List(args.positional, SequenceKind::kTuple));
  return BinaryOperation(rt, Op::kModulo, text, values);
}

}  // namespace

NativeFunction FindFilter(std::string_view name) {
  static const Table kFilters = {{"tojson", ToJson},
                                 {"from_json", FromJsonFilter},
                                 {"fromjson", FromJsonFilter},
                                 {"trim", AsMethod<kStrip>},
                                 {"upper", AsMethod<kUpper>},
                                 {"lower", AsMethod<kLower>},
                                 {"capitalize", AsMethod<kCapitalize>},
                                 {"replace", AsMethod<kReplace>},
                                 {"title", Title},
                                 {"indent", Indent},
                                 {"string", StringFilter},
                                 {"safe", Safe},
                                 {"escape", Escape},
                                 {"e", Escape},
                                 {"length", LengthFilter},
                                 {"count", LengthFilter},
                                 {"list", ListFilter},
                                 {"items", ItemsFilter},
                                 {"default", Default},
                                 {"d", Default},
                                 {"int", IntFilter},
                                 {"float", FloatFilter},
                                 {"abs", Abs},
                                 {"round", Round},
                                 {"first", First},
                                 {"last", Last},
                                 {"reverse", Reverse},
                                 {"join", Join},
                                 {"map", Map},
                                 {"select", Select},
                                 {"reject", Reject},
                                 {"selectattr", SelectAttr},
                                 {"rejectattr", RejectAttr},
                                 {"sort", Sort},
                                 {"dictsort", DictSort},
                                 {"unique", Unique},
                                 {"min", Min},
                                 {"max", Max},
                                 {"sum", Sum},
                                 {"attr", Attr},
                                 {"format", FormatFilter}};
  const auto found = kFilters.find(name);
  return found == kFilters.end() ? nullptr : found->second;
}

bool IgnoresItems(std::string_view filter) {
  constexpr std::array<std::string_view, 7> kNames = {"length", "count", "first", "last", "default", "d", "attr"};
  return std::ranges::find(kNames, filter) != kNames.end();
}

}  // namespace pensieve::chat::jinja
