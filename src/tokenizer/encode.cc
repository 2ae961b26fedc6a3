#include "tokenizer/encode.h"

#include <algorithm>
#include <optional>
#include <string>
#include <utility>

#include "base/utf8.h"
#include "tokenizer/tokenizer.h"

namespace pensieve::tokenizer {
namespace {

// More marks than this within one text between added tokens are not placed: each costs a second look at what is before.
constexpr size_t kMarksPerPieceMax = 16;

// The spans of the bytes [begin, end), counted from `begin`. `first` is a span that does not lie behind `begin`, and moves on.
std::vector<TextSpan> SpansWithin(std::span<const TextSpan> spans, size_t begin, size_t end, size_t& first) {
  while (first < spans.size() && spans[first].end <= begin) ++first;
  std::vector<TextSpan> within;
  for (size_t i = first; i < spans.size(); ++i) {
    within.push_back({std::min(spans[i].end, end) - begin, spans[i].source});
    if (spans[i].end >= end) break;
  }
  return within;
}

// A copy that is valid UTF-8, with spans and marks at the same places.
struct Repaired {
  std::string text;
  std::vector<TextSpan> spans;
  std::vector<size_t> marks;
};

Repaired Repair(const AuthoredText& input) {
  Repaired out;
  size_t done = 0;
  size_t mark = 0;
  const auto advance = [&](size_t to) {
    out.text += ToValidUtf8(input.text.substr(done, to - done));
    done = to;
  };
  for (const TextSpan& span : input.spans) {
    for (; mark < input.marks.size() && input.marks[mark] <= span.end; ++mark) {
      advance(input.marks[mark]);
      out.marks.push_back(out.text.size());
    }
    advance(span.end);
    out.spans.push_back({out.text.size(), span.source});
  }
  return out;
}

class AuthoredEncoder {
 public:
  AuthoredEncoder(const TokenizerParts& parts, const AuthoredText& input, const TokenLimits& limits)
      : parts_(parts), input_(input), limits_(limits) {}

  AuthoredIds Run() {
    const Authors authors{limits_, input_.spans};
    for (const auto& piece : parts_.added.Split(input_.text, AddedTokens::Pass::kRaw, true, &authors)) {
      Place(piece.begin, out_.ids.size());
      if (piece.id >= 0) {
        out_.ids.push_back(piece.id);
      } else {
        Text(piece.begin, piece.end);
      }
      Place(piece.end, out_.ids.size());
    }
    Place(input_.text.size(), out_.ids.size());
    return std::move(out_);
  }

 private:
  // Marks up to `position` that are not placed yet stand behind `count` tokens.
  void Place(size_t position, size_t count) {
    while (out_.marks.size() < input_.marks.size() && input_.marks[out_.marks.size()] <= position) {
      out_.marks.push_back(static_cast<int64_t>(count));
    }
  }

  void Encode(size_t begin, size_t end, const std::vector<TextSpan>& spans, std::vector<int32_t>& ids) const {
    NormalizedText part{std::string(input_.text.substr(begin, end - begin)), input_.starts_text && begin == 0, {}};
    const Authors authors{limits_, spans};
    EncodePiece(parts_, std::move(part), true, limits_.of_normalized ? &authors : nullptr, ids);
  }

  void Text(size_t begin, size_t end) {
    const std::vector<TextSpan> spans = SpansWithin(input_.spans, begin, end, span_);
    const size_t first = out_.ids.size();
    Encode(begin, end, spans, out_.ids);
    // A mark inside: as many tokens are before it as the text before it has in common with the whole.
    for (size_t placed = 0; out_.marks.size() < input_.marks.size(); ++placed) {
      const size_t mark = input_.marks[out_.marks.size()];
      if (mark >= end) break;
      if (placed == kMarksPerPieceMax) {
        while (out_.marks.size() < input_.marks.size() && input_.marks[out_.marks.size()] < end)
          out_.marks.push_back(-1);
        break;
      }
      std::vector<int32_t> before;
      size_t from = 0;
      Encode(begin, mark, SpansWithin(spans, 0, mark - begin, from), before);
      const auto whole = out_.ids.begin() + static_cast<std::ptrdiff_t>(first);
      const auto [same, unused] = std::mismatch(before.begin(), before.end(), whole, out_.ids.end());
      out_.marks.push_back(static_cast<int64_t>(first) + (same - before.begin()));
    }
  }

