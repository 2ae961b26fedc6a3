#include "tokenizer/added_tokens.h"

#include <algorithm>

#include "base/utf8.h"
#include "tokenizer/unicode.h"

namespace pensieve::tokenizer {
namespace {

// Start of the whitespace that ends at `end`, not before `floor`.
size_t WhitespaceBegin(std::string_view text, size_t end, size_t floor) {
  while (end > floor) {
    const size_t previous = PreviousCharacter(text, end);
    size_t at = previous;
    if (!IsWhitespace(NextCodePoint(text, at))) break;
    end = previous;
  }
  return end;
}

size_t WhitespaceEnd(std::string_view text, size_t begin) {
  while (begin < text.size()) {
    size_t next = begin;
    if (!IsWhitespace(NextCodePoint(text, next))) break;
    begin = next;
  }
  return begin;
}

bool StandsAlone(std::string_view text, size_t begin, size_t end) {
  if (begin > 0) {
    size_t at = PreviousCharacter(text, begin);
    if (IsWordCharacter(NextCodePoint(text, at))) return false;
  }
  return end == text.size() || !IsWordCharacter(NextCodePoint(text, end));
}

}  // namespace

AddedTokens::AddedTokens(std::vector<AddedToken> tokens, const std::function<std::string(std::string_view)>& normalize)
    : tokens_(std::move(tokens)) {
  for (size_t i = 0; i < tokens_.size(); ++i) {
    by_id_[tokens_[i].id] = i;
    by_content_[tokens_[i].content] = tokens_[i].id;
  }
  for (size_t i = 0; i < tokens_.size(); ++i) {
    AddedToken& token = tokens_[i];
    token.spelling = token.normalized ? normalize(token.content) : token.content;
    if (token.content.empty() || by_id_.at(token.id) != i || by_content_.at(token.content) != token.id) continue;
    ByteTrie& trie = token.normalized ? normalized_ : raw_;
    if (!token.spelling.empty()) trie.Insert(token.spelling, static_cast<int32_t>(i));
  }
  raw_.Finish();
  normalized_.Finish();
}

int32_t AddedTokens::FindId(std::string_view content) const {
  const auto found = by_content_.find(std::string(content));
  return found == by_content_.end() ? -1 : found->second;
}

AddedTokens::Match AddedTokens::MatchAt(std::string_view text, size_t at, const ByteTrie& trie, const Authors* authors,
                                        size_t span) const {
  Match match{-1, at, false};
  TextSource worst = TextSource::kTemplate;  // of the bytes so far
  size_t known = at;                         // where `worst` ends
  ByteTrie::Walk walk(trie);
  for (size_t end = at; end < text.size() && walk.Step(text[end]);) {
    ++end;
    if (walk.value() < 0) continue;
    const auto index = static_cast<size_t>(walk.value());
    if (authors != nullptr) {
      for (; known < end; ++span) {
        worst = std::max(worst, authors->spans[span].source);
        known = authors->spans[span].end;
      }
      if (worst > authors->limits.last_source[index]) {
        match.cut = match.cut || authors->limits.made_by_model[index];
        continue;
      }
    }
    match.index = walk.value();
    match.end = end;
  }
  return match;
}

std::vector<AddedTokens::Piece> AddedTokens::Split(std::string_view text, Pass pass, bool parse_special,
                                                   const Authors* authors) const {
  const ByteTrie& trie = pass == Pass::kRaw ? raw_ : normalized_;
  std::vector<Piece> pieces;
  size_t covered = 0;
  size_t span = 0;
  for (size_t at = 0; !trie.empty() && at < text.size();) {
    while (authors != nullptr && authors->spans[span].end <= at) ++span;
    const Match match = MatchAt(text, at, trie, authors, span);
    if (match.index < 0) {
      if (match.cut) {
        const size_t end = at + Utf8Length(text[at]);
        pieces.push_back({-1, covered, end});
        covered = end;
      }
      ++at;
      continue;
    }
    // A match that is refused below still hides what overlaps it, as in the package.
    size_t begin = at;
    size_t end = at = match.end;
    const AddedToken& token = tokens_[static_cast<size_t>(match.index)];
    if (token.special && !parse_special) continue;
    if (token.single_word && !StandsAlone(text, begin, end)) continue;
    // The token before may have taken this one as whitespace: with lstrip nothing is left of it, without it counts.
    if (token.lstrip) begin = std::max(WhitespaceBegin(text, begin, std::min(covered, begin)), covered);
    if (token.rstrip) end = WhitespaceEnd(text, end);
    if (covered < begin) pieces.push_back({-1, covered, begin});
    if (begin < end) pieces.push_back({token.id, begin, end});
    covered = end;
  }
  if (covered < text.size()) pieces.push_back({-1, covered, text.size()});
  return pieces;
}

}  // namespace pensieve::tokenizer
