// A set of threads, each a place inside a terminal and a stack of frames, moves on byte by byte. Wherever a terminal
// may end, what follows is entered at once, so that a byte is always read by terminals alone.
//
// A mask joins, for each thread, the tokens that its terminal reads whole (known for all grammars, see token_masks.h)
// and those that begin in the terminal and go on behind it: few, and walked with the stack at hand.
#include "sampling/constraint.h"

#include <algorithm>
#include <array>
#include <deque>
#include <utility>

#include "sampling/parse_stack.h"

namespace pensieve::sampling {
namespace {

using Kind = GrammarNode::Kind;

// More readings of one text than this are given up, the last ones first: what remains is still valid.
constexpr size_t kThreadsMax = 256;
constexpr int kClosureStepsMax = 8192;   // for one byte
constexpr size_t kConfigsMax = 4096;     // within one mask
constexpr int32_t kFramesMax = 1 << 18;  // before those that nobody holds are dropped

struct Thread {
  NodeId node = -1;   // kTerminal, kMembers or kSwitch
  int32_t state = 0;  // of its automaton
  int32_t frame = kNoFrame;
  int32_t units = 0;  // read so far, no further than it matters
  bool operator==(const Thread&) const = default;
};

struct Config {
  std::vector<Thread> threads;
  bool accepting = false;
  bool dead() const { return threads.empty() && !accepting; }
  bool operator==(const Config&) const = default;
};

// The moves of the machine.
class Machine {
 public:
  explicit Machine(const Grammar& grammar) : grammar_(grammar), seen_(grammar) {}

  // All places where a text can begin.
  void Start(Config& out) {
    Begin(out);
    open_.push_back({grammar_.root(), kNoFrame});
    Close();
  }

  void Step(const std::vector<Thread>& threads, uint8_t byte, Config& out) {
    Begin(out);
    for (const Thread& thread : threads) StepThread(thread, byte);
    Close();
  }

  // The places behind a terminal (or key with `label`) that is complete.
  void Leave(const Thread& thread, int32_t label, Config& out) {
    Begin(out);
    Pop(thread, label);
    Close();
  }

  const GrammarNode& NodeOf(const Thread& thread) const { return grammar_.node(thread.node); }
  bool AllowsLabel(const Thread& thread, int32_t label) const {
    const GrammarNode& node = NodeOf(thread);
    if (node.kind == Kind::kMembers) return seen_.Allows(SeenOf(thread), label);
    if (node.kind == Kind::kTerminal) return true;
    const int32_t named = node.dfa->named_max();
    if (label >= named) return (node.kinds >> (label - named) & 1) != 0;
    return (node.usable[static_cast<size_t>(label) / 64] >> (label % 64) & 1) != 0;
  }
  // Whether anything that may be used can still be reached.
  bool IsLive(const Thread& thread, int32_t state) const {
    const GrammarNode& node = NodeOf(thread);
    if (node.kind == Kind::kTerminal) return true;
    const Dfa::Reach& reach = node.dfa->reach(state);
    if (node.kind == Kind::kMembers) return seen_.AllowsAnyOf(SeenOf(thread), reach);
    return (reach.kinds & node.kinds) != 0 || AnyBit(node.usable, reach.first, reach.last);
  }
  // Whether every state that goes on is live, whatever was seen.
  bool IsAlwaysLive(const Thread& thread) const {
    const GrammarNode& node = NodeOf(thread);
    if (node.kind == Kind::kTerminal) return true;
    const uint64_t kinds = node.kind == Kind::kMembers ? seen_.Kinds(SeenOf(thread)) : node.kinds;
    return (node.dfa->common_kinds() & kinds) != 0;
  }

  // What is made from here on is forgotten by Forget.
  std::pair<int32_t, int32_t> Mark() const { return {frames_.size(), seen_.size()}; }
  void Forget(std::pair<int32_t, int32_t> mark) {
    frames_.Truncate(mark.first);
    seen_.Truncate(mark.second);
  }
  int32_t num_frames() const { return frames_.size(); }
  // Drops all frames that these do not need, and renumbers theirs.
  void Compact(const std::vector<Config*>& held);

