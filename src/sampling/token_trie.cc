#include "sampling/token_trie.h"

#include <algorithm>

namespace pensieve::sampling {

TokenTrie::TokenTrie(const std::vector<TokenBytes>& tokens) {
  spans_.resize(tokens.size());
  next_same_.assign(tokens.size(), -1);
  std::vector<int32_t> order;
  for (size_t id = 0; id < tokens.size(); ++id) {
    const TokenBytes& token = tokens[id];
    const size_t marks = token.special ? 2 : 0;
    if (token.bytes.empty() || token.bytes.size() + marks > kBytesMax) continue;
    if (token.bytes.find_first_of("\xFE\xFF") != std::string::npos) continue;
    spans_[id] = {static_cast<int64_t>(bytes_.size()), static_cast<int64_t>(token.bytes.size() + marks)};
    if (token.special) bytes_ += kSpecialBegin;
    bytes_ += token.bytes;
    if (token.special) bytes_ += kSpecialEnd;
    longest_bytes_ = std::max(longest_bytes_, token.bytes.size() + marks);
    order.push_back(static_cast<int32_t>(id));
  }
  std::stable_sort(order.begin(), order.end(), [this](int32_t a, int32_t b) { return Bytes(a) < Bytes(b); });

  nodes_.push_back({});
  std::vector<size_t> path{0};  // the nodes from the root to the last one
  std::string_view before;
  for (const int32_t id : order) {
    const std::string_view bytes = Bytes(id);
    const auto differ = std::mismatch(before.begin(), before.end(), bytes.begin(), bytes.end());
    const auto common = static_cast<size_t>(differ.second - bytes.begin());
    for (; path.size() > common + 1; path.pop_back()) nodes_[path.back()].end = static_cast<int32_t>(nodes_.size());
    for (size_t depth = common; depth < bytes.size(); ++depth) {
      path.push_back(nodes_.size());
      nodes_.push_back({static_cast<uint8_t>(bytes[depth]), static_cast<uint8_t>(depth + 1), -1, 0});
    }
    // Equal bytes: ids ascend, the newest goes to the front.
    Node& node = nodes_[path.back()];
    next_same_[static_cast<size_t>(id)] = node.token;
    node.token = id;
    before = bytes;
  }
  for (const size_t node : path) nodes_[node].end = static_cast<int32_t>(nodes_.size());
}

std::string_view TokenTrie::Bytes(int32_t token) const {
  if (token < 0 || token >= size()) return {};
  const Span& span = spans_[static_cast<size_t>(token)];
  return std::string_view(bytes_).substr(static_cast<size_t>(span.begin), static_cast<size_t>(span.size));
}

}  // namespace pensieve::sampling
