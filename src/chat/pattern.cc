#include "chat/pattern.h"

#include <fmt/format.h>
#include <utf8proc.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <optional>

#include "base/utf8.h"

namespace pensieve::chat {
namespace {

using sampling::Budget;
using sampling::Dfa;
using sampling::Nfa;
using Part = Nfa::Part;
using Kind = PatternNode::Kind;

constexpr size_t kPatternBytesMax = size_t{16} << 10;
constexpr int kDepthMax = 64;
constexpr int64_t kTimesMax = int64_t{1} << 30;  // far more than a budget allows
// Stand for the ends of the text while a pattern is put together: bytes that UTF-8 does not use.
constexpr uint8_t kBeginMark = 0xFE;
constexpr uint8_t kEndMark = 0xFF;

CodePointSet Digits() {
  CodePointSet set;
  set.Add('0', '9');
  return set;
}

CodePointSet WordCharacters() {
  CodePointSet set = Digits();
  set.Add('A', 'Z');
  set.Add('_', '_');
  set.Add('a', 'z');
  return set;
}

CodePointSet AsciiBlanks() {
  CodePointSet set;
  set.Add('\t', '\r');
  set.Add(' ', ' ');
  return set;
}

CodePointSet AllBlanks() {
  CodePointSet set = AsciiBlanks();
  set.Add(0x1C, 0x1F);
  for (const char32_t c : {0x85, 0xA0, 0x1680, 0x2028, 0x2029, 0x202F, 0x205F, 0x3000, 0xFEFF}) set.Add(c, c);
  set.Add(0x2000, 0x200A);
  set.Normalize();
  return set;
}

CodePointSet NoLineEnds() {
  CodePointSet ends;
  ends.Add('\n', '\n');
  ends.Add('\r', '\r');
  ends.Add(0x2028, 0x2029);
  ends.Normalize();
  return ends.Complement();
}

// The general categories "L", "Lu", "N" and so on, also with their long names.
std::optional<CodePointSet> OfCategory(std::string name) {
  for (const char* prefix : {"gc=", "General_Category="}) {
    if (name.starts_with(prefix)) name.erase(0, std::string_view(prefix).size());
  }
  static constexpr std::pair<const char*, const char*> kLongNames[] = {{"Letter", "L"},
                                                                       {"Uppercase_Letter", "Lu"},
                                                                       {"Lowercase_Letter", "Ll"},
                                                                       {"Number", "N"},
                                                                       {"Decimal_Number", "Nd"},
                                                                       {"Punctuation", "P"},
                                                                       {"Symbol", "S"},
                                                                       {"Separator", "Z"},
                                                                       {"Space_Separator", "Zs"},
                                                                       {"Mark", "M"},
                                                                       {"Other", "C"}};
  for (const auto& [long_name, short_name] : kLongNames) {
    if (name == long_name) name = short_name;
  }
  if (name.empty() || name.size() > 2) return std::nullopt;
  CodePointSet set;
  for (char32_t c = 0; c <= 0x10FFFF; ++c) {
    const std::string_view category = utf8proc_category_string(static_cast<utf8proc_int32_t>(c));
    if (category.starts_with(name)) set.Add(c, c);
  }
  set.Normalize();
  return set.ranges().empty() ? std::nullopt : std::optional(set);
}

class Parser {
 public:
  explicit Parser(std::string_view text, size_t at = 0) : text_(text), at_(at) {}

  Result<PatternNode> Whole() {
    PENSIEVE_TRY(PatternNode node, Choice(0));
    if (at_ < text_.size()) return Wrong("a closing bracket without an opening one");
    return node;
  }

