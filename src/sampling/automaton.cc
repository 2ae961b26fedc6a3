#include "sampling/automaton.h"

#include <algorithm>
#include <array>
#include <bit>
#include <numeric>
#include <unordered_map>

namespace pensieve::sampling {
namespace {

// Of an automaton's numbers of states: sets and pairs are looked up by their contents.
struct HashStates {
  size_t operator()(const std::vector<int32_t>& states) const {
    uint64_t hash = 0x9E3779B97F4A7C15u;
    for (const int32_t state : states) hash = (hash ^ static_cast<uint32_t>(state)) * 0xD6E8FEB86659FD93u;
    return static_cast<size_t>(hash ^ (hash >> 32));
  }
};

}  // namespace

Status Budget::Spend(int64_t steps) {
  if (left_ >= 0) left_ -= steps;
  return left_ >= 0 ? OkStatus() : ResourceExhausted("too complex");
}

int32_t Nfa::AddState() {
  if (failure_.ok()) failure_ = budget_.Spend(4);
  states_.emplace_back();
  return static_cast<int32_t>(states_.size() - 1);
}

void Nfa::AddEdge(int32_t from, uint8_t first, uint8_t last, int32_t to) {
  states_[static_cast<size_t>(from)].edges.push_back({first, last, to});
}

void Nfa::AddEmptyEdge(int32_t from, int32_t to) { states_[static_cast<size_t>(from)].empty.push_back(to); }

Nfa::Part Nfa::Empty() {
  const int32_t state = AddState();
  return {state, state};
}

Nfa::Part Nfa::Literal(std::string_view bytes) {
  Part part = Empty();
  for (const char byte : bytes) {
    const int32_t next = AddState();
    AddEdge(part.end, static_cast<uint8_t>(byte), static_cast<uint8_t>(byte), next);
    part.end = next;
  }
  return part;
}

Nfa::Part Nfa::Bytes(uint8_t first, uint8_t last) {
  const Part part{AddState(), AddState()};
  AddEdge(part.start, first, last, part.end);
  return part;
}

Nfa::Part Nfa::Sequence(std::span<const Part> parts) {
  if (parts.empty()) return Empty();
  for (size_t i = 1; i < parts.size(); ++i) AddEmptyEdge(parts[i - 1].end, parts[i].start);
  return {parts.front().start, parts.back().end};
}

Nfa::Part Nfa::Choice(std::span<const Part> parts) {
  const Part all{AddState(), AddState()};
  for (const Part& part : parts) {
    AddEmptyEdge(all.start, part.start);
    AddEmptyEdge(part.end, all.end);
  }
  return all;
}

Nfa::Part Nfa::Optional(Part part) {
  const Part all{AddState(), AddState()};
  AddEmptyEdge(all.start, part.start);
  AddEmptyEdge(part.end, all.end);
  AddEmptyEdge(all.start, all.end);
  return all;
}

Nfa::Part Nfa::Star(Part part) { return Optional(Plus(part)); }

Nfa::Part Nfa::Plus(Part part) {
  const Part all{AddState(), AddState()};
  AddEmptyEdge(all.start, part.start);
  AddEmptyEdge(part.end, part.start);
  AddEmptyEdge(part.end, all.end);
  return all;
}

Result<Nfa::Part> Nfa::Repeat(const std::function<Result<Part>()>& make, int64_t min, int64_t max) {
  Part all = Empty();
  const auto append = [&](Part part) {
    AddEmptyEdge(all.end, part.start);
    all.end = part.end;
  };
  for (int64_t i = 0; i < min; ++i) {
    PENSIEVE_RETURN_IF_ERROR(failure_);
    PENSIEVE_TRY(const Part part, make());
    append(part);
  }
  if (max < 0) {
    PENSIEVE_TRY(const Part part, make());
    append(Star(part));
    return all;
  }
  // Each further one may be the last: all may leave to the common end.
  const int32_t end = AddState();
  for (int64_t i = min; i < max; ++i) {
    PENSIEVE_RETURN_IF_ERROR(failure_);
    PENSIEVE_TRY(const Part part, make());
    AddEmptyEdge(all.end, end);
    append(part);
  }
  AddEmptyEdge(all.end, end);
  return Part{all.start, end};
}

int32_t Dfa::Match(std::string_view text) const {
  if (empty()) return kNoLabel;
  int32_t state = start();
  for (const char byte : text) {
    state = Next(state, static_cast<uint8_t>(byte));
    if (state == kDead) return kNoLabel;
  }
  return label(state);
}

// Takes states off in an order in which no edge leads back; a circle leaves some.
int64_t Dfa::longest_bytes() const {
  std::vector<int64_t> entries(labels_.size(), 0);
  std::vector<int64_t> longest(labels_.size(), 0);
  for (const Edge& edge : edges_) ++entries[static_cast<size_t>(edge.to)];
  std::vector<int32_t> open;
  for (size_t state = 0; state < entries.size(); ++state) {
    if (entries[state] == 0) open.push_back(static_cast<int32_t>(state));
  }
  size_t taken = 0;
  for (; !open.empty(); ++taken) {
    const int32_t state = open.back();
    open.pop_back();
    for (const Edge& edge : Edges(state)) {
      const auto to = static_cast<size_t>(edge.to);
      longest[to] = std::max(longest[to], longest[static_cast<size_t>(state)] + 1);
      if (--entries[to] == 0) open.push_back(edge.to);
    }
  }
  if (taken < labels_.size()) return INT64_MAX;
  return longest.empty() ? 0 : *std::max_element(longest.begin(), longest.end());
}

int64_t Dfa::bytes() const {
  return static_cast<int64_t>(edges_.size() * sizeof(Edge) + labels_.size() * (2 * sizeof(int32_t)) +
                              reach_.size() * sizeof(Reach));
}

Status Dfa::FindReach(int32_t named_max) {
  named_max_ = named_max;
  const auto states = static_cast<size_t>(num_states());
  reach_.assign(states, Reach{.first = named_max, .last = -1, .kinds = 0});
  std::vector<std::vector<int32_t>> sources(states);
  std::vector<int32_t> changed;
  for (size_t state = 0; state < states; ++state) {
    for (const Edge& edge : Edges(static_cast<int32_t>(state)))
      sources[static_cast<size_t>(edge.to)].push_back(static_cast<int32_t>(state));
    const int32_t own = labels_[state];
    if (own == kNoLabel) continue;
    if (own - named_max >= 64) return ResourceExhausted("too many kinds of keys");
    if (own < named_max) {
      reach_[state] = {.first = own, .last = own, .kinds = 0};
    } else {
      reach_[state].kinds = uint64_t{1} << (own - named_max);
    }
    changed.push_back(static_cast<int32_t>(state));
  }
  while (!changed.empty()) {
    const auto state = static_cast<size_t>(changed.back());
    changed.pop_back();
    for (const int32_t source : sources[state]) {
      Reach& reach = reach_[static_cast<size_t>(source)];
      const Reach joined{.first = std::min(reach.first, reach_[state].first),
                         .last = std::max(reach.last, reach_[state].last),
                         .kinds = reach.kinds | reach_[state].kinds};
      if (joined.first == reach.first && joined.last == reach.last && joined.kinds == reach.kinds) continue;
      reach = joined;
      changed.push_back(source);
    }
  }
  common_kinds_ = ~uint64_t{0};
  for (int32_t state = 0; state < num_states(); ++state) {
    if (!Edges(state).empty()) common_kinds_ &= reach(state).kinds;
  }
  return OkStatus();
}

// Takes states in any order, with all their edges at once, and keeps those that lead to an accepting one.
class DfaBuilder {
 public:
  int32_t AddState(int32_t label) {
    states_.push_back({label, {}});
    return static_cast<int32_t>(states_.size() - 1);
  }
  // Edges of one state arrive ascending; neighbours with the same target are joined.
  void AddEdge(int32_t from, uint8_t first, uint8_t last, int32_t to) {
    auto& edges = states_[static_cast<size_t>(from)].edges;
    if (!edges.empty() && edges.back().to == to && edges.back().last + 1 == first) {
      edges.back().last = last;
    } else {
      edges.push_back({first, last, to});
    }
  }