 private:
  struct Task {
    NodeId node;  // -1: return into the frame
    int32_t frame;
    bool operator==(const Task&) const = default;
  };

  int32_t SeenOf(const Thread& thread) const { return frames_[thread.frame].seen; }

  void Begin(Config& out) {
    out_ = &out;
    out.threads.clear();
    out.accepting = false;
    open_.clear();
    visited_.clear();
  }

  void Close() {
    for (int steps = 0; !open_.empty() && steps < kClosureStepsMax; ++steps) {
      const Task task = open_.back();
      open_.pop_back();
      if (task.node >= 0) {
        Enter(task.node, task.frame);
      } else {
        Return(task.frame);
      }
    }
  }

  void StepThread(const Thread& thread, uint8_t byte) {
    const GrammarNode& node = NodeOf(thread);
    Thread next = thread;
    next.state = node.dfa->Next(thread.state, byte);
    if (next.state == Dfa::kDead || !IsLive(thread, next.state)) return;
    const bool accepts = node.dfa->Accepts(next.state);
    const int32_t counting = node.dfa->counting_state();
    if (counting != Dfa::kDead) {
      if (accepts ? thread.units < node.min : thread.state == counting && thread.units >= node.max) return;
      if (next.state == counting) {
        next.units =
            node.max == kNoMax ? static_cast<int32_t>(std::min<int64_t>(next.units + 1, node.min)) : next.units + 1;
      }
    }
    if (accepts && AllowsLabel(thread, node.dfa->label(next.state))) Pop(thread, node.dfa->label(next.state));
    AddThread(next);
  }

  void AddThread(const Thread& thread) {
    if (NodeOf(thread).dfa->Edges(thread.state).empty()) return;
    auto& threads = out_->threads;
    if (threads.size() >= kThreadsMax || std::find(threads.begin(), threads.end(), thread) != threads.end()) return;
    threads.push_back(thread);
  }

  void Pop(const Thread& thread, int32_t label) {
    const GrammarNode& node = NodeOf(thread);
    if (node.kind == Kind::kTerminal) return open_.push_back({-1, thread.frame});
    const NodeId value = node.children[static_cast<size_t>(label)];
    if (node.kind == Kind::kSwitch) return open_.push_back({value, thread.frame});
    Frame frame = frames_[thread.frame];
    frame.phase = kAfterItem;
    frame.seen = seen_.With(frame.seen, label);
    open_.push_back({value, frames_.Intern(frame)});
  }

  bool IsNew(const Task& task) {
    if (std::find(visited_.begin(), visited_.end(), task) != visited_.end()) return false;
    visited_.push_back(task);
    return true;
  }

  void Enter(NodeId id, int32_t frame) {
    const GrammarNode& node = grammar_.node(id);
    switch (node.kind) {
      case Kind::kTerminal: {
        const int32_t start = node.dfa->start();
        const int32_t counting = node.dfa->counting_state();
        const bool begins_outside = counting != Dfa::kDead && counting != start;
        if (counting == Dfa::kDead && node.dfa->Accepts(start)) open_.push_back({-1, frame});
        return AddThread({id, start, frame, begins_outside ? -1 : 0});
      }
      case Kind::kSequence: return EnterSequence(id, 0, frame);
      case Kind::kChoice:
        if (!IsNew({id, frame})) return;
        // The first alternative is looked at first.
        for (size_t i = node.children.size(); i-- > 0;) open_.push_back({node.children[i], frame});
        return;
      case Kind::kRepeat:
        if (node.min == 0) open_.push_back({-1, frame});
        if (node.max > 0)
          open_.push_back({node.children[0], frames_.Intern({id, frame, kAfterItem, -1, Counted(node, 1)})});
        return;
      case Kind::kMembers: {
        const int32_t seen = seen_.First(id);
        if (seen_.CanEnd(seen)) open_.push_back({-1, frame});
        return EnterKey(id, frame, seen);
      }
      case Kind::kSwitch: return AddThread({id, node.dfa->start(), frame, 0});
    }
  }

