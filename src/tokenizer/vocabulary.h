// The two-way map between token spellings and ids of a model. Immutable after Create; thread-safe.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "base/status.h"

namespace pensieve::tokenizer {

inline constexpr int64_t kTokenIdMax = 10'000'000;

struct VocabularyEntry {
  std::string text;
  int64_t id = 0;
};

class Vocabulary {
 public:
  Vocabulary() = default;
  enum class Duplicates { kRefused, kLastCounts };
  // DataLoss when an id is negative, above kTokenIdMax or given twice. A spelling that is given twice is one, too, or
  // finds the last of its ids.
  static Result<Vocabulary> Create(std::vector<VocabularyEntry> entries, Duplicates spellings = Duplicates::kRefused);

  // The id of `text`, or -1.
  int32_t Find(std::string_view text) const {
    const auto found = ids_.find(text);
    return found == ids_.end() ? -1 : found->second;
  }
  // The spelling; empty for ids that have none.
  const std::string& Text(int32_t id) const;
  int32_t size() const { return static_cast<int32_t>(texts_.size()); }  // highest id + 1
  size_t longest_bytes() const { return longest_bytes_; }
  // Ids whose spelling finds a later id.
  const std::vector<int32_t>& shadowed_ids() const { return shadowed_ids_; }

 private:
  std::vector<std::string> texts_;  // never changed after Create, so that the views below stay valid
  std::unordered_map<std::string_view, int32_t> ids_;
  size_t longest_bytes_ = 0;
  std::vector<int32_t> shadowed_ids_;
};

}  // namespace pensieve::tokenizer
