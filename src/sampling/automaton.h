// Finite automata over bytes: what the terminals of a grammar are made of.
//
// Patterns are put together as an Nfa and determinized once. Products of two automata give intersections, differences
// and labelled choices. Everything a stranger can make large counts against a Budget: when it is used up, the operation
// fails with ResourceExhausted and has cost bounded time and memory.
#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/status.h"

namespace pensieve::sampling {

// Work that the making of one grammar may cost, in steps of some 20 ns and 20 bytes. Not thread-safe.
class Budget {
 public:
  explicit Budget(int64_t steps) : left_(steps) {}
  // ResourceExhausted when `steps` more are not there.
  Status Spend(int64_t steps);
  int64_t left() const { return left_; }

 private:
  int64_t left_;
};

// A nondeterministic automaton. Parts are built from their ends and joined. Thread-compatible.
class Nfa {
 public:
  // Paths from `start` to `end` spell the part's texts.
  struct Part {
    int32_t start = 0;
    int32_t end = 0;
  };

  explicit Nfa(Budget& budget) : budget_(budget) {}  // which must outlive it

  int32_t AddState();
  void AddEdge(int32_t from, uint8_t first, uint8_t last, int32_t to);
  void AddEmptyEdge(int32_t from, int32_t to);

  Part Empty();  // the empty text
  Part Literal(std::string_view bytes);
  Part Bytes(uint8_t first, uint8_t last);
  Part Sequence(std::span<const Part> parts);
  Part Choice(std::span<const Part> parts);  // nothing at all when there are none
  Part Optional(Part part);
  Part Star(Part part);
  Part Plus(Part part);
  // `make` gives a fresh copy of what is repeated. `max` < 0: without end.
  Result<Part> Repeat(const std::function<Result<Part>()>& make, int64_t min, int64_t max);

  // Whether the budget is used up already: builders look at it in loops.
  Status status() const { return failure_; }

 private:
  friend class Determinizer;
  struct Edge {
    uint8_t first;
    uint8_t last;
    int32_t to;
  };
  struct State {
    std::vector<Edge> edges;
    std::vector<int32_t> empty;
  };
  Budget& budget_;
  Status failure_;
  std::vector<State> states_;
};

// A deterministic automaton. Every state lies on a path to an accepting one. Immutable once built; thread-safe then.
class Dfa {
 public:
  static constexpr int32_t kDead = -1;
  static constexpr int32_t kNoLabel = -1;

  struct Edge {
    uint8_t first;
    uint8_t last;
    int32_t to;
  };

  // Labels that accepting states in reach carry: those below `named_max` as a range, the others as a set of bits
  // (label - named_max; at most 64).
  struct Reach {
    int32_t first = 0;
    int32_t last = -1;
    uint64_t kinds = 0;
  };

  int32_t num_states() const { return static_cast<int32_t>(labels_.size()); }
  int32_t start() const { return 0; }
  // Dead when the automaton accepts nothing at all.
  bool empty() const { return labels_.empty(); }
  int32_t Next(int32_t state, uint8_t byte) const {
    for (const Edge& edge : Edges(state)) {
      if (byte < edge.first) return kDead;
      if (byte <= edge.last) return edge.to;
    }
    return kDead;
  }
  // Ascending, without overlaps.
  std::span<const Edge> Edges(int32_t state) const {
    const auto begin = static_cast<size_t>(edge_begin_[static_cast<size_t>(state)]);
    return std::span(edges_).subspan(begin, static_cast<size_t>(edge_begin_[static_cast<size_t>(state) + 1]) - begin);
  }
  bool Accepts(int32_t state) const { return labels_[static_cast<size_t>(state)] != kNoLabel; }
  // Of an accepting state; 0 where nobody asked for labels.
  int32_t label(int32_t state) const { return labels_[static_cast<size_t>(state)]; }
  // Of the longest text; INT64_MAX when there is none.
  int64_t longest_bytes() const;
  // The label of `text`, or kNoLabel.
  int32_t Match(std::string_view text) const;

  // The state that counts: every time it is entered, one more unit has been read. kDead: nothing is counted.
  int32_t counting_state() const { return counting_state_; }
  void set_counting_state(int32_t state) { counting_state_ = state; }

  // Empty unless the automaton was made with labels.
  const Reach& reach(int32_t state) const { return reach_[static_cast<size_t>(state)]; }
  bool has_labels() const { return !reach_.empty(); }
  int32_t named_max() const { return named_max_; }
  // Labels without a name that are in reach of every state that goes on.
  uint64_t common_kinds() const { return common_kinds_; }
  // Labels below `named_max` each stand for texts that are neighbours in order. Fails for more than 64 others.
  Status FindReach(int32_t named_max);

  int64_t bytes() const;

 private:
  friend class DfaBuilder;
  std::vector<int32_t> edge_begin_{0};
  std::vector<Edge> edges_;
  std::vector<int32_t> labels_;
  std::vector<Reach> reach_;
  int32_t named_max_ = 0;
  uint64_t common_kinds_ = 0;
  int32_t counting_state_ = kDead;
};

// Accepting parts with their labels; where several accept, the smallest label counts.
Result<Dfa> Determinize(const Nfa& nfa, int32_t start, std::span<const std::pair<int32_t, int32_t>> accepting,
                        Budget& budget);
inline Result<Dfa> Determinize(const Nfa& nfa, Nfa::Part part, Budget& budget) {
  const std::pair<int32_t, int32_t> accepting[] = {{part.end, 0}};
  return Determinize(nfa, part.start, accepting, budget);
}

// The texts themselves, text i with label i (0 for all unless `labelled`). Of equal texts the first counts.
Result<Dfa> LiteralSet(const std::vector<std::string>& texts, bool labelled, Budget& budget);

// Reads both side by side. `label` is asked for what each makes of a text (kNoLabel: refused) and gives the product's
// label. Texts that `a` refuses are refused. `both`: so are those that `b` does.
Result<Dfa> Product(const Dfa& a, const Dfa& b, const std::function<int32_t(int32_t, int32_t)>& label, bool both,
                    Budget& budget);
Result<Dfa> Intersect(const Dfa& a, const Dfa& b, Budget& budget);
Result<Dfa> Subtract(const Dfa& a, const Dfa& b, Budget& budget);
// Texts of `dfa` in which `counting` (an automaton with a counting state) accepts after `min` to `max` units.
Result<Dfa> LimitUnits(const Dfa& dfa, const Dfa& counting, int64_t min, int64_t max, Budget& budget);
// Of texts that begin with the byte `begin` and end with `end` (and hold neither elsewhere): what stands between.
Dfa StripMarks(const Dfa& dfa, uint8_t begin, uint8_t end);
// The same texts with `byte` at both ends instead. Where `end` may come, `byte` may not.
Dfa ReplaceMarks(const Dfa& dfa, uint8_t begin, uint8_t end, uint8_t byte);
// An automaton whose states and edges are computed: `next` gives a state's number for a byte, or kDead; `label` says
// what a state accepts. Numbers are the caller's, from state 0 on; they need not be dense.
Result<Dfa> Explore(int64_t first, const std::function<int64_t(int64_t, uint8_t)>& next,
                    const std::function<int32_t(int64_t)>& label, Budget& budget);

}  // namespace pensieve::sampling
