#include "tokenizer/unicode.h"

#include <algorithm>
#include <array>
#include <span>
#include <unordered_map>
#include <vector>

#include <utf8proc.h>

#include "base/check.h"
#include "base/utf8.h"

namespace pensieve::tokenizer {
namespace {

struct CodeRange {
  char32_t first;
  char32_t last;
};

// Every `stride`-th code point from first to last maps to itself plus `delta`.
struct LowercaseRun {
  char32_t first;
  char32_t last;
  int32_t stride;
  int32_t delta;
};

struct ProxyRange {
  char32_t first;
  char32_t last;
  char32_t proxy;
};

#include "tokenizer/unicode_tables.inc"

// The range of sorted `ranges` that holds `c`, or null.
template <typename Range, size_t kCount>
const Range* FindRange(const Range (&ranges)[kCount], char32_t c) {
  const Range* end = ranges + kCount;
  const Range* found = std::upper_bound(ranges, end, c, [](char32_t x, const Range& range) { return x < range.first; });
  if (found == ranges) return nullptr;
  --found;
  return c <= found->last ? found : nullptr;
}

// Hangul syllables compose and decompose by arithmetic (Unicode, section 3.12).
constexpr char32_t kHangulBase = 0xAC00, kLeadBase = 0x1100, kVowelBase = 0x1161, kTrailBase = 0x11A7;
constexpr char32_t kLeadCount = 19, kVowelCount = 21, kTrailCount = 28;

int CombiningClass(char32_t c) {
  if (c < 0x300 || FindRange(kStarterHere, c) != nullptr) return 0;
  return static_cast<int>(utf8proc_get_property(static_cast<utf8proc_int32_t>(c))->combining_class);
}

void AppendDecomposed(char32_t c, bool compatibility, std::u32string& out) {
  if (c < 0xA0 || FindRange(kDecomposesElsewhere, c) != nullptr) {
    out.push_back(c);
    return;
  }
  std::array<utf8proc_int32_t, 32> parts{};  // the longest decomposition has 18
  const auto options = static_cast<utf8proc_option_t>(UTF8PROC_DECOMPOSE | (compatibility ? UTF8PROC_COMPAT : 0));
  int boundary = 0;
  const auto count = utf8proc_decompose_char(static_cast<utf8proc_int32_t>(c), parts.data(),
                                             static_cast<utf8proc_ssize_t>(parts.size()), options, &boundary);
  PENSIEVE_CHECK(count > 0 && static_cast<size_t>(count) <= parts.size());
  for (utf8proc_ssize_t i = 0; i < count; ++i) out.push_back(static_cast<char32_t>(parts[static_cast<size_t>(i)]));
}

// Primary composites: (first, second) -> composite, Hangul excepted.
class CompositionTable {
 public:
  CompositionTable() {
    struct Candidate {
      char32_t composite;
      std::u32string parts;
    };
    std::vector<Candidate> candidates;
    for (char32_t c = 0xC0; c < 0x20000; ++c) {
      if (c >= kHangulBase && c < kHangulBase + kLeadCount * kVowelCount * kTrailCount) continue;
      if (utf8proc_get_property(static_cast<utf8proc_int32_t>(c))->comp_exclusion) continue;
      std::u32string parts;
      AppendDecomposed(c, false, parts);
      if (parts.size() < 2 || CombiningClass(c) != 0 || CombiningClass(parts[0]) != 0) continue;
      candidates.push_back({c, parts});
    }
    std::stable_sort(candidates.begin(), candidates.end(),
                     [](const Candidate& a, const Candidate& b) { return a.parts.size() < b.parts.size(); });
    // A composite is its own first part, composed, and one more character.
    for (const Candidate& candidate : candidates) {
      char32_t first = candidate.parts[0];
      for (size_t i = 1; i + 1 < candidate.parts.size() && first != 0; ++i) first = Find(first, candidate.parts[i]);
      if (first != 0) pairs_.emplace(Key(first, candidate.parts.back()), candidate.composite);
    }
  }

  // The composite, or 0.
  char32_t Find(char32_t first, char32_t second) const {
    if (first >= kLeadBase && first < kLeadBase + kLeadCount && second >= kVowelBase &&
        second < kVowelBase + kVowelCount) {
      return kHangulBase + ((first - kLeadBase) * kVowelCount + (second - kVowelBase)) * kTrailCount;
    }
    if (first >= kHangulBase && first < kHangulBase + kLeadCount * kVowelCount * kTrailCount &&
        (first - kHangulBase) % kTrailCount == 0 && second > kTrailBase && second < kTrailBase + kTrailCount) {
      return first + (second - kTrailBase);
    }
    const auto found = pairs_.find(Key(first, second));
    return found == pairs_.end() ? 0 : found->second;
  }