  Dfa Build() {
    const std::vector<bool> live = FindLive();
    std::vector<int32_t> renumbered(states_.size(), Dfa::kDead);
    Dfa dfa;
    if (states_.empty() || !live[0]) return dfa;
    int32_t count = 0;
    for (size_t i = 0; i < states_.size(); ++i) {
      if (live[i]) renumbered[i] = count++;
    }
    for (size_t i = 0; i < states_.size(); ++i) {
      if (!live[i]) continue;
      for (Dfa::Edge edge : states_[i].edges) {
        edge.to = renumbered[static_cast<size_t>(edge.to)];
        if (edge.to != Dfa::kDead) dfa.edges_.push_back(edge);
      }
      dfa.edge_begin_.push_back(static_cast<int32_t>(dfa.edges_.size()));
      dfa.labels_.push_back(states_[i].label);
    }
    return dfa;
  }

 private:
  struct State {
    int32_t label;
    std::vector<Dfa::Edge> edges;
  };

  std::vector<bool> FindLive() const {
    std::vector<std::vector<int32_t>> sources(states_.size());
    std::vector<bool> live(states_.size(), false);
    std::vector<int32_t> open;
    for (size_t i = 0; i < states_.size(); ++i) {
      for (const Dfa::Edge& edge : states_[i].edges)
        sources[static_cast<size_t>(edge.to)].push_back(static_cast<int32_t>(i));
      if (states_[i].label == Dfa::kNoLabel) continue;
      live[i] = true;
      open.push_back(static_cast<int32_t>(i));
    }
    while (!open.empty()) {
      const auto state = static_cast<size_t>(open.back());
      open.pop_back();
      for (const int32_t source : sources[state]) {
        if (live[static_cast<size_t>(source)]) continue;
        live[static_cast<size_t>(source)] = true;
        open.push_back(source);
      }
    }
    return live;
  }

