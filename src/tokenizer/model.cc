#include "tokenizer/model.h"

#include <array>

#include "base/utf8.h"

namespace pensieve::tokenizer {
namespace {

constexpr std::array<std::string_view, 3> kSpaces = {" ", "\xE2\x96\x81", "\xC4\xA0"};

// The last place in `text` where a space follows another character; npos: none.
size_t LastBreak(std::string_view text, std::string_view space) {
  for (size_t at = text.rfind(space); at != std::string_view::npos && at > 0; at = text.rfind(space, at - 1)) {
    if (at < space.size() || text.substr(at - space.size(), space.size()) != space) return at;
  }
  return std::string_view::npos;
}

}  // namespace

void Model::Tokenize(std::string_view word, std::vector<int32_t>& ids) const {
  while (word.size() > kWordBytesMax && takes_parts()) {
    const size_t end = PartEnd(word.substr(0, kWordBytesMax + 1));
    TokenizeWord(word.substr(0, end), ids);
    word.remove_prefix(end);
  }
  TokenizeWord(word, ids);
}

size_t Model::PartEnd(std::string_view word) const {
  if (BreaksAtSpaces()) {
    for (const std::string_view space : kSpaces) {
      const size_t at = LastBreak(word, space);
      // Parts stay long: there may be one space in front and none for megabytes.
      if (at != std::string_view::npos && at > word.size() / 2) return at;
    }
  }
  return PreviousCharacter(word, word.size());
}

bool Model::BreaksAtSpaces() const {
  std::call_once(looked_for_spaces_, [this] {
    breaks_at_spaces_ = true;
    for (int32_t id = 0; id < vocabulary_.size() && breaks_at_spaces_; ++id) {
      for (const std::string_view space : kSpaces) {
        if (LastBreak(vocabulary_.Text(id), space) != std::string_view::npos) breaks_at_spaces_ = false;
      }
    }
  });
  return breaks_at_spaces_;
}

}  // namespace pensieve::tokenizer
