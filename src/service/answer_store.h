// The ids of recent answers. Text can be cut into tokens in more ways than one, and a model does not always draw the
// way in which the tokenizer cuts: an answer that comes back in the next prompt is given the ids that were drawn, so that
// the prompt goes on exactly where the generation ended and its KV blocks are found again.
//
// An answer is found only behind the very prompt that it was generated for, in the same cache partition, and only by
// its own text. Bounded in bytes and entries; the least recently used answer goes first. Thread-safe.
#pragma once

#include <cstddef>
#include <cstdint>
#include <list>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "base/mutex.h"
#include "base/text_span.h"

namespace pensieve::service {

// Everything before an answer: its length in bytes, and a hash of the bytes and of who wrote them.
struct PromptPrefix {
  size_t length = 0;
  uint64_t hash = 0;
  bool operator==(const PromptPrefix&) const = default;
};

// The prefixes of one prompt, asked for in ascending order: O(bytes) for all of them together. Borrows both arguments.
class PrefixHasher {
 public:
  PrefixHasher(std::string_view text, std::span<const TextSpan> spans) : text_(text), spans_(spans) {}
  PromptPrefix At(size_t length);

 private:
  std::string_view text_;
  std::span<const TextSpan> spans_;
  size_t span_ = 0;
  PromptPrefix prefix_{0, 14695981039346656037ull};
};

struct DrawnToken {
  int32_t id = 0;
  uint32_t end = 0;  // of its bytes in the answer's text
};

struct AnswerStoreLimits {
  size_t entries_max = 4096;
  size_t bytes_max = size_t{16} << 20;
};

class AnswerStore {
 public:
  explicit AnswerStore(const AnswerStoreLimits& limits = {}) : limits_(limits) {}

  // `text` is what the tokens spell, all of them.
  void Put(uint64_t partition, const PromptPrefix& before, std::vector<DrawnToken> tokens, std::string text);

  struct Found {
    size_t begin = 0;                // of the answer in the prompt: the length of the prefix it was found behind
    std::vector<DrawnToken> tokens;  // spell prompt[begin, end) exactly; `end` of each counts from `begin`
  };
  // The newest answer behind one of `candidates` that begins with the rest of the prompt up to `end`, cut to that.
  std::optional<Found> Find(uint64_t partition, std::span<const PromptPrefix> candidates, std::string_view prompt,
                            size_t end);

  size_t bytes() const;
  size_t entries() const;

 private:
  struct Entry {
    uint64_t key = 0;  // of partition and prefix
    uint64_t partition = 0;
    PromptPrefix before;
    std::vector<DrawnToken> tokens;
    std::string text;

    size_t Bytes() const { return sizeof(Entry) + 64 + text.size() + tokens.size() * sizeof(DrawnToken); }
  };
  using Entries = std::list<Entry>;

  static uint64_t KeyOf(uint64_t partition, const PromptPrefix& before);
  void Drop(Entries::iterator entry) PENSIEVE_REQUIRES(mutex_);

  const AnswerStoreLimits limits_;
  mutable Mutex mutex_;
  Entries entries_ PENSIEVE_GUARDED_BY(mutex_);  // newest first
  std::unordered_multimap<uint64_t, Entries::iterator> index_ PENSIEVE_GUARDED_BY(mutex_);
  size_t bytes_ PENSIEVE_GUARDED_BY(mutex_) = 0;
};

}  // namespace pensieve::service
