// Regular expressions of tokenizer files (Oniguruma's dialect), run by PCRE2's JIT in UTF mode with match limits.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "base/status.h"

namespace pensieve::tokenizer {

// A byte range of a text.
struct TextRange {
  size_t begin = 0;
  size_t end = 0;
};

// Immutable after Compile; thread-safe.
class Regex {
 public:
  // InvalidArgument for a pattern that does not compile, Unimplemented for constructs that mean something else here
  // than in Oniguruma (nested or intersected classes, \h, (?m)).
  static Result<Regex> Compile(const std::string& pattern);
  // A pattern that matches `literal` and nothing else.
  static Result<Regex> Literal(std::string_view literal);

  // All matches of `text` (valid UTF-8), leftmost first, not overlapping. A pattern that runs into the match limits
  // on this text stops there: the rest counts as unmatched, so that time stays bounded.
  std::vector<TextRange> FindAll(std::string_view text) const;
  // The same, one match after another, for texts with very many. `found_match` may match other patterns meanwhile.
  void ForEachMatch(std::string_view text, const std::function<void(TextRange)>& found_match) const;

  Regex(Regex&&) noexcept;
  Regex& operator=(Regex&&) noexcept;
  ~Regex();

 private:
  struct Code;
  explicit Regex(std::unique_ptr<Code> code);
  std::unique_ptr<Code> code_;
};

}  // namespace pensieve::tokenizer