  std::vector<State> states_;
};

class Determinizer {
 public:
  Determinizer(const Nfa& nfa, std::span<const std::pair<int32_t, int32_t>> accepting, Budget& budget)
      : nfa_(nfa), budget_(budget), labels_(nfa.states_.size(), Dfa::kNoLabel), mark_(nfa.states_.size(), 0) {
    for (const auto& [state, label] : accepting) {
      int32_t& own = labels_[static_cast<size_t>(state)];
      own = own == Dfa::kNoLabel ? label : std::min(own, label);
    }
  }

  Result<Dfa> Run(int32_t start) {
    PENSIEVE_RETURN_IF_ERROR(nfa_.failure_);
    PENSIEVE_RETURN_IF_ERROR(Find({start}).status());
    for (size_t at = 0; at < sets_.size(); ++at) PENSIEVE_RETURN_IF_ERROR(Expand(at));
    return builder_.Build();
  }

 private:
  // The state of all that is reached from `states` without reading.
  Result<int32_t> Find(std::vector<int32_t> states) {
    ++round_;
    size_t kept = 0;
    for (const int32_t state : states) {
      if (std::exchange(mark_[static_cast<size_t>(state)], round_) != round_) states[kept++] = state;
    }
    states.resize(kept);
    for (size_t i = 0; i < states.size(); ++i) {
      for (const int32_t next : nfa_.states_[static_cast<size_t>(states[i])].empty) {
        if (std::exchange(mark_[static_cast<size_t>(next)], round_) != round_) states.push_back(next);
      }
    }
    PENSIEVE_RETURN_IF_ERROR(budget_.Spend(static_cast<int64_t>(states.size())));
    int32_t label = Dfa::kNoLabel;
    std::erase_if(states, [&](int32_t state) {
      const int32_t own = labels_[static_cast<size_t>(state)];
      if (own != Dfa::kNoLabel && (label == Dfa::kNoLabel || own < label)) label = own;
      return own == Dfa::kNoLabel && nfa_.states_[static_cast<size_t>(state)].edges.empty();
    });
    std::sort(states.begin(), states.end());
    const auto found = ids_.find(states);
    if (found != ids_.end()) return found->second;
    PENSIEVE_RETURN_IF_ERROR(budget_.Spend(4 + static_cast<int64_t>(states.size())));
    const int32_t id = builder_.AddState(label);
    sets_.push_back(states);
    ids_.emplace(std::move(states), id);
    return id;
  }