  Result<CodePointSet> Class() {
    ++at_;
    CodePointSet set;
    const bool inverted = Take('^');
    while (true) {
      if (at_ >= text_.size()) return Wrong("a class without its closing bracket");
      if (Take(']')) break;
      PENSIEVE_TRY(const CodePointSet first, ClassItem());
      const bool range = Rest().size() > 1 && Rest()[0] == '-' && Rest()[1] != ']';
      if (!range) {
        set.Add(first);
        continue;
      }
      ++at_;
      PENSIEVE_TRY(const CodePointSet last, ClassItem());
      const auto single = [](const CodePointSet& item) {
        return item.ranges().size() == 1 && item.ranges()[0].first == item.ranges()[0].last;
      };
      if (!single(first) || !single(last)) return Wrong("a range between classes");
      if (first.ranges()[0].first > last.ranges()[0].first) return Wrong("a range whose ends are in reverse order");
      set.Add(first.ranges()[0].first, last.ranges()[0].first);
    }
    set.Normalize();
    return inverted ? set.Complement() : set;
  }

  size_t at() const { return at_; }

 private:
  std::string_view Rest() const { return text_.substr(at_); }
  bool Take(char c) {
    if (at_ >= text_.size() || text_[at_] != c) return false;
    ++at_;
    return true;
  }
  bool Take(std::string_view word) {
    if (!Rest().starts_with(word)) return false;
    at_ += word.size();
    return true;
  }
  Status Wrong(std::string_view what) const { return InvalidArgument(fmt::format("{} (at byte {})", what, at_)); }

  Result<PatternNode> Choice(int depth) {
    if (depth > kDepthMax) return Wrong("nested too deep");
    PatternNode choice{.kind = Kind::kChoice, .set = {}, .children = {}};
    do {
      PENSIEVE_TRY(PatternNode sequence, Sequence(depth));
      choice.children.push_back(std::move(sequence));
    } while (Take('|'));
    if (choice.children.size() == 1) return std::move(choice.children[0]);
    return choice;
  }

  Result<PatternNode> Sequence(int depth) {
    PatternNode sequence;
    while (at_ < text_.size() && text_[at_] != '|' && text_[at_] != ')') {
      PENSIEVE_TRY(PatternNode atom, Atom(depth));
      const bool is_end = atom.kind == Kind::kTextBegin || atom.kind == Kind::kTextEnd;
      const auto times = TakeTimes();
      if (!times.has_value()) return times.error();
      if (*times) {
        if (is_end) return Wrong("a repeated ^ or $");
        PatternNode repeat{.kind = Kind::kRepeat, .set = {}, .children = {}};
        repeat.min = (*times)->first;
        repeat.max = (*times)->second;
        repeat.children.push_back(std::move(atom));
        atom = std::move(repeat);
      }
      // Twice the same end says no more than once.
      if (is_end && !sequence.children.empty() && sequence.children.back().kind == atom.kind) continue;
      sequence.children.push_back(std::move(atom));
    }
    if (sequence.children.size() == 1) return std::move(sequence.children[0]);
    return sequence;
  }

  std::optional<int64_t> TakeNumber() {
    const size_t begin = at_;
    int64_t number = 0;
    for (; at_ < text_.size() && text_[at_] >= '0' && text_[at_] <= '9'; ++at_)
      number = std::min(number * 10 + (text_[at_] - '0'), kTimesMax);
    return at_ > begin ? std::optional(number) : std::nullopt;
  }

  using Times = std::optional<std::pair<int64_t, int64_t>>;

  Result<Times> TakeTimes() {
    Times times;
    if (Take('*')) {
      times = {0, -1};
    } else if (Take('+')) {
      times = {1, -1};
    } else if (Take('?')) {
      times = {0, 1};
    } else if (Rest().starts_with('{')) {
      const size_t begin = at_++;
      const auto min = TakeNumber();
      const bool has_comma = Take(',');
      const auto max = has_comma ? TakeNumber() : min;
      if (!min || !Take('}')) {
        at_ = begin;  // an ordinary brace
        return Times();
      }
      if (max && *max < *min) return Wrong("a repetition whose numbers are in reverse order");
      times = {*min, max ? *max : -1};
    }
    if (times && Take('?')) return times;  // how much is taken first does not matter here
    if (times && Rest().starts_with('+')) return Wrong("a possessive repetition cannot be enforced");
    return times;
  }

