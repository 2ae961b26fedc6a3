#include "tokenizer/pre_tokenizer.h"

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

// Cuts one word into segments. It is fed the matches in order, and the gaps between them are segments, too.
class Cutter {
 public:
  Cutter(const Word& word, SplitBehavior behavior, bool invert, const WordSink& sink)
      : word_(word), behavior_(behavior), invert_(invert), sink_(sink) {}

  void AddMatch(TextRange match) {
    if (covered_ < match.begin) Add({covered_, match.begin, invert_});
    Add({match.begin, match.end, !invert_});
    covered_ = match.end;
  }

  void Finish() {
    if (covered_ < word_.text.size()) Add({covered_, word_.text.size(), invert_});
    if (held_) Give(*held_);
  }

 private:
  void Add(Segment segment) {
    switch (behavior_) {
      case SplitBehavior::kIsolated: Give(segment); return;
      case SplitBehavior::kRemoved:
        if (!segment.is_match) Give(segment);
        return;
      // A match joins the segment before it, unless that ends with a match.
      case SplitBehavior::kMergedWithPrevious: Hold(segment, segment.is_match && !last_is_match_); return;
      // A match joins the segment behind it, unless that is a match.
      case SplitBehavior::kMergedWithNext: Hold(segment, last_is_match_ && !segment.is_match); return;
      case SplitBehavior::kContiguous: Hold(segment, segment.is_match == last_is_match_); return;
    }
  }

  // Keeps the segment back, joined to the one that was kept or in its place.
  void Hold(Segment segment, bool joins) {
    if (held_ && joins) {
      held_->end = segment.end;
    } else {
      if (held_) Give(*held_);
      held_ = segment;
    }
    last_is_match_ = segment.is_match;
  }

  void Give(Segment segment) {
    if (segment.begin == segment.end) return;
    sink_({word_.text.substr(segment.begin, segment.end - segment.begin), word_.starts_text && segment.begin == 0});
  }

  const Word& word_;
  const SplitBehavior behavior_;
  const bool invert_;
  const WordSink& sink_;
  size_t covered_ = 0;
  std::optional<Segment> held_;
  bool last_is_match_ = false;
};

class Sequence final : public PreTokenizer {
 public:
  explicit Sequence(std::vector<PreTokenizerPtr> parts) : parts_(std::move(parts)) {}
  void Split(Word word, const WordSink& sink) const override { SplitFrom(0, std::move(word), sink); }

 private:
  void SplitFrom(size_t part, Word word, const WordSink& sink) const {
    if (part == parts_.size()) return sink(std::move(word));
    parts_[part]->Split(std::move(word), [&](Word piece) { SplitFrom(part + 1, std::move(piece), sink); });
  }

  const std::vector<PreTokenizerPtr> parts_;
};

class PatternSplit final : public PreTokenizer {
 public:
  PatternSplit(Regex pattern, SplitBehavior behavior, bool invert)
      : pattern_(std::move(pattern)), behavior_(behavior), invert_(invert) {}

  void Split(Word word, const WordSink& sink) const override {
    Cutter cutter(word, behavior_, invert_, sink);
    pattern_.ForEachMatch(word.text, [&](TextRange match) { cutter.AddMatch(match); });
    cutter.Finish();
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

  void Split(Word word, const WordSink& sink) const override {
    Cutter cutter(word, behavior_, /*invert=*/false, sink);
    for (size_t at = 0; at < word.text.size();) {
      const size_t begin = at;
      if (is_delimiter_(NextCodePoint(word.text, at))) cutter.AddMatch({begin, at});
    }
    cutter.Finish();
  }

 private:
  const std::function<bool(char32_t)> is_delimiter_;
  const SplitBehavior behavior_;
};

class WhitespaceSplit final : public PreTokenizer {
 public:
  void Split(Word word, const WordSink& sink) const override {
    TextRange run;
    Kind kind_of_run = Kind::kSpace;
    const auto give_run = [&] {
      if (kind_of_run == Kind::kSpace) return;
      sink({word.text.substr(run.begin, run.end - run.begin), word.starts_text && run.begin == 0});
    };
    for (size_t at = 0; at < word.text.size();) {
      const size_t begin = at;
      const char32_t c = NextCodePoint(word.text, at);
      const Kind kind = IsWordCharacter(c) ? Kind::kWord : IsWhitespace(c) ? Kind::kSpace : Kind::kOther;
      if (kind != kind_of_run) {
        give_run();
        run.begin = begin;
        kind_of_run = kind;
      }
      run.end = at;
    }
    give_run();
  }

 private:
  enum class Kind : uint8_t { kWord, kSpace, kOther };
};

class Metaspace final : public PreTokenizer {
 public:
  explicit Metaspace(MetaspaceOptions options) : options_(std::move(options)) {}

  void Split(Word word, const WordSink& sink) const override {
    ReplaceSpaces(word.text);
    const bool wanted = options_.prepend_scheme == PrependScheme::kAlways ||
                        (options_.prepend_scheme == PrependScheme::kFirst && word.starts_text);
    if (wanted && !word.text.starts_with(options_.replacement)) word.text.insert(0, options_.replacement);
    if (!options_.split) return sink(std::move(word));
    Cutter cutter(word, SplitBehavior::kMergedWithNext, /*invert=*/false, sink);
    const size_t size = options_.replacement.size();
    for (size_t at = word.text.find(options_.replacement); at != std::string::npos;
         at = word.text.find(options_.replacement, at + size)) {
      cutter.AddMatch({at, at + size});
    }
    cutter.Finish();
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

  const MetaspaceOptions options_;
};

class ByteLevel final : public PreTokenizer {
 public:
  ByteLevel(bool add_prefix_space, std::optional<Regex> pattern)
      : add_prefix_space_(add_prefix_space), pattern_(std::move(pattern)) {}

  void Split(Word word, const WordSink& sink) const override {
    if (add_prefix_space_ && !word.text.starts_with(' ')) word.text.insert(0, " ");
    const WordSink give = [&](Word piece) { sink({BytesToAlphabet(piece.text), piece.starts_text}); };
    if (!pattern_) return give(std::move(word));
    Cutter cutter(word, SplitBehavior::kIsolated, /*invert=*/false, give);
    pattern_->ForEachMatch(word.text, [&](TextRange match) { cutter.AddMatch(match); });
    cutter.Finish();
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