  const TokenizerParts& parts_;
  const AuthoredText& input_;
  const TokenLimits& limits_;
  size_t span_ = 0;
  AuthoredIds out_;
};

// Whether the model makes the token of its spelling too, when no added tokens are looked for: alone, or behind a letter
// or a line.
bool MadeByModel(const TokenizerParts& parts, const AddedToken& token) {
  std::vector<int32_t> ids;
  for (const char* before : {"", "x", "\n"}) {
    EncodeText(parts, NormalizePiece(parts.normalizer.get(), before + token.content), false, ids);
  }
  const int32_t plain = parts.model->vocabulary().Find(token.content);
  return std::ranges::any_of(ids, [&](int32_t id) { return id == token.id || (id == plain && plain >= 0); });
}

}  // namespace

void EncodeText(const TokenizerParts& parts, std::string_view text, bool starts_text, std::vector<int32_t>& ids) {
  Word whole{std::string(text), starts_text};
  if (parts.pre_tokenizer == nullptr) return parts.model->Tokenize(whole.text, ids);
  parts.pre_tokenizer->Split(std::move(whole), [&](const Word& word) { parts.model->Tokenize(word.text, ids); });
}

void EncodePiece(const TokenizerParts& parts, NormalizedText piece, bool parse_special, const Authors* authors,
                 std::vector<int32_t>& ids) {
  if (authors != nullptr) {
    for (const TextSpan& span : authors->spans) piece.borders.push_back(span.end);
  }
  if (parts.normalizer != nullptr) parts.normalizer->Apply(piece);
  std::vector<TextSpan> spans;
  if (authors != nullptr) {
    for (size_t i = 0; i < piece.borders.size(); ++i) spans.push_back({piece.borders[i], authors->spans[i].source});
    // What a normalizer adds at the end has the last author.
    if (!spans.empty()) spans.back().end = piece.text.size();
  }
  const std::string_view text = piece.text;
  std::optional<Authors> normalized;
  if (authors != nullptr) normalized.emplace(Authors{authors->limits, spans});
  for (const auto& part :
       parts.added.Split(text, AddedTokens::Pass::kNormalized, parse_special, normalized ? &*normalized : nullptr)) {
    if (part.id >= 0) {
      ids.push_back(part.id);
    } else {
      EncodeText(parts, text.substr(part.begin, part.end - part.begin), piece.keeps_start && part.begin == 0, ids);
    }
  }
}

std::shared_ptr<const TokenLimits> Tokenizer::Limit(std::string_view turn_borders, std::string_view template_source,
                                                    std::span<const int32_t> stop_ids) const {
  auto limits = std::make_shared<TokenLimits>();
  const std::vector<AddedToken>& tokens = parts_->added.tokens();
  limits->last_source.assign(tokens.size(), TextSource::kRequest);
  limits->made_by_model.assign(tokens.size(), false);
  const auto found_in = [&](std::string_view text) {
    std::unordered_set<int32_t> ids;
    for (const auto pass : {AddedTokens::Pass::kRaw, AddedTokens::Pass::kNormalized}) {
      for (const auto& piece : parts_->added.Split(text, pass, true)) ids.insert(piece.id);
    }
    return ids;
  };
  const auto borders = found_in(turn_borders);
  const auto named = found_in(template_source);
  for (size_t i = 0; i < tokens.size(); ++i) {
    const AddedToken& token = tokens[i];
    const bool blank = token.content.find_first_not_of(" \t\r\n") == std::string::npos;
    const bool ends = std::ranges::find(stop_ids, token.id) != stop_ids.end() ||
                      std::ranges::binary_search(parts_->special.eog_ids, token.id);
    if (token.special || ends || (borders.contains(token.id) && !blank)) {
      limits->last_source[i] = TextSource::kTemplate;
      limits->template_ids.push_back(token.id);
    } else if (named.contains(token.id) && !blank) {
      limits->last_source[i] = TextSource::kAnswer;
    } else {
      continue;
    }
    limits->made_by_model[i] = MadeByModel(*parts_, token);
    limits->of_normalized = limits->of_normalized || token.normalized;
  }
  std::ranges::sort(limits->template_ids);
  return limits;
}

AuthoredIds Tokenizer::EncodeAuthored(const AuthoredText& input, const TokenLimits& limits) const {
  if (IsValidUtf8(input.text)) return AuthoredEncoder(*parts_, input, limits).Run();
  const Repaired repaired = Repair(input);
  return AuthoredEncoder(*parts_, {repaired.text, repaired.spans, repaired.marks, input.starts_text}, limits).Run();
}

}  // namespace pensieve::tokenizer