  Result<PatternNode> Atom(int depth) {
    const char c = text_[at_];
    if (c == '(') return Group(depth);
    if (c == '[') {
      PENSIEVE_TRY(CodePointSet set, Class());
      return Set(std::move(set));
    }
    if (c == '\\') {
      PENSIEVE_TRY(CodePointSet set, Escape(/*in_class=*/false));
      return Set(std::move(set));
    }
    if (c == '*' || c == '+' || c == '?') return Wrong("nothing to repeat");
    if (Take('^')) return PatternNode{.kind = Kind::kTextBegin, .set = {}, .children = {}};
    if (Take('$')) return PatternNode{.kind = Kind::kTextEnd, .set = {}, .children = {}};
    if (Take('.')) return Set(NoLineEnds());
    CodePointSet set;
    const char32_t code_point = NextCodePoint(text_, at_);
    set.Add(code_point, code_point);
    return Set(std::move(set));
  }

  static PatternNode Set(CodePointSet set) {
    set.Normalize();
    return PatternNode{.kind = Kind::kSet, .set = std::move(set), .children = {}};
  }

  Result<PatternNode> Group(int depth) {
    ++at_;
    if (Take("?<=") || Take("?<!")) return Wrong("lookbehind cannot be enforced");
    if (Take("?=") || Take("?!")) return Wrong("lookahead cannot be enforced");
    if (Take("?<") || Take("?P<")) {
      const size_t end = Rest().find('>');
      if (end == std::string_view::npos) return Wrong("a group name without its end");
      at_ += end + 1;
    } else if (Rest().starts_with('?') && !Take("?:")) {
      return Wrong("this kind of group cannot be enforced");
    }
    PENSIEVE_TRY(PatternNode node, Choice(depth + 1));
    if (!Take(')')) return Wrong("a group without its closing bracket");
    // An end of the text inside of a repeated group is still one.
    return node;
  }

  Result<CodePointSet> ClassItem() {
    if (Rest().starts_with('\\')) return Escape(/*in_class=*/true);
    CodePointSet set;
    const char32_t c = NextCodePoint(text_, at_);
    set.Add(c, c);
    return set;
  }

  std::optional<char32_t> TakeHex(size_t digits) {
    uint32_t value = 0;
    const std::string_view hex = Rest().substr(0, digits);
    const auto [end, error] = std::from_chars(hex.data(), hex.data() + hex.size(), value, 16);
    if (hex.size() != digits || error != std::errc() || end != hex.data() + digits) return std::nullopt;
    at_ += digits;
    return value;
  }

  Result<CodePointSet> UnicodeEscape() {
    std::optional<char32_t> c;
    if (Take('{')) {
      const size_t end = Rest().find('}');
      if (end == 0 || end > 6) return Wrong("a wrong \\u escape");
      c = TakeHex(end);
      Take('}');
    } else {
      c = TakeHex(4);
    }
    if (c && *c >= 0xD800 && *c < 0xDC00 && Take("\\u")) {
      const auto low = TakeHex(4);
      if (!low || *low < 0xDC00 || *low > 0xDFFF) return Wrong("half of a surrogate pair");
      c = 0x10000 + ((*c - 0xD800) << 10) + (*low - 0xDC00);
    }
    if (!c || *c > 0x10FFFF) return Wrong("a wrong \\u escape");
    return Single(*c);
  }

  static CodePointSet Single(char32_t c) {
    CodePointSet set;
    set.Add(c, c);
    return set;
  }

  static CodePointSet Inverse(CodePointSet set) {
    set.Normalize();
    return set.Complement();
  }