  void EnterSequence(NodeId id, int32_t at, int32_t frame) {
    const auto& children = grammar_.node(id).children;
    const auto next = static_cast<size_t>(at);
    if (next == children.size()) return open_.push_back({-1, frame});
    // The last part needs no frame of its own.
    const bool last = next + 1 == children.size();
    open_.push_back({children[next], last ? frame : frames_.Intern({id, frame, at + 1, -1, 0})});
  }

  void EnterKey(NodeId id, int32_t parent, int32_t seen) {
    if (!seen_.CanAdd(seen)) return;
    AddThread({id, grammar_.node(id).dfa->start(), frames_.Intern({id, parent, kInKey, seen, 0}), 0});
  }

  static int64_t Counted(const GrammarNode& node, int64_t count) {
    return node.max == kNoMax ? std::min(count, node.min) : count;
  }

  void Return(int32_t id) {
    if (id == kNoFrame) {
      out_->accepting = true;
      return;
    }
    if (!IsNew({-1, id})) return;
    const Frame frame = frames_[id];
    const GrammarNode& node = grammar_.node(frame.node);
    if (node.kind == Kind::kSequence) return EnterSequence(frame.node, frame.phase, frame.parent);
    if (node.kind == Kind::kRepeat) return ReturnToRepeat(frame, node);
    if (frame.phase == kAfterSeparator) return EnterKey(frame.node, frame.parent, frame.seen);
    if (seen_.CanEnd(frame.seen)) open_.push_back({-1, frame.parent});
    if (!seen_.CanAdd(frame.seen)) return;
    open_.push_back({node.separator, frames_.Intern({frame.node, frame.parent, kAfterSeparator, frame.seen, 0})});
  }

  void ReturnToRepeat(Frame frame, const GrammarNode& node) {
    const NodeId separator = node.children[1];
    if (frame.phase == kAfterItem) {
      if (frame.count >= node.min) open_.push_back({-1, frame.parent});
      if (frame.count >= node.max) return;
      if (separator >= 0) {
        frame.phase = kAfterSeparator;
        return open_.push_back({separator, frames_.Intern(frame)});
      }
    }
    frame.phase = kAfterItem;
    frame.count = Counted(node, frame.count + 1);
    open_.push_back({node.children[0], frames_.Intern(frame)});
  }

  const Grammar& grammar_;
  FrameTable frames_;
  SeenTable seen_;
  Config* out_ = nullptr;
  std::vector<Task> open_;
  std::vector<Task> visited_;
};

void Machine::Compact(const std::vector<Config*>& held) {
  std::vector<int32_t> renumbered(static_cast<size_t>(frames_.size()), kNoFrame);
  constexpr int32_t kHeld = 0;
  for (const Config* config : held) {
    for (const Thread& thread : config->threads) {
      if (thread.frame != kNoFrame) renumbered[static_cast<size_t>(thread.frame)] = kHeld;
    }
  }
  for (int32_t id = frames_.size(); id-- > 0;) {
    if (renumbered[static_cast<size_t>(id)] != kHeld || frames_[id].parent == kNoFrame) continue;
    renumbered[static_cast<size_t>(frames_[id].parent)] = kHeld;
  }
  FrameTable kept;
  for (int32_t id = 0; id < frames_.size(); ++id) {
    if (renumbered[static_cast<size_t>(id)] != kHeld) continue;
    Frame frame = frames_[id];
    if (frame.parent != kNoFrame) frame.parent = renumbered[static_cast<size_t>(frame.parent)];
    renumbered[static_cast<size_t>(id)] = kept.Intern(frame);
  }
  for (Config* config : held) {
    for (Thread& thread : config->threads) {
      if (thread.frame != kNoFrame) thread.frame = renumbered[static_cast<size_t>(thread.frame)];
    }
  }
  frames_ = std::move(kept);
}

// Walks the parts of the trie that lie behind the end of a terminal.
class ExitWalker {
 public:
  ExitWalker(Machine& machine, const TokenTrie& trie, TokenSet& mask) : machine_(machine), trie_(trie), mask_(mask) {}

  // From here on, nodes are walked from this place. False when nothing can follow.
  bool StartFrom(const Thread& thread, int32_t label) {
    num_configs_ = 0;
    Config& first = NewConfig();
    machine_.Leave(thread, label, first);
    return !first.threads.empty();
  }

