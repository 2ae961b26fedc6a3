#include "chat/text_automata.h"

#include <fmt/format.h>

#include <algorithm>
#include <span>
#include <array>
#include <charconv>

#include "base/utf8.h"

namespace pensieve::chat {
namespace {

using sampling::Budget;
using sampling::Dfa;
using sampling::Nfa;
using Part = Nfa::Part;

constexpr char32_t kLastCodePoint = 0x10FFFF;
constexpr char32_t kSurrogatesBegin = 0xD800;
constexpr char32_t kSurrogatesLast = 0xDFFF;

std::string Encode(char32_t c) {
  std::string out;
  AppendUtf8(c, out);
  return out;
}

// The edges of all code points of a range whose UTF-8 has the same length and differs from some byte on only.
void AddAligned(Nfa& nfa, std::string_view first, std::string_view last, Part part) {
  int32_t at = part.start;
  for (size_t i = 0; i < first.size(); ++i) {
    const int32_t next = i + 1 == first.size() ? part.end : nfa.AddState();
    nfa.AddEdge(at, static_cast<uint8_t>(first[i]), static_cast<uint8_t>(last[i]), next);
    at = next;
  }
}

// Cuts a range where the length of UTF-8 changes, and where continuation bytes do not run through all their values.
void AddUtf8Range(Nfa& nfa, char32_t first, char32_t last, Part part) {
  for (const char32_t limit : {char32_t{0x7F}, char32_t{0x7FF}, char32_t{0xFFFF}}) {
    if (first <= limit && limit < last) {
      AddUtf8Range(nfa, first, limit, part);
      return AddUtf8Range(nfa, limit + 1, last, part);
    }
  }
  if (last > 0x7F) {
    for (int bits = 6; bits <= 18; bits += 6) {
      const char32_t below = (char32_t{1} << bits) - 1;
      if ((first & ~below) == (last & ~below)) break;
      if ((first & below) != 0) {
        AddUtf8Range(nfa, first, first | below, part);
        return AddUtf8Range(nfa, (first | below) + 1, last, part);
      }
      if ((last & below) != below) {
        AddUtf8Range(nfa, first, (last & ~below) - 1, part);
        return AddUtf8Range(nfa, last & ~below, last, part);
      }
    }
  }
  AddAligned(nfa, Encode(first), Encode(last), part);
}

bool NeedsEscape(char32_t c) { return c < 0x20 || c == '"' || c == '\\'; }

void AddText(Nfa& nfa, std::string_view text, Part part) {
  const Part literal = nfa.Literal(text);
  nfa.AddEmptyEdge(part.start, literal.start);
  nfa.AddEmptyEdge(literal.end, part.end);
}

// \uXXXX of the code units from `first` to `last`, whose lower two digits run through all values.
Part AddCodeUnits(Nfa& nfa, std::string_view first_digit, std::string_view second_digits) {
  const auto digit = [&](std::string_view digits) {
    Part part{nfa.AddState(), nfa.AddState()};
    for (const char c : digits) nfa.AddEdge(part.start, static_cast<uint8_t>(c), static_cast<uint8_t>(c), part.end);
    return part;
  };
  constexpr std::string_view kHex = "0123456789abcdefABCDEF";
  const std::array<Part, 5> parts = {nfa.Literal("\\u"), digit(first_digit), digit(second_digits), digit(kHex),
                                     digit(kHex)};
  return nfa.Sequence(parts);
}

Part AddAnyEscape(Nfa& nfa) {
  constexpr std::string_view kHex = "0123456789abcdefABCDEF";
  std::vector<Part> parts;
  for (const char c : {'"', '\\', '/', 'b', 'f', 'n', 'r', 't'}) parts.push_back(nfa.Literal(std::string("\\") + c));
  parts.push_back(AddCodeUnits(nfa, "0123456789abcefABCEF", kHex));
  parts.push_back(AddCodeUnits(nfa, "dD", "01234567"));
  const std::array<Part, 2> pair = {AddCodeUnits(nfa, "dD", "89abAB"), AddCodeUnits(nfa, "dD", "cdefCDEF")};
  parts.push_back(nfa.Sequence(pair));
  return nfa.Choice(parts);
}

}  // namespace

CodePointSet CodePointSet::All() {
  CodePointSet all;
  all.Add(0, kSurrogatesBegin - 1);
  all.Add(kSurrogatesLast + 1, kLastCodePoint);
  return all;
}

void CodePointSet::Normalize() {
  std::vector<Range> parted;
  for (const Range& range : ranges_) {
    const Range below{range.first, std::min<char32_t>(range.last, kSurrogatesBegin - 1)};
    const Range above{std::max<char32_t>(range.first, kSurrogatesLast + 1), std::min(range.last, kLastCodePoint)};
    if (below.first <= below.last) parted.push_back(below);
    if (above.first <= above.last) parted.push_back(above);
  }
  std::sort(parted.begin(), parted.end(), [](const Range& a, const Range& b) { return a.first < b.first; });
  ranges_.clear();
  for (const Range& range : parted) {
    if (!ranges_.empty() && range.first <= ranges_.back().last + 1) {
      ranges_.back().last = std::max(ranges_.back().last, range.last);
    } else {
      ranges_.push_back(range);
    }
  }
}

CodePointSet CodePointSet::Complement() const {
  CodePointSet rest;
  char32_t next = 0;
  for (const Range& range : ranges_) {
    if (range.first > next) rest.Add(next, range.first - 1);
    next = range.last + 1;
  }
  if (next <= kLastCodePoint) rest.Add(next, kLastCodePoint);
  rest.Normalize();
  return rest;
}

Part AddCharacter(Nfa& nfa, const CodePointSet& set, Spelling spelling) {
  const Part part{nfa.AddState(), nfa.AddState()};
  for (const auto& [first, last] : set.ranges()) {
    if (!nfa.status().ok()) break;
    char32_t from = first;
    // Characters that JSON escapes lie below '\\': each of them by itself.
    while (spelling == Spelling::kJsonString && from <= last && from <= U'\\') {
      char32_t until = from;
      if (NeedsEscape(from)) {
        AddText(nfa, Spell(Encode(from), spelling), part);
      } else {
        while (until < last && !NeedsEscape(until + 1)) ++until;
        if (until > U'\\') until = last;
        AddUtf8Range(nfa, from, until, part);
      }
      from = until + 1;
    }
    if (from <= last) AddUtf8Range(nfa, from, last, part);
  }
  return part;
}

std::string Spell(std::string_view text, Spelling spelling) {
  if (spelling == Spelling::kPlain) return std::string(text);
  const std::string quoted = DumpJson(Json(std::string(text)));
  return quoted.substr(1, quoted.size() - 2);
}

Result<Dfa> JsonString(bool any_spelling, Budget& budget) {
  Nfa nfa(budget);
  const Part open = nfa.Literal("\"");
  Part character;
  if (any_spelling) {
    CodePointSet plain;
    plain.Add(0x20, '"' - 1);
    plain.Add('"' + 1, '\\' - 1);
    plain.Add('\\' + 1, kLastCodePoint);
    plain.Normalize();
    const std::array<Part, 2> spellings = {AddCharacter(nfa, plain, Spelling::kPlain), AddAnyEscape(nfa)};
    character = nfa.Choice(spellings);
  } else {
    character = AddCharacter(nfa, CodePointSet::All(), Spelling::kJsonString);
  }
  const std::array<Part, 3> parts = {open, nfa.Star(character), nfa.Literal("\"")};
  PENSIEVE_TRY(Dfa dfa, Determinize(nfa, nfa.Sequence(parts), budget));
  dfa.set_counting_state(dfa.Next(dfa.start(), '"'));
  return dfa;
}

Decimal ToDecimal(const Json& number) {
  std::string text = number.is_number_float() ? fmt::format("{}", number.get<double>()) : DumpJson(number);
  Decimal decimal;
  decimal.negative = text.starts_with('-');
  if (decimal.negative) text.erase(0, 1);
  int exponent = 0;
  if (const size_t e = text.find_first_of("eE"); e != std::string::npos) {
    const size_t digits = e + (text[e + 1] == '+' ? 2 : 1);
    std::from_chars(text.data() + digits, text.data() + text.size(), exponent);
    text.resize(e);
  }
  const size_t point = text.find('.');
  std::string whole = text.substr(0, point);
  std::string fraction = point == std::string::npos ? "" : text.substr(point + 1);
  for (; exponent > 0; --exponent) {
    whole += fraction.empty() ? '0' : fraction.front();
    if (!fraction.empty()) fraction.erase(0, 1);
  }
  for (; exponent < 0; ++exponent) {
    fraction.insert(fraction.begin(), whole.empty() ? '0' : whole.back());
    if (!whole.empty()) whole.pop_back();
  }
  whole.erase(0, std::min(whole.find_first_not_of('0'), whole.size()));
  while (fraction.ends_with('0')) fraction.pop_back();
  if (!whole.empty()) decimal.whole = whole;
  decimal.fraction = fraction;
  if (whole.empty() && fraction.empty()) decimal.negative = false;
  return decimal;
}

namespace {

int CompareSizes(const Decimal& a, const Decimal& b) {
  const auto sign = [](int order) { return (order > 0) - (order < 0); };
  if (a.whole.size() != b.whole.size()) return a.whole.size() < b.whole.size() ? -1 : 1;
  const int whole = sign(a.whole.compare(b.whole));
  return whole != 0 ? whole : sign(a.fraction.compare(b.fraction));
}

constexpr int kWholeDigitsMax = 18;  // of integers
constexpr int kDigitsMax = 15;       // that every double keeps
constexpr int kPlacesMax = 400;      // of any bound

// Reads the digits of a number without its sign, and compares them with one bound on the way. How many digits the
// whole part has shows at its end only: until then, the digits so far are compared with as many of the bound.
class Comparison {
 public:
  explicit Comparison(Decimal bound) : bound_(std::move(bound)) {}