  Result<CodePointSet> Escape(bool in_class) {
    ++at_;
    if (at_ >= text_.size()) return Wrong("a backslash at the end");
    const char32_t c = NextCodePoint(text_, at_);
    switch (c) {
      case 'd': return Digits();
      case 'D': return Inverse(Digits());
      case 'w': return WordCharacters();
      case 'W': return Inverse(WordCharacters());
      case 's': return AsciiBlanks();
      case 'S': return Inverse(AllBlanks());
      case 't': return Single('\t');
      case 'n': return Single('\n');
      case 'v': return Single('\v');
      case 'f': return Single('\f');
      case 'r': return Single('\r');
      case '0': return Single(0);
      case 'u': return UnicodeEscape();
      case 'b':
        if (in_class) return Single('\b');
        [[fallthrough]];
      case 'B': return Wrong("a word boundary cannot be enforced");
      case 'x': {
        const auto value = TakeHex(2);
        if (!value) return Wrong("a wrong \\x escape");
        return Single(*value);
      }
      case 'c': {
        if (at_ >= text_.size()) return Wrong("a wrong \\c escape");
        return Single(static_cast<char32_t>(text_[at_++]) & 31);
      }
      case 'p':
      case 'P': {
        const size_t end = Rest().find('}');
        if (!Take('{') || end == std::string_view::npos) return Wrong("a wrong \\p escape");
        const std::string name(text_.substr(at_, end - 1));
        const auto set = OfCategory(name);
        if (!set) return Wrong("this \\p escape cannot be enforced");
        at_ += end;
        return c == 'p' ? *set : set->Complement();
      }
      default: break;
    }
    if (c >= '1' && c <= '9') return Wrong("a backward reference cannot be enforced");
    if ((c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z')) return Wrong("an escape that does not exist");
    return Single(c);
  }

  const std::string_view text_;
  size_t at_;
};

}  // namespace

Result<PatternNode> ParsePattern(std::string_view pattern) {
  if (pattern.size() > kPatternBytesMax) return InvalidArgument("too long");
  if (!IsValidUtf8(pattern)) return InvalidArgument("not valid UTF-8");
  return Parser(pattern).Whole();
}

Result<CodePointSet> ParseCharacterClass(std::string_view text, size_t& at) {
  Parser parser(text, at);
  auto set = parser.Class();
  at = parser.at();
  return set;
}

Result<Part> AddPattern(Nfa& nfa, const PatternNode& node, Spelling spelling) {
  PENSIEVE_RETURN_IF_ERROR(nfa.status());
  switch (node.kind) {
    case Kind::kSet: return AddCharacter(nfa, node.set, spelling);
    case Kind::kTextBegin: return nfa.Bytes(kBeginMark, kBeginMark);
    case Kind::kTextEnd: return nfa.Bytes(kEndMark, kEndMark);
    case Kind::kRepeat:
      return nfa.Repeat([&] { return AddPattern(nfa, node.children[0], spelling); }, node.min, node.max);
    case Kind::kSequence:
    case Kind::kChoice: break;
  }
  std::vector<Part> parts;
  for (const PatternNode& child : node.children) {
    PENSIEVE_TRY(const Part part, AddPattern(nfa, child, spelling));
    parts.push_back(part);
  }
  return node.kind == Kind::kChoice ? nfa.Choice(parts) : nfa.Sequence(parts);
}

// The marks stand at both ends of the text. What comes before a match takes the first of them, if the match itself
// does not; in the same way the second.
Result<Dfa> CompilePattern(std::string_view pattern, bool whole, Spelling spelling, Budget& budget) {
  PENSIEVE_TRY(const PatternNode node, ParsePattern(pattern));
  Nfa nfa(budget);
  const auto anything = [&] { return nfa.Star(AddCharacter(nfa, CodePointSet::All(), spelling)); };
  const auto before = [&] {
    const Part mark = nfa.Bytes(kBeginMark, kBeginMark);
    if (whole) return nfa.Optional(mark);
    const std::array<Part, 2> parts = {mark, anything()};
    return nfa.Optional(nfa.Sequence(parts));
  };
  const auto behind = [&] {
    const Part mark = nfa.Bytes(kEndMark, kEndMark);
    if (whole) return nfa.Optional(mark);
    const std::array<Part, 2> parts = {anything(), mark};
    return nfa.Optional(nfa.Sequence(parts));
  };
  PENSIEVE_TRY(const Part match, AddPattern(nfa, node, spelling));
  const std::array<Part, 3> parts = {before(), match, behind()};
  PENSIEVE_TRY(const Dfa marked, Determinize(nfa, nfa.Sequence(parts), budget));
  if (spelling == Spelling::kJsonString) return ReplaceMarks(marked, kBeginMark, kEndMark, '"');
  return StripMarks(marked, kBeginMark, kEndMark);
}

}  // namespace pensieve::chat