  void Walk(int32_t node) {
    const auto nodes = trie_.nodes();
    const size_t base = nodes[static_cast<size_t>(node)].depth;
    const auto end = static_cast<size_t>(nodes[static_cast<size_t>(node)].end);
    path_[base] = 0;
    for (auto at = static_cast<size_t>(node) + 1; at < end;) {
      const TokenTrie::Node& child = nodes[at];
      const int32_t to = Next(path_[child.depth - size_t{1}], child.byte);
      if (to < 0) {
        at = static_cast<size_t>(child.end);
        continue;
      }
      path_[child.depth] = to;
      for (int32_t token = child.token; token >= 0; token = trie_.NextSame(token)) mask_.Add(token);
      ++at;
    }
  }

 private:
  static constexpr int32_t kUnknown = -2;
  struct Entry {
    Config config;
    std::array<int32_t, 256> next;
  };

  Config& NewConfig() {
    if (num_configs_ == entries_.size()) entries_.emplace_back();
    Entry& entry = entries_[num_configs_++];
    entry.next.fill(kUnknown);
    return entry.config;
  }

  int32_t Next(int32_t from, uint8_t byte) {
    int32_t& known = entries_[static_cast<size_t>(from)].next[byte];
    if (known != kUnknown) return known;
    if (num_configs_ >= kConfigsMax) return known = -1;
    const size_t id = num_configs_;
    Config& to = NewConfig();
    machine_.Step(entries_[static_cast<size_t>(from)].config.threads, byte, to);
    int32_t found = static_cast<int32_t>(id);
    if (to.dead()) {
      found = -1;
    } else {
      for (size_t other = 0; other < id && found == static_cast<int32_t>(id); ++other) {
        if (entries_[other].config == to) found = static_cast<int32_t>(other);
      }
    }
    if (found != static_cast<int32_t>(id)) --num_configs_;
    return known = found;
  }

  Machine& machine_;
  const TokenTrie& trie_;
  TokenSet& mask_;
  std::deque<Entry> entries_;  // references to its elements stay valid
  size_t num_configs_ = 0;
  std::array<int32_t, TokenTrie::kBytesMax + 1> path_ = {};
};

class GrammarConstraint final : public Constraint {
 public:
  GrammarConstraint(std::shared_ptr<const Grammar> grammar, std::shared_ptr<TokenMasks> masks)
      : grammar_(std::move(grammar)), masks_(std::move(masks)), machine_(*grammar_) {
    machine_.Start(now_);
  }

  int32_t vocab_size() const override { return masks_->trie().size(); }

  void FillMask(TokenSet& mask) override {
    mask.Clear();
    const auto mark = machine_.Mark();
    ExitWalker walker(machine_, masks_->trie(), mask);
    for (const Thread& thread : now_.threads) AddTokens(thread, walker, mask);
    machine_.Forget(mark);
  }

  bool Accept(int32_t id) override {
    const std::string_view bytes = masks_->trie().Bytes(id);
    if (bytes.empty()) return false;
    Config before = now_;
    if (!StepAll(bytes)) {
      now_ = std::move(before);
      return false;
    }
    history_.push_back(std::move(before));
    if (history_.size() > static_cast<size_t>(kRollbackMax)) history_.pop_front();
    CompactWhenLarge();
    return true;
  }

  bool AcceptBytes(std::string_view bytes) override {
    Config before = now_;
    if (!StepAll(bytes)) {
      now_ = std::move(before);
      return false;
    }
    history_.clear();
    CompactWhenLarge();
    return true;
  }

  void Rollback(int64_t num_tokens) override {
    for (; num_tokens > 0 && !history_.empty(); --num_tokens) {
      now_ = std::move(history_.back());
      history_.pop_back();
    }
  }

  bool accepting() const override { return now_.accepting; }
  bool finished() const override { return now_.accepting && now_.threads.empty(); }
  std::unique_ptr<Constraint> Clone() const override { return NewGrammarConstraint(grammar_, masks_); }

