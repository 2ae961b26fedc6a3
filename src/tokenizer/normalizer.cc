#include "tokenizer/normalizer.h"

#include <algorithm>

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

// Normalizes between borders. Characters below U+0300 never join with what stands before them, so it is safe to cut
// there, and a border that stands elsewhere moves on to the next such place.
void ApplyNormalForm(NormalizedText& piece, NormalForm form) {
  const std::string_view text = piece.text;
  std::string out;
  size_t done = 0;
  for (size_t& border : piece.borders) {
    size_t cut = std::max(border, done);
    while (cut < text.size()) {
      size_t next = cut;
      if (NextCodePoint(text, next) < 0x300) break;
      cut = next;
    }
    if (cut > done) out.append(Normalize(text.substr(done, cut - done), form));
    done = cut;
    border = out.size();
  }
  out.append(Normalize(text.substr(done), form));
  piece.text = std::move(out);
}

class UnicodeForm final : public Normalizer {
 public:
  explicit UnicodeForm(NormalForm form) : form_(form) {}
  void Apply(NormalizedText& piece) const override { ApplyNormalForm(piece, form_); }

 private:
  const NormalForm form_;
};

void ApplyLowercase(NormalizedText& piece) {
  std::string out;
  out.reserve(piece.text.size());
  BorderMover borders(piece);
  for (size_t at = 0; at < piece.text.size();) {
    borders.Reached(at, out.size());
    AppendLowercase(NextCodePoint(piece.text, at), out);
  }
  borders.Reached(piece.text.size(), out.size());
  piece.text = std::move(out);
}

class LowercaseAll final : public Normalizer {
 public:
  void Apply(NormalizedText& piece) const override { ApplyLowercase(piece); }
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
    for (size_t& border : piece.borders) border = std::clamp(border, begin, end) - begin;
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
  BorderMover borders(piece);
  for (size_t at = 0; at < piece.text.size();) {
    const size_t begin = at;
    borders.Reached(begin, kept.size());
    if (!Drop(NextCodePoint(piece.text, at))) {
      kept.append(piece.text, begin, at - begin);
    } else if (begin == 0) {
      piece.keeps_start = false;
    }
  }
  borders.Reached(piece.text.size(), kept.size());
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
    if (piece.text.empty()) return;
    piece.text.insert(0, prefix_);
    for (size_t& border : piece.borders) border += border > 0 ? prefix_.size() : 0;
  }

 private:
  const std::string prefix_;
};

class Replace final : public Normalizer {
 public:
  Replace(Regex pattern, std::string content) : pattern_(std::move(pattern)), content_(std::move(content)) {}
  void Apply(NormalizedText& piece) const override {
    BorderMover borders(piece);
    piece.text = ReplaceAll(pattern_, piece.text, content_, &borders);
  }

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
      MapWhitespace(piece);
    }
    if (options_.handle_chinese_chars) SurroundChinese(piece);
    if (options_.strip_accents) {
      ApplyNormalForm(piece, NormalForm::kNfd);
      Filter<IsNonspacingMark>(piece);
    }
    if (options_.lowercase) ApplyLowercase(piece);
  }

 private:
  static void MapWhitespace(NormalizedText& piece) {
    std::string& text = piece.text;
    std::string out;
    out.reserve(text.size());
    BorderMover borders(piece);
    for (size_t at = 0; at < text.size();) {
      const size_t begin = at;
      borders.Reached(begin, out.size());
      if (IsWhitespace(NextCodePoint(text, at))) {
        out.push_back(' ');
      } else {
        out.append(text, begin, at - begin);
      }
    }
    borders.Reached(text.size(), out.size());
    text = std::move(out);
  }

  static void SurroundChinese(NormalizedText& piece) {
    std::string& text = piece.text;
    std::string out;
    BorderMover borders(piece);
    for (size_t at = 0; at < text.size();) {
      const size_t begin = at;
      borders.Reached(begin, out.size());
      const bool chinese = IsChineseCharacter(NextCodePoint(text, at));
      if (chinese) out.push_back(' ');
      out.append(text, begin, at - begin);
      if (chinese) out.push_back(' ');
    }
    borders.Reached(text.size(), out.size());
    text = std::move(out);
  }

  const BertNormalizerOptions options_;
};

class ByteLevelForm final : public Normalizer {
 public:
  void Apply(NormalizedText& piece) const override {
    const std::string text = std::move(piece.text);
    std::string out;
    size_t done = 0;
    for (size_t& border : piece.borders) {
      out.append(BytesToAlphabet(std::string_view(text).substr(done, border - done)));
      done = border;
      border = out.size();
    }
    out.append(BytesToAlphabet(std::string_view(text).substr(done)));
    piece.text = std::move(out);
  }
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

std::string ReplaceAll(const Regex& pattern, std::string_view text, std::string_view content, BorderMover* borders) {
  std::string out;
  size_t copied = 0;
  for (const TextRange& match : pattern.FindAll(text)) {
    if (borders != nullptr) borders->ReachedAll(copied, match.begin, out.size());
    out.append(text.substr(copied, match.begin - copied));
    out.append(content);
    copied = match.end;
  }
  if (borders != nullptr) borders->ReachedAll(copied, text.size(), out.size());
  out.append(text.substr(copied));
  return out;
}

}  // namespace pensieve::tokenizer
