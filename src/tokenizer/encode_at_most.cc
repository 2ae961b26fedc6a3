// The first tokens of a long text without tokenizing all of it.
//
// A text may end in front of a space that follows a letter, without changing what the text before it becomes: normalizers
// change neither of the two by the other, pre-tokenizers split there or keep the letter with what is before it, and a
// model's tokens do not stand across (Model::BreaksAtSpaces). Not so when an added token has such a place inside.
#include <algorithm>

#include "tokenizer/tokenizer.h"
#include "tokenizer/tokenizer_parts.h"

namespace pensieve::tokenizer {
namespace {

// Bytes to begin with for each token wanted: twice what a token of English or code has.
constexpr size_t kBytesPerToken = 8;
// Tokens beyond those wanted, so that none of them stands near the cut.
constexpr size_t kMarginTokens = 64;

bool IsLetter(char c) { return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z'); }

// The first place in [from, end), from > 0, where a space follows a letter; npos: none.
size_t FindCut(std::string_view text, size_t from, size_t end) {
  for (size_t at = text.find(' ', from); at < end; at = text.find(' ', at + 1)) {
    if (IsLetter(text[at - 1])) return at;
  }
  return std::string_view::npos;
}

bool HasCut(std::string_view text) { return FindCut(text, 1, text.size()) != std::string_view::npos; }

bool MayBeCut(const TokenizerParts& parts) {
  const auto has_cut = [](const AddedToken& token) { return HasCut(token.content) || HasCut(token.spelling); };
  const auto& added = parts.added.tokens();
  return parts.model->BreaksAtSpaces() && std::none_of(added.begin(), added.end(), has_cut);
}

}  // namespace

std::vector<int32_t> Tokenizer::EncodeAtMost(std::string_view text, int64_t tokens_max,
                                             const EncodeOptions& options) const {
  const size_t enough = static_cast<size_t>(std::max<int64_t>(tokens_max, 0)) + kMarginTokens +
                        parts_->prefix_ids.size() + parts_->suffix_ids.size();
  if (text.size() / kBytesPerToken <= enough || !MayBeCut(*parts_)) return Encode(text, options);
  for (size_t bytes = enough * kBytesPerToken; bytes < text.size(); bytes *= 4) {
    const size_t cut = FindCut(text, bytes, 2 * bytes);
    if (cut == std::string_view::npos) break;
    std::vector<int32_t> ids = Encode(text.substr(0, cut), options);
    if (ids.size() >= enough) return ids;
  }
  return Encode(text, options);
}

}  // namespace pensieve::tokenizer