 private:
  bool StepAll(std::string_view bytes) {
    for (const char byte : bytes) {
      machine_.Step(now_.threads, static_cast<uint8_t>(byte), next_);
      if (next_.dead()) return false;
      std::swap(now_, next_);
    }
    return true;
  }

  void CompactWhenLarge() {
    if (machine_.num_frames() < frames_max_) return;
    std::vector<Config*> held{&now_};
    for (Config& config : history_) held.push_back(&config);
    machine_.Compact(held);
    frames_max_ = std::max(kFramesMax, 2 * machine_.num_frames());
  }

  void AddTokens(const Thread& thread, ExitWalker& walker, TokenSet& mask) {
    const GrammarNode& node = machine_.NodeOf(thread);
    std::shared_ptr<const StateMask> found;
    if (machine_.IsAlwaysLive(thread)) {
      found = masks_->Get(node.dfa, thread.state);
    } else {
      const auto is_live = [&](int32_t state) { return machine_.IsLive(thread, state); };
      found = std::make_shared<const StateMask>(WalkTrie(masks_->trie(), *node.dfa, thread.state, is_live));
    }
    AddInside(thread, node, *found, mask);
    for (const StateMask::End& end : found->ends) {
      if (MayEnd(thread, node, end.units, end.label)) mask.Add(end.token);
    }
    WalkExits(thread, node, *found, walker);
  }

  // Units that may still be read.
  static int64_t UnitsLeft(const Thread& thread, const GrammarNode& node) {
    return node.max == kNoMax ? kNoMax : node.max - thread.units;
  }

  // A unit that was begun before this token counts with it, as it does in the walk.
  static void AddInside(const Thread& thread, const GrammarNode& node, const StateMask& found, TokenSet& mask) {
    const int64_t left = UnitsLeft(thread, node);
    if (node.dfa->counting_state() == Dfa::kDead || static_cast<int64_t>(found.inside_by_units.size()) - 1 <= left)
      return mask.AddAll(found.inside);
    for (size_t units = 0; units < found.inside_by_units.size() && static_cast<int64_t>(units) <= left; ++units) {
      for (const int32_t token : found.inside_by_units[units]) mask.Add(token);
    }
  }

  bool MayEnd(const Thread& thread, const GrammarNode& node, int32_t units, int32_t label) const {
    if (node.dfa->counting_state() != Dfa::kDead)
      return units <= UnitsLeft(thread, node) && thread.units + units >= node.min;
    return machine_.AllowsLabel(thread, label);
  }

  void WalkExits(const Thread& thread, const GrammarNode& node, const StateMask& found, ExitWalker& walker) {
    // Exits of one label have the same continuation; those of a terminal all do.
    const bool by_label = node.kind != Kind::kTerminal;
    int32_t started = Dfa::kNoLabel;
    bool goes_on = false;
    for (const StateMask::Exit& exit : found.exits) {
      if (!MayEnd(thread, node, exit.units, exit.label)) continue;
      const int32_t label = by_label ? exit.label : 0;
      if (label != started) {
        goes_on = walker.StartFrom(thread, label);
        started = label;
      }
      if (goes_on) {
        walker.Walk(exit.node);
      } else if (!by_label) {
        return;
      }
    }
  }

  const std::shared_ptr<const Grammar> grammar_;
  const std::shared_ptr<TokenMasks> masks_;
  Machine machine_;
  Config now_;
  Config next_;
  std::deque<Config> history_;
  int32_t frames_max_ = kFramesMax;
};

}  // namespace

bool Matches(const Grammar& grammar, std::string_view text) {
  Machine machine(grammar);
  Config now;
  Config next;
  machine.Start(now);
  for (const char byte : text) {
    machine.Step(now.threads, static_cast<uint8_t>(byte), next);
    std::swap(now, next);
  }
  return now.accepting;
}

std::unique_ptr<Constraint> NewGrammarConstraint(std::shared_ptr<const Grammar> grammar,
                                                 std::shared_ptr<TokenMasks> masks) {
  return std::make_unique<GrammarConstraint>(std::move(grammar), std::move(masks));
}

}  // namespace pensieve::sampling
