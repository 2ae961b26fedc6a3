// The stacks of a running parse, shared where they are equal, so that threads which come to the same place are one.
// Internal to sampling/.
#pragma once

#include <cstdint>
#include <map>
#include <vector>

#include "sampling/grammar.h"

namespace pensieve::sampling {

inline constexpr int32_t kNoFrame = -1;

// Where it goes on when the part above has been read.
struct Frame {
  NodeId node = -1;
  int32_t parent = kNoFrame;
  int32_t phase = 0;  // kSequence: the next child; else a Phase
  int32_t seen = -1;  // kMembers: an entry of SeenTable
  int64_t count = 0;  // kRepeat: items so far, no further than it matters
  bool operator==(const Frame&) const = default;
};

// Entries of kRepeat and kMembers pass through these.
enum Phase : int32_t { kAfterItem, kAfterSeparator, kInKey };

// Interned frames; parents come before their children. Not thread-safe.
class FrameTable {
 public:
  FrameTable() : slots_(64, -1) {}
  int32_t Intern(const Frame& frame);
  const Frame& operator[](int32_t id) const { return frames_[static_cast<size_t>(id)]; }
  int32_t size() const { return static_cast<int32_t>(frames_.size()); }
  // Forgets all frames from `size` on.
  void Truncate(int32_t size);

 private:
  size_t SlotOf(const Frame& frame) const;
  void Grow();
  std::vector<Frame> frames_;
  std::vector<int32_t> slots_;  // a power of two; linear probing
};

// Which members were there. Not thread-safe.
struct Seen {
  NodeId node = -1;
  std::vector<uint64_t> named;
  bool other = false;     // one without a name
  int64_t total = 0;      // while there is a maximum
  int64_t different = 0;  // up to the minimum
  auto operator<=>(const Seen&) const = default;
};

class SeenTable {
 public:
  explicit SeenTable(const Grammar& grammar) : grammar_(grammar) {}
  int32_t First(NodeId node);
  int32_t With(int32_t seen, int32_t label);

  bool CanEnd(int32_t seen) const { return entries_[static_cast<size_t>(seen)].can_end; }
  bool CanAdd(int32_t seen) const { return entries_[static_cast<size_t>(seen)].can_add; }
  bool Allows(int32_t seen, int32_t label) const;
  uint64_t Kinds(int32_t seen) const { return entries_[static_cast<size_t>(seen)].kinds; }
  bool AllowsAnyOf(int32_t seen, const Dfa::Reach& reach) const;

  int32_t size() const { return static_cast<int32_t>(entries_.size()); }
  void Truncate(int32_t size);

 private:
  struct Entry {
    std::map<Seen, int32_t>::iterator key;
    std::vector<uint64_t> named;  // labels that may come next
    uint64_t kinds = 0;
    bool can_end = false;
    bool can_add = false;
  };
  int32_t Intern(Seen seen);
  void FindNext(const Seen& seen, Entry& entry) const;

  const Grammar& grammar_;
  std::map<Seen, int32_t> ids_;
  std::vector<Entry> entries_;
};

// Whether any of the bits from `first` to `last` is set.
bool AnyBit(const std::vector<uint64_t>& bits, int32_t first, int32_t last);

}  // namespace pensieve::sampling