 private:
  static uint64_t Key(char32_t first, char32_t second) { return (static_cast<uint64_t>(first) << 32) | second; }
  std::unordered_map<uint64_t, char32_t> pairs_;
};

// Sorts every run of combining marks by class, stably.
void OrderMarks(std::u32string& text) {
  struct Mark {
    int combining_class;
    char32_t c;
  };
  std::vector<Mark> marks;
  for (size_t at = 0; at < text.size();) {
    if (CombiningClass(text[at]) == 0) {
      ++at;
      continue;
    }
    marks.clear();
    size_t end = at;
    for (; end < text.size(); ++end) {
      const int combining_class = CombiningClass(text[end]);
      if (combining_class == 0) break;
      marks.push_back({combining_class, text[end]});
    }
    std::stable_sort(marks.begin(), marks.end(),
                     [](const Mark& a, const Mark& b) { return a.combining_class < b.combining_class; });
    for (size_t i = 0; i < marks.size(); ++i) text[at + i] = marks[i].c;
    at = end;
  }
}

// The canonical composition algorithm over decomposed, ordered text, in place.
void Compose(std::u32string& text) {
  static const CompositionTable table;
  size_t written = 0;
  size_t starter = std::u32string::npos;
  int last_class = -1;  // class of the last character written after the starter; -1: none
  for (const char32_t c : text) {
    const int combining_class = CombiningClass(c);
    if (starter != std::u32string::npos && last_class < combining_class) {
      if (const char32_t composite = table.Find(text[starter], c); composite != 0) {
        text[starter] = composite;
        continue;
      }
    }
    if (combining_class == 0) {
      starter = written;
      last_class = -1;
    } else {
      last_class = combining_class;
    }
    text[written++] = c;
  }
  text.resize(written);
}

bool IsAscii(std::string_view text) {
  return std::all_of(text.begin(), text.end(), [](char c) { return static_cast<unsigned char>(c) < 0x80; });
}

}  // namespace

bool IsWhitespace(char32_t c) {
  if (c < 0x80) return c == ' ' || (c >= 0x9 && c <= 0xD);
  return c == 0x85 || c == 0xA0 || c == 0x1680 || (c >= 0x2000 && c <= 0x200A) || c == 0x2028 || c == 0x2029 ||
         c == 0x202F || c == 0x205F || c == 0x3000;
}

bool IsNumeric(char32_t c) { return FindRange(kNumeric, c) != nullptr; }
bool IsWordCharacter(char32_t c) { return FindRange(kWord, c) != nullptr; }
bool IsPunctuation(char32_t c) { return FindRange(kPunctuation, c) != nullptr; }
bool IsMark(char32_t c) { return FindRange(kMark, c) != nullptr; }
bool IsNonspacingMark(char32_t c) { return FindRange(kNonspacingMark, c) != nullptr; }
bool IsBertControl(char32_t c) { return FindRange(kBertControl, c) != nullptr; }

bool IsChineseCharacter(char32_t c) {
  static constexpr CodeRange kBlocks[] = {{0x3400, 0x4DBF},   {0x4E00, 0x9FFF},   {0xF900, 0xFAFF},
                                          {0x20000, 0x2A6DF}, {0x2A700, 0x2B73F}, {0x2B740, 0x2B81F},
                                          {0x2B920, 0x2CEAF}, {0x2F800, 0x2FA1F}};
  return FindRange(kBlocks, c) != nullptr;
}

char32_t RegexProxy(char32_t c) {
  const ProxyRange* range = FindRange(kProxies, c);
  return range == nullptr ? c : range->proxy;
}

void AppendLowercase(char32_t c, std::string& out) {
  if (c < 0x80) {
    out.push_back(static_cast<char>(c >= 'A' && c <= 'Z' ? c + 32 : c));
    return;
  }
  if (c == 0x130) {  // the one letter whose lower case is two characters
    out.append("i\xCC\x87");
    return;
  }
  const LowercaseRun* run = FindRange(kLowercase, c);
  const bool maps = run != nullptr && (c - run->first) % static_cast<char32_t>(run->stride) == 0;
  AppendUtf8(maps ? static_cast<char32_t>(static_cast<int32_t>(c) + run->delta) : c, out);
}

std::string Lowercase(std::string_view text) {
  std::string out;
  out.reserve(text.size());
  for (size_t at = 0; at < text.size();) AppendLowercase(NextCodePoint(text, at), out);
  return out;
}

std::string Normalize(std::string_view text, NormalForm form) {
  if (IsAscii(text)) return std::string(text);
  const bool compatibility = form == NormalForm::kNfkc || form == NormalForm::kNfkd;
  std::u32string points;
  points.reserve(text.size());
  for (size_t at = 0; at < text.size();) AppendDecomposed(NextCodePoint(text, at), compatibility, points);
  OrderMarks(points);
  if (form == NormalForm::kNfc || form == NormalForm::kNfkc) Compose(points);
  std::string out;
  out.reserve(text.size());
  for (const char32_t c : points) AppendUtf8(c, out);
  return out;
}

}  // namespace pensieve::tokenizer