  Status Expand(size_t at) {
    edges_.clear();
    cuts_.reset();
    for (const int32_t state : sets_[at]) {
      for (const Nfa::Edge& edge : nfa_.states_[static_cast<size_t>(state)].edges) {
        edges_.push_back(edge);
        cuts_.Set(edge.first);
        if (edge.last < 255) cuts_.Set(edge.last + 1);
      }
    }
    for (int first = cuts_.From(0); first < 256;) {
      const int next = cuts_.From(first + 1);
      targets_.clear();
      for (const Nfa::Edge& edge : edges_) {
        if (edge.first <= first && first <= edge.last) targets_.push_back(edge.to);
      }
      PENSIEVE_RETURN_IF_ERROR(budget_.Spend(1 + static_cast<int64_t>(edges_.size() / 8)));
      if (!targets_.empty()) {
        PENSIEVE_TRY(const int32_t to, Find(targets_));
        builder_.AddEdge(static_cast<int32_t>(at), static_cast<uint8_t>(first), static_cast<uint8_t>(next - 1), to);
      }
      first = next;
    }
    return OkStatus();
  }

  class Cuts {
   public:
    void reset() { bits_.fill(0); }
    void Set(int at) { bits_[static_cast<size_t>(at / 64)] |= uint64_t{1} << (at % 64); }
    // The first cut at `at` or behind it; 256 for none.
    int From(int at) const {
      while (at < 256) {
        const uint64_t rest = bits_[static_cast<size_t>(at / 64)] >> (at % 64);
        if (rest != 0) return at + std::countr_zero(rest);
        at = (at / 64 + 1) * 64;
      }
      return 256;
    }

   private:
    std::array<uint64_t, 4> bits_ = {};
  };

