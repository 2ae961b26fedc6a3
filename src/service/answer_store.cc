#include "service/answer_store.h"

#include <algorithm>
#include <utility>

namespace pensieve::service {

PromptPrefix PrefixHasher::At(size_t length) {
  for (; prefix_.length < length; ++prefix_.length) {
    while (spans_[span_].end <= prefix_.length) ++span_;
    const auto author = static_cast<uint64_t>(spans_[span_].source) + 1;
    const auto byte = static_cast<unsigned char>(text_[prefix_.length]);
    prefix_.hash = (prefix_.hash ^ (author << 8 | byte)) * 1099511628211ull;
  }
  return prefix_;
}

uint64_t AnswerStore::KeyOf(uint64_t partition, const PromptPrefix& before) {
  uint64_t key = before.hash;
  for (const uint64_t part : {partition, static_cast<uint64_t>(before.length)}) {
    key = (key ^ part) * 0x9E3779B97F4A7C15ull;
    key ^= key >> 29;
  }
  return key;
}

void AnswerStore::Drop(Entries::iterator entry) {
  const auto [first, last] = index_.equal_range(entry->key);
  index_.erase(std::find_if(first, last, [&](const auto& indexed) { return indexed.second == entry; }));
  bytes_ -= entry->Bytes();
  entries_.erase(entry);
}

void AnswerStore::Put(uint64_t partition, const PromptPrefix& before, std::vector<DrawnToken> tokens,
                      std::string text) {
  Entry entry{KeyOf(partition, before), partition, before, std::move(tokens), std::move(text)};
  if (entry.text.empty() || entry.Bytes() > limits_.bytes_max) return;
  const MutexLock lock(mutex_);
  const auto [first, last] = index_.equal_range(entry.key);
  const auto same = std::find_if(first, last, [&](const auto& indexed) {
    const Entry& held = *indexed.second;
    return held.partition == partition && held.before == before && held.text == entry.text;
  });
  if (same != last) Drop(same->second);
  bytes_ += entry.Bytes();
  entries_.push_front(std::move(entry));
  index_.emplace(entries_.front().key, entries_.begin());
  while (bytes_ > limits_.bytes_max || entries_.size() > limits_.entries_max) Drop(std::prev(entries_.end()));
}

std::optional<AnswerStore::Found> AnswerStore::Find(uint64_t partition, std::span<const PromptPrefix> candidates,
                                                    std::string_view prompt, size_t end) {
  const MutexLock lock(mutex_);
  if (entries_.empty()) return std::nullopt;
  std::optional<Found> best;
  for (const PromptPrefix& before : candidates) {
    if (before.length >= end) break;
    const std::string_view wanted = prompt.substr(before.length, end - before.length);
    const auto [first, last] = index_.equal_range(KeyOf(partition, before));
    for (auto indexed = first; indexed != last; ++indexed) {
      const Entry& entry = *indexed->second;
      if (entry.partition != partition || entry.before != before || !entry.text.starts_with(wanted)) continue;
      const auto behind =
          std::ranges::find_if(entry.tokens, [&](const DrawnToken& t) { return t.end >= wanted.size(); });
      if (behind == entry.tokens.end() || behind->end != wanted.size()) continue;
      best = Found{before.length, {entry.tokens.begin(), behind + 1}};
      entries_.splice(entries_.begin(), entries_, indexed->second);
      if (entry.text.size() == wanted.size()) return best;
    }
  }
  return best;
}

size_t AnswerStore::bytes() const {
  const MutexLock lock(mutex_);
  return bytes_;
}

size_t AnswerStore::entries() const {
  const MutexLock lock(mutex_);
  return entries_.size();
}

}  // namespace pensieve::service
