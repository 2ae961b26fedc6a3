#include "tokenizer/regex.h"

#include <array>

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

#include "base/utf8.h"
#include "fmt/format.h"
#include "tokenizer/unicode.h"

namespace pensieve::tokenizer {
namespace {

// Backtracking steps allowed per match attempt. The known tokenizer patterns need a small multiple of the text's
// length; an exponential pattern ends here after some hundred milliseconds.
constexpr uint32_t kMatchStepsMax = 50'000'000;
constexpr uint32_t kHeapKibMax = 256 * 1024;
constexpr size_t kJitStackBytesMax = 8 * 1024 * 1024;

// What a thread needs to run any pattern; made once per thread.
class MatchScratch {
 public:
  MatchScratch()
      : data_(pcre2_match_data_create(1, nullptr)),
        context_(pcre2_match_context_create(nullptr)),
        jit_stack_(pcre2_jit_stack_create(32 * 1024, kJitStackBytesMax, nullptr)) {
    PENSIEVE_CHECK(data_ != nullptr && context_ != nullptr);
    pcre2_set_match_limit(context_, kMatchStepsMax);
    pcre2_set_heap_limit(context_, kHeapKibMax);
    if (jit_stack_ != nullptr) pcre2_jit_stack_assign(context_, nullptr, jit_stack_);
  }
  MatchScratch(const MatchScratch&) = delete;
  MatchScratch& operator=(const MatchScratch&) = delete;
  ~MatchScratch() {
    pcre2_match_data_free(data_);
    pcre2_match_context_free(context_);
    if (jit_stack_ != nullptr) pcre2_jit_stack_free(jit_stack_);
  }
  pcre2_match_data* data() { return data_; }
  pcre2_match_context* context() { return context_; }

  static MatchScratch& OfThisThread() {
    thread_local MatchScratch scratch;
    return scratch;
  }

 private:
  pcre2_match_data* data_;
  pcre2_match_context* context_;
  pcre2_jit_stack* jit_stack_;
};

// Oniguruma's Unicode \w, measured over all code points; PCRE2's has neither marks nor connectors. On its own, but not
// inside a class, it also has the superscripts and fractions of Latin-1.
constexpr std::string_view kWordClass = "\\p{Alphabetic}\\p{M}\\p{Nd}\\p{Pc}";
constexpr std::string_view kLatin1Numbers = "\\x{b2}\\x{b3}\\x{b9}\\x{bc}-\\x{be}";

// Rewrites Oniguruma's dialect where PCRE2 would read something else, and refuses what has no equivalent.
class PatternTranslator {
 public:
  explicit PatternTranslator(std::string_view pattern) : pattern_(pattern) {}

  Result<std::string> Translate() {
    while (at_ < pattern_.size()) PENSIEVE_RETURN_IF_ERROR(TranslateNext());
    return std::move(out_);
  }

 private:
  Status Refuse(std::string_view what) const {
    return Unimplemented(fmt::format("regex \"{}\" uses {}, which is not supported", pattern_, what));
  }

  bool LooksAt(std::string_view text) const { return pattern_.substr(at_, text.size()) == text; }

  void Copy(size_t count) {
    out_.append(pattern_.substr(at_, count));
    at_ += count;
  }

  Status TranslateNext() {
    if (LooksAt("\\")) return TranslateEscape();
    if (in_class_) {
      if (LooksAt("&&")) return Refuse("a class intersection");
      if (LooksAt("[:")) {
        const size_t end = pattern_.find(":]", at_);
        if (end == std::string_view::npos) return Refuse("a nested class");
        Copy(end + 2 - at_);
        return OkStatus();
      }
      if (LooksAt("[")) return Refuse("a nested class");
      if (LooksAt("]")) in_class_ = false;
      Copy(1);
      return OkStatus();
    }
    if (LooksAt("(?m")) return Refuse("the option (?m)");
    if (LooksAt("[")) {
      in_class_ = true;
      Copy(1);
      if (LooksAt("^")) Copy(1);
      if (LooksAt("]")) Copy(1);  // a bracket that comes first is literal
      return OkStatus();
    }
    Copy(1);
    return OkStatus();
  }

  Status TranslateEscape() {
    if (at_ + 1 >= pattern_.size()) return InvalidArgument(fmt::format("regex \"{}\" ends in a backslash", pattern_));
    switch (pattern_[at_ + 1]) {
      case 'h':
      case 'H': return Refuse("\\h");
      case 'w':
        out_.append(in_class_ ? std::string(kWordClass) : fmt::format("[{}{}]", kWordClass, kLatin1Numbers));
        at_ += 2;
        return OkStatus();
      case 'W':
        if (in_class_) return Refuse("\\W inside a class");
        out_.append(fmt::format("[^{}{}]", kWordClass, kLatin1Numbers));
        at_ += 2;
        return OkStatus();
      case 'b':
      case 'B':
        if (in_class_) return Refuse("\\b inside a class");
        out_.append(WordBoundary(pattern_[at_ + 1] == 'b'));
        at_ += 2;
        return OkStatus();
      case 'p':
      case 'P': return TranslateProperty();
      default: Copy(2); return OkStatus();
    }
  }

  // By the \w above: of the characters on both sides one is of a word and the other is not, or (\B) they are alike.
  static std::string WordBoundary(bool wanted) {
    const std::string word = fmt::format("[{}{}]", kWordClass, kLatin1Numbers);
    return wanted ? fmt::format("(?:(?<={0})(?!{0})|(?<!{0})(?={0}))", word)
                  : fmt::format("(?:(?<={0})(?={0})|(?<!{0})(?!{0}))", word);
  }