  // `order` of the digits before; `at` digits of the whole part were read.
  int AfterWhole(int order, int at, char digit) const {
    if (order != 0 || at >= static_cast<int>(bound_.whole.size())) return order;
    return OrderOf(digit, bound_.whole[static_cast<size_t>(at)]);
  }
  int AtPoint(int order, int num_whole) const {
    const auto own = static_cast<int>(bound_.whole.size());
    return num_whole == own ? order : num_whole < own ? -1 : 1;
  }
  int AfterFraction(int order, int at, char digit) const {
    return order != 0 ? order : OrderOf(digit, FractionDigit(at));
  }
  // Behind `num_fraction` digits (-1: no point at all).
  int AtEnd(int order, int num_whole, int num_fraction) const {
    if (num_fraction < 0) order = AtPoint(order, num_whole);
    if (order != 0) return order;
    return std::max(num_fraction, 0) < static_cast<int>(bound_.fraction.size()) ? -1 : 0;
  }

 private:
  static int OrderOf(char a, char b) { return (a > b) - (a < b); }
  char FractionDigit(int at) const {
    return at < static_cast<int>(bound_.fraction.size()) ? bound_.fraction[static_cast<size_t>(at)] : '0';
  }
  Decimal bound_;
};

// What a number without its sign must satisfy.
struct SizeLimits {
  std::optional<Comparison> min, max;
  bool min_excluded = false;
  bool max_excluded = false;
  bool possible = true;
};

struct NumberState {
  enum Phase : int { kStart, kMinus, kWhole, kPoint, kFraction };
  int phase = kStart;
  bool negative = false;
  bool zero = false;  // the whole part is 0: no digit may follow
  int whole = 0;      // digits so far
  int fraction = 0;
  int low = 0;  // compared with min and max
  int high = 0;
  int64_t rest = 0;  // of the division by multiple_of

