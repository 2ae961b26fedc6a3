// Vocabularies and questions for tests of constraints.
#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "sampling/constraint.h"

namespace pensieve::sampling {

// All single bytes, then `merged`, then `special`. The id of a byte is its value.
inline std::shared_ptr<TokenMasks> MakeVocabulary(const std::vector<std::string>& merged = {},
                                                  const std::vector<std::string>& special = {}) {
  std::vector<TokenBytes> tokens;
  for (int byte = 0; byte < 256; ++byte) tokens.push_back({std::string(1, static_cast<char>(byte))});
  for (const std::string& text : merged) tokens.push_back({text});
  for (const std::string& name : special) tokens.push_back({name, true});
  return std::make_shared<TokenMasks>(std::make_shared<const TokenTrie>(tokens));
}

// Ids of the longest tokens from the left.
inline std::vector<int32_t> Segment(const TokenTrie& trie, std::string_view text) {
  std::vector<int32_t> ids;
  while (!text.empty()) {
    int32_t best = -1;
    for (int32_t id = 0; id < trie.size(); ++id) {
      const std::string_view bytes = trie.Bytes(id);
      if (bytes.empty() || !text.starts_with(bytes)) continue;
      if (best < 0 || bytes.size() > trie.Bytes(best).size()) best = id;
    }
    if (best < 0) return {};
    ids.push_back(best);
    text.remove_prefix(trie.Bytes(best).size());
  }
  return ids;
}

// Whether every token of `text` is in the mask and is accepted, and the text may end behind them.
inline bool Takes(Constraint& constraint, const TokenTrie& trie, std::string_view text) {
  TokenSet mask(trie.size());
  for (const int32_t id : Segment(trie, text)) {
    constraint.FillMask(mask);
    if (mask.Has(id) != constraint.Accept(id)) return false;
    if (!mask.Has(id)) return false;
  }
  return constraint.accepting();
}

// The first token that the mask and Accept do not agree about, or -1.
inline int32_t FirstDisagreement(Constraint& constraint, const TokenTrie& trie) {
  TokenSet mask(trie.size());
  constraint.FillMask(mask);
  for (int32_t id = 0; id < trie.size(); ++id) {
    const bool accepted = constraint.Accept(id);
    if (accepted) constraint.Rollback(1);
    if (accepted != mask.Has(id)) return id;
  }
  return -1;
}

}  // namespace pensieve::sampling
