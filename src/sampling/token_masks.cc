#include "sampling/token_masks.h"

#include <array>

namespace pensieve::sampling {
namespace {

// A walk over the trie in preorder, with the automaton's state at each depth of the path. States whose edges are used
// often get a table of all bytes.
class Walker {
 public:
  Walker(const TokenTrie& trie, const Dfa& dfa, const std::function<bool(int32_t)>& is_live, StateMask& mask)
      : trie_(trie),
        dfa_(dfa),
        is_live_(is_live),
        mask_(mask),
        counts_(dfa.counting_state() != Dfa::kDead),
        conditional_(counts_ || dfa.has_labels()) {}

  void Run(int32_t state) {
    const auto nodes = trie_.nodes();
    states_[0] = state;
    units_[0] = 0;
    for (size_t at = 1; at < nodes.size();) {
      const TokenTrie::Node& node = nodes[at];
      const size_t depth = node.depth;
      const int32_t from = states_[depth - 1];
      const int32_t to = Next(from, node.byte);
      if (to == Dfa::kDead) {
        at = static_cast<size_t>(node.end);
        continue;
      }
      states_[depth] = to;
      units_[depth] = units_[depth - 1] + (to == dfa_.counting_state() ? 1 : 0);
      Visit(static_cast<int32_t>(at), node, to, units_[depth]);
      ++at;
    }
  }

 private:
  struct Row {
    std::array<int32_t, 256> to;
  };

  int32_t Next(int32_t state, uint8_t byte) {
    if (state != row_state_) {
      auto& row = rows_[state];
      if (row == nullptr) row = MakeRow(state);
      row_ = row.get();
      row_state_ = state;
    }
    return row_->to[byte];
  }

  std::unique_ptr<Row> MakeRow(int32_t state) const {
    auto row = std::make_unique<Row>();
    row->to.fill(Dfa::kDead);
    for (const Dfa::Edge& edge : dfa_.Edges(state)) {
      if (!is_live_(edge.to)) continue;
      for (int byte = edge.first; byte <= edge.last; ++byte) row->to[static_cast<size_t>(byte)] = edge.to;
    }
    return row;
  }

  void Visit(int32_t at, const TokenTrie::Node& node, int32_t state, int32_t units) {
    const bool accepts = dfa_.Accepts(state);
    if (accepts && node.end > at + 1) mask_.exits.push_back({at, units, dfa_.label(state)});
    for (int32_t token = node.token; token >= 0; token = trie_.NextSame(token)) {
      if (accepts && conditional_) mask_.ends.push_back({token, units, dfa_.label(state)});
      const bool goes_on = !dfa_.Edges(state).empty();
      if (accepts && conditional_ && !goes_on) continue;
      mask_.inside.Add(token);
      if (counts_) AddByUnits(token, units + (state == dfa_.counting_state() ? 0 : 1));
    }
  }

  void AddByUnits(int32_t token, int32_t units) {
    const auto at = static_cast<size_t>(units);
    if (mask_.inside_by_units.size() <= at) mask_.inside_by_units.resize(at + 1);
    mask_.inside_by_units[at].push_back(token);
  }

  const TokenTrie& trie_;
  const Dfa& dfa_;
  const std::function<bool(int32_t)>& is_live_;
  StateMask& mask_;
  const bool counts_;
  const bool conditional_;
  std::array<int32_t, TokenTrie::kBytesMax + 1> states_ = {};
  std::array<int32_t, TokenTrie::kBytesMax + 1> units_ = {};
  std::unordered_map<int32_t, std::unique_ptr<Row>> rows_;
  int32_t row_state_ = Dfa::kDead;
  const Row* row_ = nullptr;
};

}  // namespace

int64_t StateMask::bytes() const {
  size_t total =
      sizeof(StateMask) + inside.words().size_bytes() + ends.capacity() * sizeof(End) + exits.capacity() * sizeof(Exit);
  for (const auto& tokens : inside_by_units) total += sizeof(tokens) + tokens.capacity() * sizeof(int32_t);
  return static_cast<int64_t>(total);
}

StateMask WalkTrie(const TokenTrie& trie, const Dfa& dfa, int32_t state, const std::function<bool(int32_t)>& is_live) {
  StateMask mask;
  mask.inside = TokenSet(trie.size());
  Walker(trie, dfa, is_live, mask).Run(state);
  mask.ends.shrink_to_fit();
  mask.exits.shrink_to_fit();
  return mask;
}

std::shared_ptr<const StateMask> TokenMasks::Get(const std::shared_ptr<const Dfa>& dfa, int32_t state) {
  const Key key{dfa.get(), state};
  {
    const MutexLock lock(mutex_);
    const auto found = found_.find(key);
    if (found != found_.end()) {
      entries_.splice(entries_.begin(), entries_, found->second);
      return found->second->mask;
    }
  }
  ++walks_;
  auto mask = std::make_shared<const StateMask>(WalkTrie(*trie_, *dfa, state, [](int32_t) { return true; }));
  const MutexLock lock(mutex_);
  const auto found = found_.find(key);  // another thread may have been faster
  if (found != found_.end()) return found->second->mask;
  entries_.push_front({key, dfa, mask, mask->bytes()});
  found_.emplace(key, entries_.begin());
  bytes_ += entries_.front().bytes;
  while (bytes_ > bytes_max_ && entries_.size() > 1) {
    bytes_ -= entries_.back().bytes;
    found_.erase(entries_.back().key);
    entries_.pop_back();
  }
  return mask;
}

}  // namespace pensieve::sampling
