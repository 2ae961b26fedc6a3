#include "sampling/parse_stack.h"

#include <algorithm>
#include <bit>

namespace pensieve::sampling {
namespace {

uint64_t HashOf(const Frame& frame) {
  constexpr uint64_t kMix = 0xD6E8FEB86659FD93u;
  uint64_t hash = uint64_t{static_cast<uint32_t>(frame.node)} << 32 | static_cast<uint32_t>(frame.parent);
  hash = (hash ^ (hash >> 29)) * kMix;
  hash ^= uint64_t{static_cast<uint32_t>(frame.phase)} << 32 | static_cast<uint32_t>(frame.seen);
  hash = (hash ^ (hash >> 29)) * kMix;
  hash = (hash ^ static_cast<uint64_t>(frame.count)) * kMix;
  return hash ^ (hash >> 32);
}

}  // namespace

size_t FrameTable::SlotOf(const Frame& frame) const {
  const size_t mask = slots_.size() - 1;
  size_t slot = HashOf(frame) & mask;
  while (slots_[slot] >= 0 && frames_[static_cast<size_t>(slots_[slot])] != frame) slot = (slot + 1) & mask;
  return slot;
}

int32_t FrameTable::Intern(const Frame& frame) {
  size_t slot = SlotOf(frame);
  if (slots_[slot] >= 0) return slots_[slot];
  if (frames_.size() * 2 >= slots_.size()) {
    Grow();
    slot = SlotOf(frame);
  }
  frames_.push_back(frame);
  return slots_[slot] = size() - 1;
}

void FrameTable::Grow() {
  slots_.assign(slots_.size() * 2, -1);
  for (int32_t id = 0; id < size(); ++id) slots_[SlotOf(frames_[static_cast<size_t>(id)])] = id;
}

// In the reverse order of insertion, each slot becomes what it was before.
void FrameTable::Truncate(int32_t size) {
  while (this->size() > size) {
    slots_[SlotOf(frames_.back())] = -1;
    frames_.pop_back();
  }
}

bool AnyBit(const std::vector<uint64_t>& bits, int32_t first, int32_t last) {
  if (first > last) return false;
  const auto from = static_cast<size_t>(first) / 64;
  const auto to = static_cast<size_t>(last) / 64;
  for (size_t word = from; word <= to; ++word) {
    uint64_t wanted = bits[word];
    if (word == from) wanted &= ~uint64_t{0} << (first % 64);
    if (word == to) wanted &= ~uint64_t{0} >> (63 - last % 64);
    if (wanted != 0) return true;
  }
  return false;
}

int32_t SeenTable::First(NodeId node) {
  Seen seen;
  seen.node = node;
  seen.named.resize(grammar_.node(node).usable.size());
  return Intern(std::move(seen));
}

int32_t SeenTable::With(int32_t id, int32_t label) {
  Seen seen = entries_[static_cast<size_t>(id)].key->first;
  const GrammarNode& node = grammar_.node(seen.node);
  const bool is_named = label < node.dfa->named_max();
  const bool is_new = is_named || !seen.other;
  if (is_named) {
    seen.named[static_cast<size_t>(label) / 64] |= uint64_t{1} << (label % 64);
  } else if (node.min > 0) {
    seen.other = true;
  }
  if (is_new) seen.different = std::min(seen.different + 1, node.min);
  if (node.max != kNoMax) ++seen.total;
  return Intern(std::move(seen));
}

int32_t SeenTable::Intern(Seen seen) {
  const auto [key, is_new] = ids_.try_emplace(std::move(seen), size());
  if (is_new) {
    Entry entry;
    entry.key = key;
    FindNext(key->first, entry);
    entries_.push_back(std::move(entry));
  }
  return key->second;
}

void SeenTable::FindNext(const Seen& seen, Entry& entry) const {
  const GrammarNode& node = grammar_.node(seen.node);
  std::vector<uint64_t> wanted = node.required;
  for (size_t label = 0; label < node.implies.size(); ++label) {
    if ((seen.named[label / 64] >> (label % 64) & 1) == 0) continue;
    for (const int32_t then : node.implies[label]) wanted[static_cast<size_t>(then) / 64] |= uint64_t{1} << (then % 64);
  }
  int64_t missing = 0;
  for (size_t word = 0; word < wanted.size(); ++word) missing += std::popcount(wanted[word] & ~seen.named[word]);
  const int64_t too_few = std::max<int64_t>(node.min - seen.different, 0);
  entry.can_end = missing == 0 && too_few == 0;
  // Places that are left behind the next entry: those which must come have theirs kept.
  const int64_t left = node.max == kNoMax ? kNoMax : node.max - seen.total - 1;
  entry.named.assign(node.usable.size(), 0);
  if (left < 0) return;
  const bool only_missing = left < missing;
  const bool only_different = left < too_few;
  for (size_t word = 0; word < entry.named.size(); ++word) {
    entry.named[word] = node.usable[word] & ~seen.named[word];
    if (only_missing) entry.named[word] &= wanted[word];
    entry.can_add |= entry.named[word] != 0;
  }
  if (!only_missing && (!only_different || !seen.other)) entry.kinds = node.kinds;
  entry.can_add |= entry.kinds != 0;
}

bool SeenTable::Allows(int32_t id, int32_t label) const {
  const Entry& entry = entries_[static_cast<size_t>(id)];
  const int32_t named = grammar_.node(entry.key->first.node).dfa->named_max();
  if (label >= named) return (entry.kinds >> (label - named) & 1) != 0;
  return (entry.named[static_cast<size_t>(label) / 64] >> (label % 64) & 1) != 0;
}

bool SeenTable::AllowsAnyOf(int32_t id, const Dfa::Reach& reach) const {
  const Entry& entry = entries_[static_cast<size_t>(id)];
  return (reach.kinds & entry.kinds) != 0 || AnyBit(entry.named, reach.first, reach.last);
}

void SeenTable::Truncate(int32_t size) {
  while (this->size() > size) {
    ids_.erase(entries_.back().key);
    entries_.pop_back();
  }
}

}  // namespace pensieve::sampling
