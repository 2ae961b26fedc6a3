#include "tokenizer/pre_tokenizer.h"

#include <algorithm>
#include <functional>
#include <optional>

#include "base/utf8.h"
#include "tokenizer/byte_level.h"
#include "tokenizer/unicode.h"

namespace pensieve::tokenizer {
namespace {

struct Segment {
  size_t begin;
  size_t end;
  bool is_match;
};

// The text as matches and the gaps between them.
std::vector<Segment> Segments(const std::vector<TextRange>& matches, size_t size) {
  std::vector<Segment> segments;
  size_t covered = 0;
  for (const TextRange& match : matches) {
    if (covered < match.begin) segments.push_back({covered, match.begin, false});
    segments.push_back({match.begin, match.end, true});
    covered = match.end;
  }
  if (covered < size) segments.push_back({covered, size, false});
  return segments;
}

// Glues every match to the segment before it (or, with segments in reverse order, behind it), unless that is a match.
void GlueMatches(std::vector<Segment>& segments) {
  std::vector<Segment> glued;
  bool previous_match = false;
  for (const Segment& segment : segments) {
    if (segment.is_match && !previous_match && !glued.empty()) {
      glued.back().begin = std::min(glued.back().begin, segment.begin);
      glued.back().end = std::max(glued.back().end, segment.end);
    } else {
      glued.push_back(segment);
    }
    previous_match = segment.is_match;
  }
  segments = std::move(glued);
}

void ApplyBehavior(SplitBehavior behavior, std::vector<Segment>& segments) {
  switch (behavior) {
    case SplitBehavior::kIsolated: return;
    case SplitBehavior::kRemoved:
      std::erase_if(segments, [](const Segment& segment) { return segment.is_match; });
      return;
    case SplitBehavior::kMergedWithPrevious: GlueMatches(segments); return;
    case SplitBehavior::kMergedWithNext:
      std::reverse(segments.begin(), segments.end());
      GlueMatches(segments);
      std::reverse(segments.begin(), segments.end());
      return;
    case SplitBehavior::kContiguous: {
      std::vector<Segment> joined;
      for (const Segment& segment : segments) {
        if (!joined.empty() && joined.back().is_match == segment.is_match) {
          joined.back().end = segment.end;
        } else {
          joined.push_back(segment);
        }
      }
      segments = std::move(joined);
      return;
    }
  }
}

// Appends the segments of `word` that are not empty.
void AppendSegments(const Word& word, const std::vector<Segment>& segments, std::vector<Word>& words) {
  for (const Segment& segment : segments) {
    if (segment.begin == segment.end) continue;
    words.push_back(
        {word.text.substr(segment.begin, segment.end - segment.begin), word.starts_text && segment.begin == 0});
  }
}

class Sequence final : public PreTokenizer {
 public:
  explicit Sequence(std::vector<PreTokenizerPtr> parts) : parts_(std::move(parts)) {}
  void Apply(std::vector<Word>& words) const override {
    for (const PreTokenizerPtr& part : parts_) part->Apply(words);
  }

 private:
  const std::vector<PreTokenizerPtr> parts_;
};

class PatternSplit final : public PreTokenizer {
 public:
  PatternSplit(Regex pattern, SplitBehavior behavior, bool invert)
      : pattern_(std::move(pattern)), behavior_(behavior), invert_(invert) {}

  void Apply(std::vector<Word>& words) const override {
    std::vector<Word> out;
    for (const Word& word : words) {
      std::vector<Segment> segments = Segments(pattern_.FindAll(word.text), word.text.size());
      if (invert_) {
        for (Segment& segment : segments) segment.is_match = !segment.is_match;
      }
      ApplyBehavior(behavior_, segments);
      AppendSegments(word, segments, out);
    }
    words = std::move(out);
  }

 private:
  const Regex pattern_;
  const SplitBehavior behavior_;
  const bool invert_;
};

class CharacterSplit final : public PreTokenizer {
 public:
  CharacterSplit(std::function<bool(char32_t)> is_delimiter, SplitBehavior behavior)
      : is_delimiter_(std::move(is_delimiter)), behavior_(behavior) {}

  void Apply(std::vector<Word>& words) const override {
    std::vector<Word> out;
    for (const Word& word : words) {
      std::vector<TextRange> matches;
      for (size_t at = 0; at < word.text.size();) {
        const size_t begin = at;
        if (is_delimiter_(NextCodePoint(word.text, at))) matches.push_back({begin, at});
      }
      std::vector<Segment> segments = Segments(matches, word.text.size());
      ApplyBehavior(behavior_, segments);
      AppendSegments(word, segments, out);
    }
    words = std::move(out);
  }

