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
  // DataLoss when an id is negative, above kTokenIdMax or given twice, or a spelling is given twice.
  static Result<Vocabulary> Create(std::vector<VocabularyEntry> entries);

  // The id of `text`, or -1.
  int32_t Find(std::string_view text) const {
    const auto found = ids_.find(text);
    return found == ids_.end() ? -1 : found->second;
  }
  // The spelling; empty for ids that have none.
  const std::string& Text(int32_t id) const;
  int32_t size() const { return static_cast<int32_t>(texts_.size()); }  // highest id + 1
  size_t longest_bytes() const { return longest_bytes_; }

 private:
  std::vector<std::string> texts_;  // never changed after Create, so that the views below stay valid
  std::unordered_map<std::string_view, int32_t> ids_;
  size_t longest_bytes_ = 0;
};

}  // namespace pensieve::tokenizer