  int64_t Pack() const {
    int64_t packed = rest;
    for (const auto& [value, range] : {std::pair{phase, 5},
                                       {int{negative}, 2},
                                       {int{zero}, 2},
                                       {whole, 512},
                                       {fraction, 512},
                                       {low + 1, 3},
                                       {high + 1, 3}}) {
      packed = packed * range + value;
    }
    return packed;
  }
  static NumberState Unpack(int64_t packed) {
    NumberState state;
    const auto take = [&](int range) {
      const auto value = static_cast<int>(packed % range);
      packed /= range;
      return value;
    };
    state.high = take(3) - 1;
    state.low = take(3) - 1;
    state.fraction = take(512);
    state.whole = take(512);
    state.zero = take(2) != 0;
    state.negative = take(2) != 0;
    state.phase = take(5);
    state.rest = packed;
    return state;
  }
};

class NumberAutomaton {
 public:
  explicit NumberAutomaton(const NumberLimits& limits) : limits_(limits) {
    SetLimits();
    int whole_max = limits.integer ? kWholeDigitsMax : kDigitsMax;
    int places = 0;
    int own_whole = 1;
    for (const auto* bound : {&limits.min, &limits.max}) {
      if (!*bound) continue;
      own_whole = std::max(own_whole, static_cast<int>((*bound)->whole.size()));
      places = std::max(places, static_cast<int>((*bound)->fraction.size()));
    }
    whole_max_ = std::min(std::max(whole_max, own_whole), kPlacesMax);
    fraction_max_ = std::min(std::max(kDigitsMax - own_whole, places), kPlacesMax);
    if (limits.fraction_digits) fraction_max_ = *limits.fraction_digits;
    if (limits.integer || limits.multiple_of > 1) fraction_max_ = 0;
  }

