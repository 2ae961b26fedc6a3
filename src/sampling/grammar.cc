#include "sampling/grammar.h"

#include <algorithm>
#include <bit>
#include <utility>

namespace pensieve::sampling {
namespace {

using Kind = GrammarNode::Kind;

// How many nodes may begin at the same place, one inside the other: the machine enters them recursively.
constexpr int32_t kLeftDepthMax = 500;

bool HasBit(const std::vector<uint64_t>& bits, int32_t at) {
  return (bits[static_cast<size_t>(at) / 64] >> (at % 64) & 1) != 0;
}
void SetBit(std::vector<uint64_t>& bits, int32_t at) { bits[static_cast<size_t>(at) / 64] |= uint64_t{1} << (at % 64); }

size_t WordsFor(int32_t bits) { return (static_cast<size_t>(bits) + 63) / 64; }

}  // namespace

int64_t Grammar::bytes() const {
  int64_t total = 0;
  for (const GrammarNode& node : nodes_) {
    total += static_cast<int64_t>(sizeof(GrammarNode) + node.children.size() * sizeof(NodeId) +
                                  (node.required.size() + node.usable.size()) * sizeof(uint64_t));
    if (node.dfa != nullptr) total += node.dfa->bytes() / node.dfa.use_count();
  }
  return total;
}

NodeId GrammarBuilder::Add(GrammarNode node) {
  if (failure_.ok()) failure_ = budget_.Spend(10 + static_cast<int64_t>(node.children.size()));
  nodes_.push_back(std::move(node));
  return static_cast<NodeId>(nodes_.size() - 1);
}

NodeId GrammarBuilder::Terminal(DfaPtr dfa) {
  return Add({.kind = Kind::kTerminal, .dfa = std::move(dfa), .children = {}});
}

NodeId GrammarBuilder::Counted(DfaPtr dfa, int64_t min, int64_t max) {
  return Add({.kind = Kind::kTerminal, .dfa = std::move(dfa), .children = {}, .min = min, .max = max});
}

NodeId GrammarBuilder::Literal(std::string_view text) {
  if (text.empty()) return Empty();
  auto dfa = LiteralSet({std::string(text)}, /*labelled=*/false, budget_);
  if (dfa.has_value()) return Terminal(std::make_shared<const Dfa>(*std::move(dfa)));
  failure_ = dfa.error();
  return Empty();
}

NodeId GrammarBuilder::Sequence(std::vector<NodeId> children) {
  return Add({.kind = Kind::kSequence, .dfa = nullptr, .children = std::move(children)});
}

NodeId GrammarBuilder::Choice(std::vector<NodeId> children) {
  return Add({.kind = Kind::kChoice, .dfa = nullptr, .children = std::move(children)});
}

NodeId GrammarBuilder::Repeat(NodeId item, NodeId separator, int64_t min, int64_t max) {
  return Add({.kind = Kind::kRepeat, .dfa = nullptr, .children = {item, separator}, .min = min, .max = max});
}

NodeId GrammarBuilder::Members(MembersSpec spec) {
  GrammarNode node{.kind = Kind::kMembers, .dfa = std::move(spec.keys), .children = std::move(spec.values)};
  node.min = spec.min;
  node.max = spec.max;
  node.separator = spec.separator;
  const int32_t named = node.dfa->named_max();
  node.required.assign(WordsFor(named), 0);
  for (const int32_t label : spec.required) SetBit(node.required, label);
  for (const uint64_t word : node.required) node.num_required += std::popcount(word);
  if (!spec.implies.empty()) node.implies.resize(static_cast<size_t>(named));
  for (const auto& [when, then] : spec.implies) node.implies[static_cast<size_t>(when)].push_back(then);
  return Add(std::move(node));
}

NodeId GrammarBuilder::Switch(DfaPtr keys, std::vector<NodeId> values) {
  return Add({.kind = Kind::kSwitch, .dfa = std::move(keys), .children = std::move(values)});
}

bool GrammarBuilder::CanEnd(const GrammarNode& node, const std::vector<bool>& productive) const {
  const auto is_productive = [&](NodeId id) { return productive[static_cast<size_t>(id)]; };
  switch (node.kind) {
    case Kind::kTerminal: return !node.dfa->empty() && node.min <= node.max;
    case Kind::kSequence: return std::all_of(node.children.begin(), node.children.end(), is_productive);
    case Kind::kChoice: return std::any_of(node.children.begin(), node.children.end(), is_productive);
    case Kind::kRepeat: {
      if (node.min > node.max) return false;
      const bool has_separator = node.children[1] >= 0;
      return node.min == 0 ||
             (is_productive(node.children[0]) && (node.min == 1 || !has_separator || is_productive(node.children[1])));
    }
    case Kind::kSwitch: return std::any_of(node.children.begin(), node.children.end(), is_productive);
    case Kind::kMembers: {
      const int32_t named = node.dfa->named_max();
      int64_t usable = 0;
      for (int32_t label = 0; label < named; ++label) {
        const bool here = is_productive(node.children[static_cast<size_t>(label)]);
        if (!here && HasBit(node.required, label)) return false;
        usable += here ? 1 : 0;
      }
      const bool others = std::any_of(node.children.begin() + named, node.children.end(), is_productive);
      return node.num_required <= node.max && node.min <= node.max && node.min <= usable + (others ? 1 : 0);
    }
  }
  return false;
}

// A node whose parts become productive is looked at again; each becomes so once.
std::vector<bool> GrammarBuilder::FindProductive() const {
  std::vector<std::vector<NodeId>> users(nodes_.size());
  std::vector<NodeId> open;
  for (size_t id = 0; id < nodes_.size(); ++id) {
    for (const NodeId child : nodes_[id].children) {
      if (child >= 0) users[static_cast<size_t>(child)].push_back(static_cast<NodeId>(id));
    }
    open.push_back(static_cast<NodeId>(id));
  }
  std::vector<bool> productive(nodes_.size(), false);
  while (!open.empty()) {
    const NodeId id = open.back();
    open.pop_back();
    if (productive[static_cast<size_t>(id)] || !CanEnd(nodes_[static_cast<size_t>(id)], productive)) continue;
    productive[static_cast<size_t>(id)] = true;
    const auto& waiting = users[static_cast<size_t>(id)];
    open.insert(open.end(), waiting.begin(), waiting.end());
  }
  return productive;
}

std::vector<bool> GrammarBuilder::FindNullable() const {
  std::vector<bool> nullable(nodes_.size(), false);
  const auto is_nullable = [&](NodeId id) { return nullable[static_cast<size_t>(id)]; };
  for (bool changed = true; changed;) {
    changed = false;
    for (size_t i = nodes_.size(); i-- > 0;) {
      if (nullable[i]) continue;
      const GrammarNode& node = nodes_[i];
      bool now = false;
      switch (node.kind) {
        case Kind::kTerminal: now = node.dfa->Accepts(node.dfa->start()) && node.dfa->counting_state() < 0; break;
        case Kind::kSequence: now = std::all_of(node.children.begin(), node.children.end(), is_nullable); break;
        case Kind::kChoice: now = std::any_of(node.children.begin(), node.children.end(), is_nullable); break;
        case Kind::kRepeat: now = node.min == 0 || is_nullable(node.children[0]); break;
        case Kind::kMembers: now = node.num_required == 0 && node.min == 0; break;
        case Kind::kSwitch: break;
      }
      nullable[i] = now;
      changed |= now;
    }
  }
  return nullable;
}

void GrammarBuilder::RemoveUnproductive(const std::vector<bool>& productive) {
  const auto is_productive = [&](NodeId id) { return productive[static_cast<size_t>(id)]; };
  for (GrammarNode& node : nodes_) {
    if (node.kind == Kind::kChoice) std::erase_if(node.children, [&](NodeId id) { return !is_productive(id); });
    if (node.kind == Kind::kRepeat) {
      if (!is_productive(node.children[0])) node.max = 0;
      if (node.children[1] >= 0 && !is_productive(node.children[1])) node.max = std::min<int64_t>(node.max, 1);
    }
    if (node.kind != Kind::kMembers && node.kind != Kind::kSwitch) continue;
    const int32_t named = node.dfa->named_max();
    node.usable.assign(WordsFor(named), 0);
    for (int32_t label = 0; label < named; ++label) {
      if (is_productive(node.children[static_cast<size_t>(label)])) SetBit(node.usable, label);
    }
    for (bool changed = !node.implies.empty(); changed;) {
      changed = false;
      for (int32_t label = 0; label < named; ++label) {
        if (!HasBit(node.usable, label)) continue;
        const auto& then = node.implies[static_cast<size_t>(label)];
        if (std::all_of(then.begin(), then.end(), [&](int32_t other) { return HasBit(node.usable, other); })) continue;
        node.usable[static_cast<size_t>(label) / 64] &= ~(uint64_t{1} << (label % 64));
        changed = true;
      }
    }
    for (const uint64_t word : node.usable) node.num_usable += std::popcount(word);
    for (size_t label = static_cast<size_t>(named); label < node.children.size(); ++label) {
      if (is_productive(node.children[label])) node.kinds |= uint64_t{1} << (label - static_cast<size_t>(named));
    }
  }
}

// Follows what a node enters before anything is read: no circle, and no chain that is too long.
Status GrammarBuilder::CheckLeftCalls(const std::vector<bool>& nullable) const {
  std::vector<std::vector<NodeId>> calls(nodes_.size());
  for (size_t i = 0; i < nodes_.size(); ++i) {
    const GrammarNode& node = nodes_[i];
    if (node.kind == Kind::kRepeat) {
      if (node.max > 1 && nullable[static_cast<size_t>(node.children[0])])
        return InvalidArgument("what is repeated must not match the empty text");
      calls[i] = {node.children[0]};
    } else if (node.kind == Kind::kChoice) {
      calls[i] = node.children;
    } else if (node.kind == Kind::kSequence) {
      for (const NodeId child : node.children) {
        calls[i].push_back(child);
        if (!nullable[static_cast<size_t>(child)]) break;
      }
    }
  }
  std::vector<int32_t> depth(nodes_.size(), -1);  // -1: not seen, 0: on the path, else the longest chain from here
  std::vector<std::pair<size_t, size_t>> path;
  for (size_t first = 0; first < nodes_.size(); ++first) {
    if (depth[first] >= 0) continue;
    path.emplace_back(first, 0);
    depth[first] = 0;
    while (!path.empty()) {
      auto& [node, next] = path.back();
      if (next < calls[node].size()) {
        const auto child = static_cast<size_t>(calls[node][next++]);
        if (depth[child] == 0) return InvalidArgument("left recursion: a part begins with itself");
        if (depth[child] < 0) {
          depth[child] = 0;
          path.emplace_back(child, 0);
        }
        continue;
      }
      int32_t longest = 0;
      for (const NodeId child : calls[node]) longest = std::max(longest, depth[static_cast<size_t>(child)]);
      if (longest >= kLeftDepthMax) return InvalidArgument("nested too deep");
      depth[node] = longest + 1;
      path.pop_back();
    }
  }
  return OkStatus();
}

Result<std::shared_ptr<const Grammar>> GrammarBuilder::Build(NodeId root) {
  PENSIEVE_RETURN_IF_ERROR(failure_);
  const std::vector<bool> productive = FindProductive();
  if (!productive[static_cast<size_t>(root)]) return InvalidArgument("nothing can satisfy it");
  RemoveUnproductive(productive);
  PENSIEVE_RETURN_IF_ERROR(CheckLeftCalls(FindNullable()));
  auto grammar = std::make_shared<Grammar>();
  grammar->nodes_ = std::move(nodes_);
  grammar->root_ = root;
  return std::shared_ptr<const Grammar>(std::move(grammar));
}

}  // namespace pensieve::sampling
