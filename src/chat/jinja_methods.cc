// Methods of strings, lists and dicts, as Python has them. Lists and dicts can be changed by append, pop and the
// like, although the sandbox of HF transformers refuses that: templates in the wild use it.
#include <fmt/format.h>

#include <algorithm>
#include <map>

#include "base/utf8.h"
#include "chat/jinja_print.h"
#include "chat/jinja_runtime.h"
#include "chat/python_text.h"

namespace pensieve::chat::jinja {
namespace {

constexpr size_t kNone = std::string_view::npos;
using Args = CallArgs;
using Table = std::map<std::string_view, NativeFunction>;

// --- strings -------------------------------------------------------------------------------------------------------

std::string_view StripSet(std::string_view text, std::string_view set, bool left, bool right) {
  const auto inside = [&](size_t at, size_t length) { return set.find(text.substr(at, length)) != kNone; };
  while (left && !text.empty() && inside(0, CodePointBytes(text, 0))) text.remove_prefix(CodePointBytes(text, 0));
  while (right && !text.empty()) {
    size_t start = text.size() - 1;
    while (start > 0 && IsContinuationByte(text[start])) --start;
    if (!inside(start, text.size() - start)) break;
    text = text.substr(0, start);
  }
  return text;
}

// `part`, which is a view into the text of `self`, with its origins.
TracedText Part(const Value& self, std::string_view part) {
  if (part.empty()) return {};
  const auto begin = static_cast<size_t>(part.data() - self.text().data());
  return self.traced().Slice(begin, begin + part.size());
}

Result<Value> StripWith(Runtime& rt, const Value& self, const Args& args, bool left, bool right) {
  PENSIEVE_TRY(const auto bound, BoundArgs::Bind("strip", {"chars"}, args));
  std::string_view text = self.text();
  if (bound[0] != nullptr && !bound[0]->IsNone()) {
    PENSIEVE_TRY(const std::string set, bound.Text(0, ""));
    return rt.String(Part(self, StripSet(text, set, left, right)), self.IsMarkup());
  }
  if (left) text = StripSpaceLeft(text);
  if (right) text = StripSpaceRight(text);
  return rt.String(Part(self, text), self.IsMarkup());
}

Result<Value> Strip(Runtime& rt, const Value& self, const Args& args) { return StripWith(rt, self, args, true, true); }
Result<Value> LStrip(Runtime& rt, const Value& self, const Args& args) {
  return StripWith(rt, self, args, true, false);
}
Result<Value> RStrip(Runtime& rt, const Value& self, const Args& args) {
  return StripWith(rt, self, args, false, true);
}

// The parts are views into the text of `self`.
Result<Value> StringList(Runtime& rt, const Value& self, const std::vector<std::string_view>& parts) {
  std::vector<Value> items;
  items.reserve(parts.size());
  for (const std::string_view part : parts) {
    PENSIEVE_TRY(Value item, rt.String(Part(self, part)));
    items.push_back(std::move(item));
  }
  return rt.List(std::move(items));
}

// Runs of whitespace separate; `limit` < 0 means no limit.
std::vector<std::string_view> SplitSpace(std::string_view text, int64_t limit) {
  std::vector<std::string_view> parts;
  text = StripSpaceLeft(text);
  while (!text.empty()) {
    if (limit >= 0 && static_cast<int64_t>(parts.size()) == limit) {
      parts.push_back(text);  // Python keeps blanks at the far end of the rest
      break;
    }
    size_t end = 0;
    while (end < text.size() && !IsSpace(DecodeAt(text, end))) end += CodePointBytes(text, end);
    parts.push_back(text.substr(0, end));
    text = StripSpaceLeft(text.substr(end));
  }
  return parts;
}

std::vector<std::string_view> SplitSpaceFromRight(std::string_view text, int64_t limit) {
  std::vector<std::string_view> words = SplitSpace(text, -1);
  if (limit < 0 || static_cast<int64_t>(words.size()) <= limit) return words;
  const size_t kept = words.size() - static_cast<size_t>(limit);
  const char* end = words[kept - 1].data() + words[kept - 1].size();
  const std::string_view head = text.substr(0, static_cast<size_t>(end - text.data()));
  words.erase(words.begin(), words.begin() + static_cast<std::ptrdiff_t>(kept));
  words.insert(words.begin(), head);
  return words;
}

std::vector<std::string_view> SplitBy(std::string_view text, std::string_view separator, int64_t limit) {
  std::vector<std::string_view> parts;
  while (limit < 0 || static_cast<int64_t>(parts.size()) < limit) {
    const size_t at = Find(text, separator);
    if (at == kNone) break;
    parts.push_back(text.substr(0, at));
    text.remove_prefix(at + separator.size());
  }
  parts.push_back(text);
  return parts;
}

std::vector<std::string_view> SplitByFromRight(std::string_view text, std::string_view separator, int64_t limit) {
  if (limit < 0) limit = static_cast<int64_t>(text.size()) + 1;
  std::vector<std::string_view> parts;
  while (static_cast<int64_t>(parts.size()) < limit) {
    const size_t at = text.rfind(separator);
    if (at == kNone) break;
    parts.push_back(text.substr(at + separator.size()));
    text = text.substr(0, at);
  }
  parts.push_back(text);
  std::reverse(parts.begin(), parts.end());
  return parts;
}

Result<Value> SplitWith(Runtime& rt, const Value& self, const Args& args, bool from_right) {
  PENSIEVE_TRY(const auto bound, BoundArgs::Bind("split", {"sep", "maxsplit"}, args));
  PENSIEVE_TRY(const int64_t limit, bound.Int64(1, -1));
  const std::string_view text = self.text();
  if (bound[0] == nullptr || bound[0]->IsNone()) {
    return StringList(rt, self, from_right ? SplitSpaceFromRight(text, limit) : SplitSpace(text, limit));
  }
  PENSIEVE_TRY(const std::string separator, bound.Text(0, ""));
  if (separator.empty()) return InvalidArgument("empty separator");
  // Looking backwards costs separator times text in the worst case.
  if (from_right) PENSIEVE_RETURN_IF_ERROR(rt.Step(text.size() / 64 * separator.size() / 64));
  return StringList(rt, self, from_right ? SplitByFromRight(text, separator, limit) : SplitBy(text, separator, limit));
}

Result<Value> Split(Runtime& rt, const Value& self, const Args& args) { return SplitWith(rt, self, args, false); }
Result<Value> RSplit(Runtime& rt, const Value& self, const Args& args) { return SplitWith(rt, self, args, true); }

Result<Value> SplitLines(Runtime& rt, const Value& self, const Args& args) {
  PENSIEVE_TRY(const auto bound, BoundArgs::Bind("splitlines", {"keepends"}, args));
  const std::string_view text = self.text();
  std::vector<std::string_view> lines;
  size_t begin = 0;
  for (size_t i = 0; i < text.size();) {
    const char32_t c = DecodeAt(text, i);
    size_t end = i + CodePointBytes(text, i);
    const bool breaks = (c >= 10 && c <= 13) || (c >= 0x1c && c <= 0x1e) || c == 0x85 || c == 0x2028 || c == 0x2029;
    if (breaks) {
      if (c == '\r' && end < text.size() && text[end] == '\n') ++end;
      lines.push_back(text.substr(begin, (bound.IsTrue(0) ? end : i) - begin));
      begin = end;
    }
    i = end;
  }
  if (begin < text.size()) lines.push_back(text.substr(begin));
  return StringList(rt, self, lines);
}

// startswith and endswith take one text or a tuple of them.
Result<Value> Affix(const Value& self, const Args& args, bool at_start) {
  PENSIEVE_TRY(const auto bound, BoundArgs::Bind(at_start ? "startswith" : "endswith", {"affix"}, args, 1));
  const std::string& text = self.text();
  const auto matches = [&](const Value& affix) -> Result<bool> {
    if (affix.IsUndefined()) return UndefinedError(affix);
    if (!affix.IsString()) return InvalidArgument("startswith and endswith need a str or a tuple of str");
    return at_start ? text.starts_with(affix.text()) : text.ends_with(affix.text());
  };
  const ListObject* tuple = bound[0]->list();
  if (tuple == nullptr) {
    PENSIEVE_TRY(const bool found, matches(*bound[0]));
    return Value::Bool(found);
  }
  for (const Value& affix : tuple->items) {
    PENSIEVE_TRY(const bool found, matches(affix));
    if (found) return Value::Bool(true);
  }
  return Value::Bool(false);
}

Result<Value> StartsWith(Runtime&, const Value& self, const Args& args) { return Affix(self, args, true); }
Result<Value> EndsWith(Runtime&, const Value& self, const Args& args) { return Affix(self, args, false); }

Result<Value> RemovePrefix(Runtime& rt, const Value& self, const Args& args) {
  PENSIEVE_TRY(const auto bound, BoundArgs::Bind("removeprefix", {"prefix"}, args, 1));
  PENSIEVE_TRY(const std::string prefix, bound.Text(0, ""));
  if (!self.text().starts_with(prefix)) return rt.String(self.traced());
  return rt.String(self.traced().Slice(prefix.size(), self.text().size()));
}

Result<Value> RemoveSuffix(Runtime& rt, const Value& self, const Args& args) {
  PENSIEVE_TRY(const auto bound, BoundArgs::Bind("removesuffix", {"suffix"}, args, 1));
  PENSIEVE_TRY(const std::string suffix, bound.Text(0, ""));
  const std::string& text = self.text();
  return rt.String(self.traced().Slice(0, text.size() - (text.ends_with(suffix) ? suffix.size() : 0)));
}

Result<Value> Replace(Runtime& rt, const Value& self, const Args& args) {
  PENSIEVE_TRY(const auto bound, BoundArgs::Bind("replace", {"old", "new", "count"}, args, 2));
  PENSIEVE_TRY(const std::string old_text, bound.Text(0, ""));
  PENSIEVE_TRY(const TracedText new_text, bound.Traced(1, ""));
  PENSIEVE_TRY(int64_t count, bound.Int64(2, -1));
  const std::string& text = self.text();
  TracedText out;
  size_t at = 0;
  while (count != 0) {
    const size_t hit = Find(text, old_text, at);
    if (hit == kNone) break;
    out.Append(self.traced(), at, hit);
    out.Append(new_text);
    at = hit + old_text.size();
    if (old_text.empty()) {  // between all code points
      if (at == text.size()) return rt.String(std::move(out), self.IsMarkup());
      const size_t length = CodePointBytes(text, at);
      out.Append(self.traced(), at, at + length);
      at += length;
    }
    if (out.size() > rt.limits().output_bytes_max) return InvalidArgument("replace makes a string that is too long");
    if (count > 0) --count;
  }
  out.Append(self.traced(), at, text.size());
  return rt.String(std::move(out), self.IsMarkup());
}

Result<Value> Position(const Value& self, const Args& args, bool last) {
  PENSIEVE_TRY(const auto bound, BoundArgs::Bind("find", {"sub", "start"}, args, 1));
  PENSIEVE_TRY(const std::string needle, bound.Text(0, ""));
  PENSIEVE_TRY(int64_t start, bound.Int64(1, 0));
  const std::string& text = self.text();
  if (start < 0) start = std::max<int64_t>(0, start + static_cast<int64_t>(CodePointCount(text)));
  const size_t from = ByteOffset(text, static_cast<size_t>(start));
  const size_t hit = last ? FindLast(text, needle) : Find(text, needle, from);
  if (hit == kNone || hit < from) return Value::Integer(-1);
  return Value::Integer(static_cast<Int>(CodePointCount(std::string_view(text).substr(0, hit))));
}

Result<Value> StringFind(Runtime&, const Value& self, const Args& args) { return Position(self, args, false); }
Result<Value> StringRFind(Runtime&, const Value& self, const Args& args) { return Position(self, args, true); }

Result<Value> StringIndex(Runtime&, const Value& self, const Args& args) {
  PENSIEVE_TRY(const Value found, Position(self, args, false));
  if (found.integer() < 0) return InvalidArgument("substring not found");
  return found;
}

Result<Value> StringCount(Runtime&, const Value& self, const Args& args) {
  PENSIEVE_TRY(const auto bound, BoundArgs::Bind("count", {"sub"}, args, 1));
  PENSIEVE_TRY(const std::string needle, bound.Text(0, ""));
  if (needle.empty()) return Value::Integer(static_cast<Int>(CodePointCount(self.text())) + 1);
  return Value::Integer(static_cast<Int>(SplitBy(self.text(), needle, -1).size()) - 1);
}

Result<Value> Upper(Runtime& rt, const Value& self, const Args&) {
  return rt.String(self.traced().Map(ToUpper), self.IsMarkup());
}
Result<Value> Lower(Runtime& rt, const Value& self, const Args&) {
  return rt.String(self.traced().Map(ToLower), self.IsMarkup());
}

Result<Value> Capitalize(Runtime& rt, const Value& self, const Args&) {
  const std::string& text = self.text();
  if (text.empty()) return self;
  const size_t first = CodePointBytes(text, 0);
  TracedText out = self.traced().Slice(0, first).Map(ToUpper);
  out.Append(self.traced().Slice(first, text.size()).Map(ToLower));
  return rt.String(std::move(out), self.IsMarkup());
}

// Upper case after every non-letter.
Result<Value> Title(Runtime& rt, const Value& self, const Args&) {
  const std::string& text = self.text();
  TracedText out;
  bool in_word = false;
  for (size_t i = 0; i < text.size(); i += CodePointBytes(text, i)) {
    out.Append(self.traced().Slice(i, i + CodePointBytes(text, i)).Map(in_word ? ToLower : ToUpper));
    in_word = IsLetter(DecodeAt(text, i));
  }
  return rt.String(std::move(out), self.IsMarkup());
}

Result<Value> Join(Runtime& rt, const Value& self, const Args& args) {
  PENSIEVE_TRY(const auto bound, BoundArgs::Bind("join", {"iterable"}, args, 1));
  PENSIEVE_TRY(const auto items, rt.Items(*bound[0]));
  TracedText out;
  for (size_t i = 0; i < items.size(); ++i) {
    if (!items[i].IsString()) {
      return InvalidArgument(fmt::format("sequence item {}: expected str instance, {} found", i, items[i].TypeName()));
    }
    if (i != 0) out.Append(self.traced());
    out.Append(items[i].traced());
    if (out.size() > rt.limits().output_bytes_max) return InvalidArgument("join makes a string that is too long");
  }
  return rt.String(std::move(out));
}

Result<Value> PartitionAt(Runtime& rt, const Value& self, const Args& args, bool last) {
  PENSIEVE_TRY(const auto bound, BoundArgs::Bind("partition", {"sep"}, args, 1));
  PENSIEVE_TRY(const std::string separator, bound.Text(0, ""));
  if (separator.empty()) return InvalidArgument("empty separator");
  const std::string_view text = self.text();
  const size_t at = last ? FindLast(text, separator) : Find(text, separator);
  std::vector<std::string_view> parts;
  if (at != kNone) {
    parts = {text.substr(0, at), text.substr(at, separator.size()), text.substr(at + separator.size())};
  } else if (last) {
    parts = {"", "", text};
  } else {
    parts = {text, "", ""};
  }
  PENSIEVE_TRY(const Value list, StringList(rt, self, parts));
  list.list()->kind = SequenceKind::kTuple;
  return list;
}

Result<Value> Partition(Runtime& rt, const Value& self, const Args& args) { return PartitionAt(rt, self, args, false); }
Result<Value> RPartition(Runtime& rt, const Value& self, const Args& args) { return PartitionAt(rt, self, args, true); }

template <bool (*Predicate)(char32_t)>
Result<Value> AllOf(Runtime&, const Value& self, const Args&) {
  const std::string& text = self.text();
  for (size_t i = 0; i < text.size(); i += CodePointBytes(text, i)) {
    if (!Predicate(DecodeAt(text, i))) return Value::Bool(false);
  }
  return Value::Bool(!text.empty());
}

bool IsAlphanumeric(char32_t c) { return IsLetter(c) || IsDigit(c); }

Result<Value> IsLowerText(Runtime& rt, const Value& self, const Args&) {
  PENSIEVE_TRY(const bool holds, rt.ApplyTest("lower", self, {}));
  return Value::Bool(holds);
}
Result<Value> IsUpperText(Runtime& rt, const Value& self, const Args&) {
  PENSIEVE_TRY(const bool holds, rt.ApplyTest("upper", self, {}));
  return Value::Bool(holds);
}

enum class Side { kLeft, kRight, kBoth };

Result<Value> Pad(Runtime& rt, const Value& self, const Args& args, Side side) {
  PENSIEVE_TRY(const auto bound, BoundArgs::Bind("just", {"width", "fillchar"}, args, 1));
  PENSIEVE_TRY(const int64_t width, bound.Int64(0, 0));
  PENSIEVE_TRY(const TracedText fill, bound.Traced(1, " "));
  if (CodePointCount(fill.bytes()) != 1)
    return InvalidArgument("the fill character must be exactly one character long");
  const auto count = static_cast<int64_t>(CodePointCount(self.text()));
  if (width > static_cast<int64_t>(rt.limits().range_items_max)) return InvalidArgument("a padded width is too large");
  const int64_t missing = std::max<int64_t>(0, width - count);
  // Python puts the odd character of a centred text to the left exactly when both counts are odd.
  const int64_t left = side == Side::kRight ? 0 : side == Side::kLeft ? missing : missing / 2 + (missing & width & 1);
  TracedText out;
  for (int64_t i = 0; i < left; ++i) out.Append(fill);
  out.Append(self.traced());
  for (int64_t i = left; i < missing; ++i) out.Append(fill);
  return rt.String(std::move(out));
}

Result<Value> LJust(Runtime& rt, const Value& self, const Args& args) { return Pad(rt, self, args, Side::kRight); }
Result<Value> RJust(Runtime& rt, const Value& self, const Args& args) { return Pad(rt, self, args, Side::kLeft); }
Result<Value> Center(Runtime& rt, const Value& self, const Args& args) { return Pad(rt, self, args, Side::kBoth); }

Result<Value> ZFill(Runtime& rt, const Value& self, const Args& args) {
  PENSIEVE_TRY(const auto bound, BoundArgs::Bind("zfill", {"width"}, args, 1));
  PENSIEVE_TRY(const int64_t width, bound.Int64(0, 0));
  if (width > static_cast<int64_t>(rt.limits().range_items_max)) return InvalidArgument("a padded width is too large");
  const std::string& text = self.text();
  const auto count = static_cast<int64_t>(CodePointCount(text));
  const size_t sign = !text.empty() && (text[0] == '-' || text[0] == '+') ? 1 : 0;
  TracedText out = self.traced().Slice(0, sign);
  out.Append(std::string(static_cast<size_t>(std::max<int64_t>(0, width - count)), '0'), kFromTemplate);
  out.Append(self.traced(), sign, text.size());
  return rt.String(std::move(out));
}

// "{} and {name}".format(...): fields without conversions or format specifications.
Result<Value> Format(Runtime& rt, const Value& self, const Args& args) {
  const std::string& text = self.text();
  TracedText out;
  size_t next = 0;
  for (size_t i = 0; i < text.size(); ++i) {
    const size_t brace = std::min(text.find_first_of("{}", i), text.size());
    out.Append(self.traced(), i, brace);
    i = brace;
    if (i == text.size()) break;
    const char c = text[i];
    if (i + 1 < text.size() && text[i + 1] == c) {
      out.Append(self.traced(), i, i + 1);
      ++i;
      continue;
    }
    if (c == '}') return InvalidArgument("single '}' encountered in format string");
    const size_t end = text.find('}', i);
    if (end == kNone) return InvalidArgument("single '{' encountered in format string");
    const std::string field = text.substr(i + 1, end - i - 1);
    const Value* value = nullptr;
    if (field.find_first_not_of("0123456789") == kNone && field.size() < 6) {
      const size_t index = field.empty() ? next++ : std::stoul(field);
      if (index < args.positional.size()) value = &args.positional[index];
    }
    for (const auto& [name, given] : args.keywords) {
      if (name == field) value = &given;
    }
    if (value == nullptr)
      return InvalidArgument(fmt::format("format: no value for the field '{}'", field.substr(0, 80)));
    PENSIEVE_RETURN_IF_ERROR(AppendStr(*value, rt.limits().output_bytes_max, out));
    i = end;
  }
  return rt.String(std::move(out));
}

// --- lists ---------------------------------------------------------------------------------------------------------

Status NeedList(const Value& self) {
  if (self.list()->kind == SequenceKind::kList) return OkStatus();
  return InvalidArgument("a tuple cannot be changed");
}

Result<Value> Append(Runtime& rt, const Value& self, const Args& args) {
  PENSIEVE_RETURN_IF_ERROR(NeedList(self));
  PENSIEVE_TRY(const auto bound, BoundArgs::Bind("append", {"object"}, args, 1));
  PENSIEVE_RETURN_IF_ERROR(rt.Charge(2 * sizeof(Value)));
  self.list()->items.push_back(*bound[0]);
  return Value::None();
}

Result<Value> Extend(Runtime& rt, const Value& self, const Args& args) {
  PENSIEVE_RETURN_IF_ERROR(NeedList(self));
  PENSIEVE_TRY(const auto bound, BoundArgs::Bind("extend", {"iterable"}, args, 1));
  PENSIEVE_TRY(const auto items, rt.Items(*bound[0]));
  PENSIEVE_RETURN_IF_ERROR(rt.Charge(2 * items.size() * sizeof(Value)));
  auto& target = self.list()->items;
  target.insert(target.end(), items.begin(), items.end());
  return Value::None();
}

// The position of an index argument among `count` + `extra` places, clamped if asked, else an error.
Result<size_t> ListPosition(int64_t index, size_t count) {
  const int64_t position = index < 0 ? index + static_cast<int64_t>(count) : index;
  if (position < 0 || position >= static_cast<int64_t>(count)) return InvalidArgument("pop index out of range");
  return static_cast<size_t>(position);
}

Result<Value> ListPop(Runtime& rt, const Value& self, const Args& args) {
  PENSIEVE_RETURN_IF_ERROR(rt.Step(WorkSize(self) / 64));
  PENSIEVE_RETURN_IF_ERROR(NeedList(self));
  PENSIEVE_TRY(const auto bound, BoundArgs::Bind("pop", {"index"}, args));
  PENSIEVE_TRY(const int64_t index, bound.Int64(0, -1));
  auto& items = self.list()->items;
  PENSIEVE_TRY(const size_t at, ListPosition(index, items.size()));
  Value taken = items[at];
  items.erase(items.begin() + static_cast<std::ptrdiff_t>(at));
  return taken;
}

Result<Value> Insert(Runtime& rt, const Value& self, const Args& args) {
  PENSIEVE_RETURN_IF_ERROR(rt.Step(WorkSize(self) / 64));
  PENSIEVE_RETURN_IF_ERROR(NeedList(self));
  PENSIEVE_TRY(const auto bound, BoundArgs::Bind("insert", {"index", "object"}, args, 2));
  PENSIEVE_TRY(int64_t index, bound.Int64(0, 0));
  PENSIEVE_RETURN_IF_ERROR(rt.Charge(2 * sizeof(Value)));
  auto& items = self.list()->items;
  const auto count = static_cast<int64_t>(items.size());
  index = std::clamp<int64_t>(index < 0 ? index + count : index, 0, count);
  items.insert(items.begin() + index, *bound[1]);
  return Value::None();
}

Result<Value> ListIndex(Runtime& rt, const Value& self, const Args& args) {
  PENSIEVE_TRY(const auto bound, BoundArgs::Bind("index", {"value"}, args, 1));
  const auto& items = self.list()->items;
  for (size_t i = 0; i < items.size(); ++i) {
    PENSIEVE_TRY(const bool same, rt.Equal(items[i], *bound[0]));
    if (same) return Value::Integer(static_cast<Int>(i));
  }
  return InvalidArgument("the value is not in the list");
}

Result<Value> ListCount(Runtime& rt, const Value& self, const Args& args) {
  PENSIEVE_TRY(const auto bound, BoundArgs::Bind("count", {"value"}, args, 1));
  Int count = 0;
  for (const Value& item : self.list()->items) {
    PENSIEVE_TRY(const bool same, rt.Equal(item, *bound[0]));
    count += same ? 1 : 0;
  }
  return Value::Integer(count);
}

Result<Value> ListCopy(Runtime& rt, const Value& self, const Args&) {
  PENSIEVE_RETURN_IF_ERROR(rt.Step(WorkSize(self)));
  return rt.List(self.list()->items, self.list()->kind);
}

// --- dicts ---------------------------------------------------------------------------------------------------------

Result<Value> DictItems(Runtime& rt, const Value& self, const Args&) {
  PENSIEVE_RETURN_IF_ERROR(rt.Step(WorkSize(self)));
  std::vector<Value> items;
  for (const auto& [key, value] : self.dict()->entries()) {
    PENSIEVE_TRY(Value pair, rt.List({key, value}, SequenceKind::kTuple));
    items.push_back(std::move(pair));
  }
  return rt.List(std::move(items), SequenceKind::kDictItems);
}

Result<Value> DictKeys(Runtime& rt, const Value& self, const Args&) {
  PENSIEVE_RETURN_IF_ERROR(rt.Step(WorkSize(self)));
  std::vector<Value> items;
  for (const auto& entry : self.dict()->entries()) items.push_back(entry.first);
  return rt.List(std::move(items), SequenceKind::kDictKeys);
}

Result<Value> DictValues(Runtime& rt, const Value& self, const Args&) {
  PENSIEVE_RETURN_IF_ERROR(rt.Step(WorkSize(self)));
  std::vector<Value> items;
  for (const auto& entry : self.dict()->entries()) items.push_back(entry.second);
  return rt.List(std::move(items), SequenceKind::kDictValues);
}

Result<Value> DictGet(Runtime&, const Value& self, const Args& args) {
  PENSIEVE_TRY(const auto bound, BoundArgs::Bind("get", {"key", "default"}, args, 1));
  if (const Value* found = self.dict()->Find(*bound[0])) return *found;
  return bound[1] == nullptr ? Value::None() : *bound[1];
}

Result<Value> DictPop(Runtime& rt, const Value& self, const Args& args) {
  PENSIEVE_RETURN_IF_ERROR(rt.Step(WorkSize(self)));
  PENSIEVE_TRY(const auto bound, BoundArgs::Bind("pop", {"key", "default"}, args, 1));
  if (const auto taken = self.dict()->Remove(*bound[0])) return *taken;
  if (bound[1] == nullptr) return InvalidArgument("pop: no such key");
  return *bound[1];
}

Result<Value> DictSetDefault(Runtime& rt, const Value& self, const Args& args) {
  PENSIEVE_TRY(const auto bound, BoundArgs::Bind("setdefault", {"key", "default"}, args, 1));
  if (const Value* found = self.dict()->Find(*bound[0])) return *found;
  Value value = bound[1] == nullptr ? Value::None() : *bound[1];
  PENSIEVE_RETURN_IF_ERROR(rt.SetEntry(*self.dict(), *bound[0], value));
  return value;
}

Result<Value> DictUpdate(Runtime& rt, const Value& self, const Args& args) {
  for (const Value& other : args.positional) {
    if (other.dict() == nullptr) return InvalidArgument("update takes mappings or keyword arguments");
    const auto entries = other.dict()->entries();  // a copy: it may be the same dict
    for (const auto& [key, value] : entries) PENSIEVE_RETURN_IF_ERROR(rt.SetEntry(*self.dict(), key, value));
  }
  for (const auto& [name, value] : args.keywords) {
    PENSIEVE_RETURN_IF_ERROR(rt.SetEntry(*self.dict(), Value::Text(name), value));
  }
  return Value::None();
}

Result<Value> DictCopy(Runtime& rt, const Value& self, const Args&) {
  PENSIEVE_RETURN_IF_ERROR(rt.Step(WorkSize(self)));
  PENSIEVE_TRY(DictObject * copy, rt.NewDict());
  for (const auto& [key, value] : self.dict()->entries()) PENSIEVE_RETURN_IF_ERROR(rt.SetEntry(*copy, key, value));
  return Value(Value::Storage(copy));
}

NativeFunction Lookup(const Table& table, std::string_view name) {
  const auto found = table.find(name);
  return found == table.end() ? nullptr : found->second;
}

}  // namespace

NativeFunction FindStringMethod(std::string_view name) {
  static const Table kMethods = {{"strip", Strip},
                                 {"lstrip", LStrip},
                                 {"rstrip", RStrip},
                                 {"split", Split},
                                 {"rsplit", RSplit},
                                 {"splitlines", SplitLines},
                                 {"startswith", StartsWith},
                                 {"endswith", EndsWith},
                                 {"removeprefix", RemovePrefix},
                                 {"removesuffix", RemoveSuffix},
                                 {"replace", Replace},
                                 {"find", StringFind},
                                 {"rfind", StringRFind},
                                 {"index", StringIndex},
                                 {"count", StringCount},
                                 {"upper", Upper},
                                 {"lower", Lower},
                                 {"casefold", Lower},
                                 {"capitalize", Capitalize},
                                 {"title", Title},
                                 {"join", Join},
                                 {"partition", Partition},
                                 {"rpartition", RPartition},
                                 {"isspace", AllOf<IsSpace>},
                                 {"isalpha", AllOf<IsLetter>},
                                 {"isdigit", AllOf<IsDigit>},
                                 {"isnumeric", AllOf<IsDigit>},
                                 {"isdecimal", AllOf<IsDigit>},
                                 {"isalnum", AllOf<IsAlphanumeric>},
                                 {"islower", IsLowerText},
                                 {"isupper", IsUpperText},
                                 {"ljust", LJust},
                                 {"rjust", RJust},
                                 {"center", Center},
                                 {"zfill", ZFill},
                                 {"format", Format}};
  return Lookup(kMethods, name);
}

NativeFunction FindListMethod(std::string_view name) {
  static const Table kMethods = {{"append", Append},   {"extend", Extend},   {"pop", ListPop},  {"insert", Insert},
                                 {"index", ListIndex}, {"count", ListCount}, {"copy", ListCopy}};
  return Lookup(kMethods, name);
}

NativeFunction FindDictMethod(std::string_view name) {
  static const Table kMethods = {{"items", DictItems},   {"keys", DictKeys}, {"values", DictValues},
                                 {"get", DictGet},       {"pop", DictPop},   {"setdefault", DictSetDefault},
                                 {"update", DictUpdate}, {"copy", DictCopy}};
  return Lookup(kMethods, name);
}

}  // namespace pensieve::chat::jinja