  Result<Dfa> Build(Budget& budget) const {
    return sampling::Explore(
        NumberState().Pack(), [this](int64_t state, uint8_t byte) { return Next(NumberState::Unpack(state), byte); },
        [this](int64_t state) { return Accepts(NumberState::Unpack(state)) ? 0 : Dfa::kNoLabel; }, budget);
  }

 private:
  void SetLimits() {
    const Decimal zero;
    const auto& [min, max] = std::pair(limits_.min, limits_.max);
    SizeLimits& positive = sizes_[0];
    SizeLimits& negative = sizes_[1];
    if (min && (!min->negative)) {
      positive.min.emplace(*min);
      positive.min_excluded = limits_.min_excluded;
      negative.possible = false;
    }
    if (min && min->negative) {
      negative.max.emplace(*min);
      negative.max_excluded = limits_.min_excluded;
    }
    if (max && !max->negative) {
      positive.max.emplace(*max);
      positive.max_excluded = limits_.max_excluded;
    }
    if (max && max->negative) {
      negative.min.emplace(*max);
      negative.min_excluded = limits_.max_excluded;
      positive.possible = false;
    } else {
      negative.min.emplace(zero);  // there is no -0
      negative.min_excluded = true;
    }
  }

  const SizeLimits& SizesOf(const NumberState& state) const { return sizes_[state.negative ? 1 : 0]; }