 private:
  const std::function<bool(char32_t)> is_delimiter_;
  const SplitBehavior behavior_;
};

class WhitespaceSplit final : public PreTokenizer {
 public:
  void Apply(std::vector<Word>& words) const override {
    std::vector<Word> out;
    for (const Word& word : words) {
      std::vector<Segment> segments;
      Kind previous = Kind::kSpace;
      for (size_t at = 0; at < word.text.size();) {
        const size_t begin = at;
        const char32_t c = NextCodePoint(word.text, at);
        const Kind kind = IsWordCharacter(c) ? Kind::kWord : IsWhitespace(c) ? Kind::kSpace : Kind::kOther;
        if (kind != Kind::kSpace) {
          if (kind == previous) {
            segments.back().end = at;
          } else {
            segments.push_back({begin, at, true});
          }
        }
        previous = kind;
      }
      AppendSegments(word, segments, out);
    }
    words = std::move(out);
  }

 private:
  enum class Kind : uint8_t { kWord, kSpace, kOther };
};

class Metaspace final : public PreTokenizer {
 public:
  explicit Metaspace(MetaspaceOptions options) : options_(std::move(options)) {}

  void Apply(std::vector<Word>& words) const override {
    std::vector<Word> out;
    for (Word& word : words) {
      ReplaceSpaces(word.text);
      const bool wanted = options_.prepend_scheme == PrependScheme::kAlways ||
                          (options_.prepend_scheme == PrependScheme::kFirst && word.starts_text);
      if (wanted && !word.text.starts_with(options_.replacement)) word.text.insert(0, options_.replacement);
      if (options_.split) {
        SplitBeforeReplacements(word, out);
      } else {
        out.push_back(std::move(word));
      }
    }
    words = std::move(out);
  }

 private:
  void ReplaceSpaces(std::string& text) const {
    if (text.find(' ') == std::string::npos) return;
    std::string out;
    out.reserve(text.size() + text.size() / 2);
    for (const char c : text) {
      if (c == ' ') {
        out.append(options_.replacement);
      } else {
        out.push_back(c);
      }
    }
    text = std::move(out);
  }

  void SplitBeforeReplacements(const Word& word, std::vector<Word>& out) const {
    std::vector<TextRange> matches;
    const size_t size = options_.replacement.size();
    for (size_t at = word.text.find(options_.replacement); at != std::string::npos;
         at = word.text.find(options_.replacement, at + size)) {
      matches.push_back({at, at + size});
    }
    std::vector<Segment> segments = Segments(matches, word.text.size());
    ApplyBehavior(SplitBehavior::kMergedWithNext, segments);
    AppendSegments(word, segments, out);
  }

  const MetaspaceOptions options_;
};

class ByteLevel final : public PreTokenizer {
 public:
  ByteLevel(bool add_prefix_space, std::optional<Regex> pattern)
      : add_prefix_space_(add_prefix_space), pattern_(std::move(pattern)) {}

  void Apply(std::vector<Word>& words) const override {
    std::vector<Word> out;
    out.reserve(words.size());
    for (Word& word : words) {
      if (add_prefix_space_ && !word.text.starts_with(' ')) word.text.insert(0, " ");
      if (!pattern_) {
        out.push_back({BytesToAlphabet(word.text), word.starts_text});
        continue;
      }
      for (const Segment& segment : Segments(pattern_->FindAll(word.text), word.text.size())) {
        const std::string_view text = std::string_view(word.text).substr(segment.begin, segment.end - segment.begin);
        if (!text.empty()) out.push_back({BytesToAlphabet(text), word.starts_text && segment.begin == 0});
      }
    }
    words = std::move(out);
  }

 private:
  const bool add_prefix_space_;
  const std::optional<Regex> pattern_;
};

}  // namespace

PreTokenizerPtr MakePreTokenizerSequence(std::vector<PreTokenizerPtr> parts) {
  return std::make_unique<Sequence>(std::move(parts));
}

PreTokenizerPtr MakeSplitPreTokenizer(Regex pattern, SplitBehavior behavior, bool invert) {
  return std::make_unique<PatternSplit>(std::move(pattern), behavior, invert);
}

PreTokenizerPtr MakeCharacterPreTokenizer(bool (*is_delimiter)(char32_t), SplitBehavior behavior) {
  return std::make_unique<CharacterSplit>(is_delimiter, behavior);
}

PreTokenizerPtr MakeDelimiterPreTokenizer(char32_t delimiter) {
  return std::make_unique<CharacterSplit>([delimiter](char32_t c) { return c == delimiter; }, SplitBehavior::kRemoved);
}

PreTokenizerPtr MakeWhitespacePreTokenizer() { return std::make_unique<WhitespaceSplit>(); }

PreTokenizerPtr MakeMetaspacePreTokenizer(MetaspaceOptions options) {
  return std::make_unique<Metaspace>(std::move(options));
}

Result<PreTokenizerPtr> MakeByteLevelPreTokenizer(bool add_prefix_space, bool use_regex) {
  std::optional<Regex> pattern;
  if (use_regex) {
    PENSIEVE_TRY(pattern, Regex::Compile("'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|"
                                         "\\s+(?!\\S)|\\s+"));
  }
  return PreTokenizerPtr(std::make_unique<ByteLevel>(add_prefix_space, std::move(pattern)));
}

}  // namespace pensieve::tokenizer
