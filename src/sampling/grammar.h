// A context-free grammar over bytes, compiled for a stack machine.
//
// Terminals are deterministic automata. Other nodes say how they follow each other: in sequence, one of several, again
// and again with a separator, or as members in any order, each at most once. Nodes may be used in many places and
// before they are defined, so that grammars can be recursive; left recursion is refused. What can never lead to an end
// is taken out, so that whatever a constraint allows can be completed.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/status.h"
#include "sampling/automaton.h"

namespace pensieve::sampling {

using DfaPtr = std::shared_ptr<const Dfa>;
using NodeId = int32_t;
inline constexpr int64_t kNoMax = INT64_MAX;

// Entries in any order: a key, and what follows it. Keys are the labels of `keys` (with reach): those below
// named_max() appear at most once each, the others as often as they like.
struct MembersSpec {
  DfaPtr keys = nullptr;
  std::vector<NodeId> values = {};  // by label
  NodeId separator = -1;
  std::vector<int32_t> required = {};                     // named labels
  std::vector<std::pair<int32_t, int32_t>> implies = {};  // when the first is there, the second must be
  int64_t min = 0;                                        // different entries; those without a name count as one
  int64_t max = kNoMax;
};

struct GrammarNode {
  enum class Kind : uint8_t { kTerminal, kSequence, kChoice, kRepeat, kMembers, kSwitch };
  Kind kind = Kind::kSequence;
  DfaPtr dfa = nullptr;               // kTerminal; keys of kMembers and kSwitch
  std::vector<NodeId> children = {};  // kSequence, kChoice; kRepeat: item and separator (or -1); values by label
  int64_t min = 0;                    // kRepeat, kMembers; kTerminal: units of its counting state
  int64_t max = kNoMax;
  NodeId separator = -1;                // kMembers
  std::vector<uint64_t> required = {};  // kMembers: by named label
  int32_t num_required = 0;
  std::vector<std::vector<int32_t>> implies = {};  // kMembers: by named label; empty when there is none
  uint64_t kinds = 0;                 // kMembers, kSwitch: labels without a name that can be used, from bit 0
  std::vector<uint64_t> usable = {};  // named labels that can be used
  int32_t num_usable = 0;
};

// Immutable; thread-safe.
class Grammar {
 public:
  const GrammarNode& node(NodeId id) const { return nodes_[static_cast<size_t>(id)]; }
  NodeId root() const { return root_; }
  int64_t bytes() const;  // of memory, roughly

 private:
  friend class GrammarBuilder;
  std::vector<GrammarNode> nodes_;
  NodeId root_ = 0;
};

// Thread-compatible.
class GrammarBuilder {
 public:
  explicit GrammarBuilder(Budget& budget) : budget_(budget) {}

  // The empty text. Each grammar has it once.
  NodeId Empty() { return Sequence({}); }
  NodeId Terminal(DfaPtr dfa);
  // Of an automaton with a counting state.
  NodeId Counted(DfaPtr dfa, int64_t min, int64_t max);
  NodeId Literal(std::string_view text);
  NodeId Sequence(std::vector<NodeId> children);
  NodeId Choice(std::vector<NodeId> children);
  NodeId Optional(NodeId child) { return Choice({child, Empty()}); }
  // `item` (and `separator`, when there is one) must not match the empty text when more than one may come.
  NodeId Repeat(NodeId item, NodeId separator, int64_t min, int64_t max);
  NodeId Members(MembersSpec spec);
  // The label of `keys` decides how it goes on.
  NodeId Switch(DfaPtr keys, std::vector<NodeId> values);
  // A node that is defined later.
  NodeId Reserve() { return Sequence({}); }
  void Define(NodeId reserved, NodeId body) { nodes_[static_cast<size_t>(reserved)].children = {body}; }

  size_t num_nodes() const { return nodes_.size(); }
  // Whether the budget is used up already.
  Status status() const { return failure_; }
  // InvalidArgument when nothing satisfies the grammar, when it is left-recursive, or nested too deep;
  // ResourceExhausted when it is too large. The builder is used up.
  Result<std::shared_ptr<const Grammar>> Build(NodeId root);

 private:
  NodeId Add(GrammarNode node);
  std::vector<bool> FindProductive() const;
  std::vector<bool> FindNullable() const;
  bool CanEnd(const GrammarNode& node, const std::vector<bool>& productive) const;
  void RemoveUnproductive(const std::vector<bool>& productive);
  Status CheckLeftCalls(const std::vector<bool>& nullable) const;

  Budget& budget_;
  Status failure_;
  std::vector<GrammarNode> nodes_;
};

}  // namespace pensieve::sampling