  int64_t Next(NumberState state, uint8_t byte) const {
    const auto c = static_cast<char>(byte);
    if (c == '-') {
      if (state.phase != NumberState::kStart) return Dfa::kDead;
      state.phase = NumberState::kMinus;
      state.negative = true;
      return state.Pack();
    }
    const SizeLimits& sizes = SizesOf(state);
    if (c == '.') {
      if (state.phase != NumberState::kWhole || fraction_max_ == 0) return Dfa::kDead;
      state.phase = NumberState::kPoint;
      if (sizes.min) state.low = sizes.min->AtPoint(state.low, state.whole);
      if (sizes.max) state.high = sizes.max->AtPoint(state.high, state.whole);
      return state.Pack();
    }
    if (c < '0' || c > '9' || !sizes.possible) return Dfa::kDead;
    if (state.phase == NumberState::kPoint || state.phase == NumberState::kFraction) {
      if (state.fraction == fraction_max_) return Dfa::kDead;
      if (sizes.min) state.low = sizes.min->AfterFraction(state.low, state.fraction, c);
      if (sizes.max) state.high = sizes.max->AfterFraction(state.high, state.fraction, c);
      state.phase = NumberState::kFraction;
      ++state.fraction;
      return state.Pack();
    }
    if (state.zero || state.whole == whole_max_) return Dfa::kDead;
    if (sizes.min) state.low = sizes.min->AfterWhole(state.low, state.whole, c);
    if (sizes.max) state.high = sizes.max->AfterWhole(state.high, state.whole, c);
    state.zero = state.phase != NumberState::kWhole && c == '0';
    state.phase = NumberState::kWhole;
    ++state.whole;
    state.rest = (state.rest * 10 + (c - '0')) % limits_.multiple_of;
    return state.Pack();
  }

  bool Accepts(const NumberState& state) const {
    if (state.phase != NumberState::kWhole && state.phase != NumberState::kFraction) return false;
    const SizeLimits& sizes = SizesOf(state);
    const int places = state.phase == NumberState::kWhole ? -1 : state.fraction;
    const int low = sizes.min ? sizes.min->AtEnd(state.low, state.whole, places) : 1;
    const int high = sizes.max ? sizes.max->AtEnd(state.high, state.whole, places) : -1;
    return state.rest == 0 && (low > 0 || (low == 0 && !sizes.min_excluded)) &&
           (high < 0 || (high == 0 && !sizes.max_excluded));
  }

  const NumberLimits limits_;
  std::array<SizeLimits, 2> sizes_;
  int whole_max_ = 0;
  int fraction_max_ = 0;
};

// Without bounds, an exponent may follow.
Result<Dfa> AnyNumber(Budget& budget) {
  Nfa nfa(budget);
  const auto digits = [&](int min, int max) {
    return nfa.Repeat([&]() -> Result<Part> { return nfa.Bytes('0', '9'); }, min, max);
  };
  PENSIEVE_TRY(const Part more, digits(0, kDigitsMax - 1));
  PENSIEVE_TRY(const Part places, digits(1, kDigitsMax));
  PENSIEVE_TRY(const Part power, digits(1, 2));
  const std::array<Part, 2> from_one = {nfa.Bytes('1', '9'), more};
  const std::array<Part, 2> wholes = {nfa.Literal("0"), nfa.Sequence(from_one)};
  const std::array<Part, 2> fraction = {nfa.Literal("."), places};
  const std::array<Part, 2> letters = {nfa.Literal("e"), nfa.Literal("E")};
  const std::array<Part, 2> signs = {nfa.Literal("+"), nfa.Literal("-")};
  const std::array<Part, 3> exponent = {nfa.Choice(letters), nfa.Optional(nfa.Choice(signs)), power};
  const std::array<Part, 4> parts = {nfa.Optional(nfa.Literal("-")), nfa.Choice(wholes),
                                     nfa.Optional(nfa.Sequence(fraction)), nfa.Optional(nfa.Sequence(exponent))};
  return Determinize(nfa, nfa.Sequence(parts), budget);
}

}  // namespace

int Compare(const Decimal& a, const Decimal& b) {
  if (a.negative != b.negative) return a.negative ? -1 : 1;
  return a.negative ? CompareSizes(b, a) : CompareSizes(a, b);
}

Result<Dfa> JsonNumber(const NumberLimits& limits, Budget& budget) {
  const bool any = !limits.integer && !limits.min && !limits.max && limits.multiple_of == 1 && !limits.fraction_digits;
  return any ? AnyNumber(budget) : NumberAutomaton(limits).Build(budget);
}

}  // namespace pensieve::chat