  // Oniguruma also knows the long names of categories.
  Status TranslateProperty() {
    static constexpr std::array<std::pair<std::string_view, std::string_view>, 14> kLongNames = {{
        {"Letter", "L"},
        {"Mark", "M"},
        {"Number", "N"},
        {"Punctuation", "P"},
        {"Punct", "P"},
        {"Symbol", "S"},
        {"Separator", "Z"},
        {"Other", "C"},
        {"Uppercase_Letter", "Lu"},
        {"Lowercase_Letter", "Ll"},
        {"Titlecase_Letter", "Lt"},
        {"Modifier_Letter", "Lm"},
        {"Other_Letter", "Lo"},
        {"Decimal_Number", "Nd"},
    }};
    const size_t close = pattern_.find('}', at_);
    if (!(pattern_.substr(at_ + 2, 1) == "{") || close == std::string_view::npos) return Refuse("\\p without braces");
    std::string_view name = pattern_.substr(at_ + 3, close - at_ - 3);
    for (const auto& [long_name, short_name] : kLongNames) {
      if (name == long_name) name = short_name;
    }
    out_.append(fmt::format("\\{}{{{}}}", pattern_[at_ + 1], name));
    at_ = close + 1;
    return OkStatus();
  }

  std::string_view pattern_;
  size_t at_ = 0;
  bool in_class_ = false;
  std::string out_;
};

// The text the library matches: the same length, with characters of newer scripts replaced by proxies. Empty when
// nothing needs a proxy, as is nearly always so.
std::string ProxyText(std::string_view text) {
  std::string proxied;
  for (size_t at = 0; at < text.size();) {
    if (static_cast<unsigned char>(text[at]) < 0xC8) {  // below U+0200 every version agrees
      at += Utf8Length(text[at]);
      continue;
    }
    const size_t begin = at;
    const char32_t c = NextCodePoint(text, at);
    const char32_t proxy = RegexProxy(c);
    if (proxy == c) continue;
    if (proxied.empty()) proxied.assign(text);
    std::string encoded;
    AppendUtf8(proxy, encoded);
    proxied.replace(begin, encoded.size(), encoded);
  }
  return proxied;
}

}  // namespace

struct Regex::Code {
  pcre2_code* code = nullptr;
  bool has_proxies = true;  // literals are compared as they are
  ~Code() { pcre2_code_free(code); }
};

Regex::Regex(std::unique_ptr<Code> code) : code_(std::move(code)) {}
Regex::Regex(Regex&&) noexcept = default;
Regex& Regex::operator=(Regex&&) noexcept = default;
Regex::~Regex() = default;

Result<Regex> Regex::Compile(const std::string& pattern) {
  PENSIEVE_TRY(const std::string translated, PatternTranslator(pattern).Translate());
  int error = 0;
  PCRE2_SIZE offset = 0;
  auto code = std::make_unique<Code>();
  // Ruby's ^ and $ match at every line.
  code->code =
      pcre2_compile(reinterpret_cast<PCRE2_SPTR>(translated.data()), translated.size(),
                    PCRE2_UTF | PCRE2_UCP | PCRE2_MULTILINE | PCRE2_NEVER_BACKSLASH_C, &error, &offset, nullptr);
  if (code->code == nullptr) {
    std::array<PCRE2_UCHAR, 200> message{};
    pcre2_get_error_message(error, message.data(), message.size());
    return InvalidArgument(
        fmt::format("regex \"{}\" at {}: {}", pattern, offset, reinterpret_cast<const char*>(message.data())));
  }
  // Without JIT (an architecture PCRE2 does not know) matching is slower and just as right.
  (void)pcre2_jit_compile(code->code, PCRE2_JIT_COMPLETE);
  return Regex(std::move(code));
}

Result<Regex> Regex::Literal(std::string_view literal) {
  std::string escaped;
  for (const char c : literal) {
    if (std::string_view("\\.+*?()|[]{}^$#&-~/ ").find(c) != std::string_view::npos) escaped.push_back('\\');
    escaped.push_back(c);
  }
  PENSIEVE_TRY(Regex regex, Compile(escaped));
  regex.code_->has_proxies = false;
  return regex;
}

std::vector<TextRange> Regex::FindAll(std::string_view text) const {
  std::vector<TextRange> matches;
  ForEachMatch(text, [&](TextRange match) { matches.push_back(match); });
  return matches;
}

void Regex::ForEachMatch(std::string_view text, const std::function<void(TextRange)>& found_match) const {
  const std::string proxied = code_->has_proxies ? ProxyText(text) : std::string();
  const std::string_view subject = proxied.empty() ? text : std::string_view(proxied);
  MatchScratch& scratch = MatchScratch::OfThisThread();
  const auto* bytes = reinterpret_cast<PCRE2_SPTR>(subject.data());
  size_t at = 0;
  size_t last_end = std::string_view::npos;
  while (at <= subject.size()) {
    int found =
        pcre2_match(code_->code, bytes, subject.size(), at, PCRE2_NO_UTF_CHECK, scratch.data(), scratch.context());
    if (found == PCRE2_ERROR_JIT_STACKLIMIT) {  // the interpreter keeps its state on the heap
      found = pcre2_match(code_->code, bytes, subject.size(), at, PCRE2_NO_UTF_CHECK | PCRE2_NO_JIT, scratch.data(),
                          scratch.context());
    }
    if (found < 0) break;
    const PCRE2_SIZE* ends = pcre2_get_ovector_pointer(scratch.data());
    const TextRange match{ends[0], ends[1]};
    if (match.end < match.begin) break;  // \K in a lookahead
    if (match.begin == match.end && match.end == last_end) {
      if (at >= subject.size()) break;
      at += Utf8Length(subject[at]);
      continue;
    }
    found_match(match);
    at = last_end = match.end;
    if (match.begin == match.end && at >= subject.size()) break;
  }
}

}  // namespace pensieve::tokenizer