  const Nfa& nfa_;
  Budget& budget_;
  std::vector<int32_t> labels_;
  std::vector<uint32_t> mark_;
  uint32_t round_ = 0;
  std::vector<std::vector<int32_t>> sets_;
  std::unordered_map<std::vector<int32_t>, int32_t, HashStates> ids_;
  std::vector<Nfa::Edge> edges_;
  std::vector<int32_t> targets_;
  Cuts cuts_;
  DfaBuilder builder_;
};

Result<Dfa> Determinize(const Nfa& nfa, int32_t start, std::span<const std::pair<int32_t, int32_t>> accepting,
                        Budget& budget) {
  return Determinizer(nfa, accepting, budget).Run(start);
}

Result<Dfa> LiteralSet(const std::vector<std::string>& texts, bool labelled, Budget& budget) {
  std::vector<int32_t> order(texts.size());
  std::iota(order.begin(), order.end(), 0);
  const auto text_of = [&](int32_t i) -> const std::string& { return texts[static_cast<size_t>(i)]; };
  std::stable_sort(order.begin(), order.end(), [&](int32_t a, int32_t b) { return text_of(a) < text_of(b); });
  DfaBuilder builder;
  struct Node {
    size_t begin, end, depth;  // order[begin, end) share `depth` bytes
  };
  std::vector<Node> nodes{{0, order.size(), 0}};
  const auto label_of = [&](const Node& node) {
    if (node.begin == node.end || text_of(order[node.begin]).size() != node.depth) return Dfa::kNoLabel;
    return labelled ? order[node.begin] : 0;
  };
  builder.AddState(label_of(nodes[0]));
  for (size_t at = 0; at < nodes.size(); ++at) {
    Node node = nodes[at];
    while (node.begin < node.end && text_of(order[node.begin]).size() == node.depth) ++node.begin;
    while (node.begin < node.end) {
      const char byte = text_of(order[node.begin])[node.depth];
      size_t end = node.begin;
      while (end < node.end && text_of(order[end])[node.depth] == byte) ++end;
      PENSIEVE_RETURN_IF_ERROR(budget.Spend(6));
      nodes.push_back({node.begin, end, node.depth + 1});
      const int32_t next = builder.AddState(label_of(nodes.back()));
      builder.AddEdge(static_cast<int32_t>(at), static_cast<uint8_t>(byte), static_cast<uint8_t>(byte), next);
      node.begin = end;
    }
  }
  return builder.Build();
}

Result<Dfa> Product(const Dfa& a, const Dfa& b, const std::function<int32_t(int32_t, int32_t)>& label, bool both,
                    Budget& budget) {
  DfaBuilder builder;
  if (a.empty() || (both && b.empty())) return builder.Build();
  std::unordered_map<uint64_t, int32_t> ids;
  std::vector<std::pair<int32_t, int32_t>> pairs;
  const auto find = [&](int32_t of_a, int32_t of_b) {
    const uint64_t key = uint64_t{static_cast<uint32_t>(of_a)} << 32 | static_cast<uint32_t>(of_b);
    const auto [entry, is_new] = ids.try_emplace(key, static_cast<int32_t>(pairs.size()));
    if (is_new) {
      pairs.emplace_back(of_a, of_b);
      builder.AddState(label(a.label(of_a), of_b == Dfa::kDead ? Dfa::kNoLabel : b.label(of_b)));
    }
    return entry->second;
  };
  find(a.start(), b.empty() ? Dfa::kDead : b.start());
  for (size_t at = 0; at < pairs.size(); ++at) {
    const auto [of_a, of_b] = pairs[at];
    const std::span<const Dfa::Edge> others = of_b == Dfa::kDead ? std::span<const Dfa::Edge>() : b.Edges(of_b);
    for (const Dfa::Edge& edge : a.Edges(of_a)) {
      int first = edge.first;
      while (first <= edge.last) {
        int last = edge.last;
        int32_t to_b = Dfa::kDead;
        for (const Dfa::Edge& other : others) {
          if (other.last < first) continue;
          if (other.first > first) {
            last = std::min<int>(last, other.first - 1);
          } else {
            to_b = other.to;
            last = std::min<int>(last, other.last);
          }
          break;
        }
        PENSIEVE_RETURN_IF_ERROR(budget.Spend(3));
        if (to_b != Dfa::kDead || !both) {
          builder.AddEdge(static_cast<int32_t>(at), static_cast<uint8_t>(first), static_cast<uint8_t>(last),
                          find(edge.to, to_b));
        }
        first = last + 1;
      }
    }
  }
  return builder.Build();
}

Result<Dfa> Intersect(const Dfa& a, const Dfa& b, Budget& budget) {
  const auto label = [](int32_t of_a, int32_t of_b) { return of_b == Dfa::kNoLabel ? Dfa::kNoLabel : of_a; };
  return Product(a, b, label, /*both=*/true, budget);
}

Result<Dfa> Subtract(const Dfa& a, const Dfa& b, Budget& budget) {
  const auto label = [](int32_t of_a, int32_t of_b) { return of_b == Dfa::kNoLabel ? of_a : Dfa::kNoLabel; };
  return Product(a, b, label, /*both=*/false, budget);
}

Result<Dfa> Explore(int64_t first, const std::function<int64_t(int64_t, uint8_t)>& next,
                    const std::function<int32_t(int64_t)>& label, Budget& budget) {
  DfaBuilder builder;
  std::unordered_map<int64_t, int32_t> ids;
  std::vector<int64_t> states;
  const auto find = [&](int64_t state) {
    const auto [entry, is_new] = ids.try_emplace(state, static_cast<int32_t>(states.size()));
    if (is_new) {
      states.push_back(state);
      builder.AddState(label(state));
    }
    return entry->second;
  };
  find(first);
  for (size_t at = 0; at < states.size(); ++at) {
    PENSIEVE_RETURN_IF_ERROR(budget.Spend(128));
    for (int byte = 0; byte < 256; ++byte) {
      const int64_t to = next(states[at], static_cast<uint8_t>(byte));
      if (to == Dfa::kDead) continue;
      builder.AddEdge(static_cast<int32_t>(at), static_cast<uint8_t>(byte), static_cast<uint8_t>(byte), find(to));
    }
  }
  return builder.Build();
}

Result<Dfa> LimitUnits(const Dfa& dfa, const Dfa& counting, int64_t min, int64_t max, Budget& budget) {
  if (dfa.empty() || counting.empty()) return DfaBuilder().Build();
  // A state is a pair and the units, which are 0 before the first; the opening itself enters the counting state.
  const int64_t units_end = std::min(max, int64_t{1} << 20) + 2;
  const int64_t pairs = int64_t{dfa.num_states()} * counting.num_states();
  const auto next = [&](int64_t state, uint8_t byte) -> int64_t {
    const int64_t units = state / pairs;
    const int64_t pair = state % pairs;
    const int32_t a = dfa.Next(static_cast<int32_t>(pair / counting.num_states()), byte);
    const int32_t b = counting.Next(static_cast<int32_t>(pair % counting.num_states()), byte);
    if (a == Dfa::kDead || b == Dfa::kDead) return Dfa::kDead;
    int64_t after = units + (b == counting.counting_state() ? 1 : 0);
    if (after > units_end || (max != INT64_MAX && after > max + 1)) return Dfa::kDead;
    if (max == INT64_MAX) after = std::min(after, min + 1);
    return after * pairs + int64_t{a} * counting.num_states() + b;
  };
  const auto label = [&](int64_t state) {
    const int64_t units = state / pairs - 1;
    const int64_t pair = state % pairs;
    const bool accepts = counting.Accepts(static_cast<int32_t>(pair % counting.num_states())) && units >= min;
    return accepts ? dfa.label(static_cast<int32_t>(pair / counting.num_states())) : Dfa::kNoLabel;
  };
  return Explore(int64_t{dfa.start()} * counting.num_states() + counting.start(), next, label, budget);
}

Dfa StripMarks(const Dfa& dfa, uint8_t begin, uint8_t end) {
  DfaBuilder builder;
  const int32_t first = dfa.empty() ? Dfa::kDead : dfa.Next(dfa.start(), begin);
  if (first == Dfa::kDead) return builder.Build();
  // The new start stands in front; the states keep their order behind it.
  const auto add = [&](int32_t state) {
    const int32_t after = dfa.Next(state, end);
    builder.AddState(after == Dfa::kDead ? Dfa::kNoLabel : dfa.label(after));
  };
  const auto connect = [&](int32_t state, int32_t as) {
    for (const Dfa::Edge& edge : dfa.Edges(state)) {
      for (int from = edge.first; from <= edge.last; ++from) {
        const auto byte = static_cast<uint8_t>(from);
        if (byte != begin && byte != end) builder.AddEdge(as, byte, byte, edge.to + 1);
      }
    }
  };
  add(first);
  for (int32_t state = 0; state < dfa.num_states(); ++state) add(state);
  connect(first, 0);
  for (int32_t state = 0; state < dfa.num_states(); ++state) connect(state, state + 1);
  return builder.Build();
}

Dfa ReplaceMarks(const Dfa& dfa, uint8_t begin, uint8_t end, uint8_t byte) {
  DfaBuilder builder;
  for (int32_t state = 0; state < dfa.num_states(); ++state) builder.AddState(Dfa::kNoLabel);
  if (dfa.empty()) return builder.Build();
  const int32_t done = builder.AddState(0);
  std::array<int32_t, 256> to;
  for (int32_t state = 0; state < dfa.num_states(); ++state) {
    to.fill(Dfa::kDead);
    for (const Dfa::Edge& edge : dfa.Edges(state)) {
      for (int from = edge.first; from <= edge.last; ++from) to[static_cast<size_t>(from)] = edge.to;
    }
    const int32_t at_begin = to[begin];
    const int32_t at_end = to[end];
    if (state == dfa.start()) to.fill(Dfa::kDead);
    to[begin] = to[end] = Dfa::kDead;
    if (state == dfa.start()) {
      to[byte] = at_begin;
    } else if (at_end != Dfa::kDead && dfa.Accepts(at_end)) {
      to[byte] = done;
    }
    for (int from = 0; from < 256; ++from) {
      const int32_t target = to[static_cast<size_t>(from)];
      const auto at = static_cast<uint8_t>(from);
      if (target != Dfa::kDead) builder.AddEdge(state, at, at, target);
    }
  }
  return builder.Build();
}

}  // namespace pensieve::sampling
