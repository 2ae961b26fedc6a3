#include "tokenizer/normalizer.h"

#include "base/utf8.h"
#include "tokenizer/byte_level.h"

namespace pensieve::tokenizer {
namespace {

class Sequence final : public Normalizer {
 public:
  explicit Sequence(std::vector<NormalizerPtr> parts) : parts_(std::move(parts)) {}
  void Apply(NormalizedText& piece) const override {
    for (const NormalizerPtr& part : parts_) part->Apply(piece);
  }

 private:
  const std::vector<NormalizerPtr> parts_;
};

class UnicodeForm final : public Normalizer {
 public:
  explicit UnicodeForm(NormalForm form) : form_(form) {}
  void Apply(NormalizedText& piece) const override { piece.text = Normalize(piece.text, form_); }

 private:
  const NormalForm form_;
};

class LowercaseAll final : public Normalizer {
 public:
  void Apply(NormalizedText& piece) const override { piece.text = Lowercase(piece.text); }
};

class Strip final : public Normalizer {
 public:
  Strip(bool left, bool right) : left_(left), right_(right) {}
  void Apply(NormalizedText& piece) const override {
    const std::string_view text = piece.text;
    size_t begin = 0;
    while (left_ && begin < text.size()) {
      size_t next = begin;
      if (!IsWhitespace(NextCodePoint(text, next))) break;
      begin = next;
    }
    size_t end = text.size();
    while (right_ && end > begin) {
      const size_t previous = PreviousCharacter(text, end);
      size_t at = previous;
      if (!IsWhitespace(NextCodePoint(text, at))) break;
      end = previous;
    }
    if (begin > 0) piece.keeps_start = false;
    piece.text = piece.text.substr(begin, end - begin);
  }

 private:
  const bool left_;
  const bool right_;
};

// Drops the characters for which `Drop` says so.
template <bool (*Drop)(char32_t)>
void Filter(NormalizedText& piece) {
  std::string kept;
  kept.reserve(piece.text.size());
  for (size_t at = 0; at < piece.text.size();) {
    const size_t begin = at;
    if (!Drop(NextCodePoint(piece.text, at))) {
      kept.append(piece.text, begin, at - begin);
    } else if (begin == 0) {
      piece.keeps_start = false;
    }
  }
  piece.text = std::move(kept);
}

class StripAccents final : public Normalizer {
 public:
  void Apply(NormalizedText& piece) const override { Filter<IsMark>(piece); }
};

class Prepend final : public Normalizer {
 public:
  explicit Prepend(std::string prefix) : prefix_(std::move(prefix)) {}
  void Apply(NormalizedText& piece) const override {
    if (!piece.text.empty()) piece.text.insert(0, prefix_);
  }

 private:
  const std::string prefix_;
};

class Replace final : public Normalizer {
 public:
  Replace(Regex pattern, std::string content) : pattern_(std::move(pattern)), content_(std::move(content)) {}
  void Apply(NormalizedText& piece) const override { piece.text = ReplaceAll(pattern_, piece.text, content_); }

 private:
  const Regex pattern_;
  const std::string content_;
};

class Bert final : public Normalizer {
 public:
  explicit Bert(const BertNormalizerOptions& options) : options_(options) {}

  void Apply(NormalizedText& piece) const override {
    if (options_.clean_text) {
      Filter<IsBertControl>(piece);
      MapWhitespace(piece.text);
    }
    if (options_.handle_chinese_chars) SurroundChinese(piece.text);
    if (options_.strip_accents) {
      piece.text = Normalize(piece.text, NormalForm::kNfd);
      Filter<IsNonspacingMark>(piece);
    }
    if (options_.lowercase) piece.text = Lowercase(piece.text);
  }

 private:
  static void MapWhitespace(std::string& text) {
    std::string out;
    out.reserve(text.size());
    for (size_t at = 0; at < text.size();) {
      const size_t begin = at;
      if (IsWhitespace(NextCodePoint(text, at))) {
        out.push_back(' ');
      } else {
        out.append(text, begin, at - begin);
      }
    }
    text = std::move(out);
  }

  static void SurroundChinese(std::string& text) {
    std::string out;
    for (size_t at = 0; at < text.size();) {
      const size_t begin = at;
      const bool chinese = IsChineseCharacter(NextCodePoint(text, at));
      if (chinese) out.push_back(' ');
      out.append(text, begin, at - begin);
      if (chinese) out.push_back(' ');
    }
    text = std::move(out);
  }

  const BertNormalizerOptions options_;
};

class ByteLevelForm final : public Normalizer {
 public:
  void Apply(NormalizedText& piece) const override { piece.text = BytesToAlphabet(piece.text); }
};

}  // namespace

NormalizerPtr MakeNormalizerSequence(std::vector<NormalizerPtr> parts) {
  return std::make_unique<Sequence>(std::move(parts));
}
NormalizerPtr MakeUnicodeNormalizer(NormalForm form) { return std::make_unique<UnicodeForm>(form); }
NormalizerPtr MakeLowercaseNormalizer() { return std::make_unique<LowercaseAll>(); }
NormalizerPtr MakeStripNormalizer(bool left, bool right) { return std::make_unique<Strip>(left, right); }
NormalizerPtr MakeStripAccentsNormalizer() { return std::make_unique<StripAccents>(); }
NormalizerPtr MakePrependNormalizer(std::string prefix) { return std::make_unique<Prepend>(std::move(prefix)); }
NormalizerPtr MakeReplaceNormalizer(Regex pattern, std::string content) {
  return std::make_unique<Replace>(std::move(pattern), std::move(content));
}
NormalizerPtr MakeBertNormalizer(const BertNormalizerOptions& options) { return std::make_unique<Bert>(options); }
NormalizerPtr MakeByteLevelNormalizer() { return std::make_unique<ByteLevelForm>(); }

std::string ReplaceAll(const Regex& pattern, std::string_view text, std::string_view content) {
  std::string out;
  size_t copied = 0;
  for (const TextRange& match : pattern.FindAll(text)) {
    out.append(text.substr(copied, match.begin - copied));
    out.append(content);
    copied = match.end;
  }
  out.append(text.substr(copied));
  return out;
}

}  // namespace pensieve::tokenizer
