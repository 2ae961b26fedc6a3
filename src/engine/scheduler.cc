#include "engine/scheduler.h"

#include <algorithm>

namespace pensieve::engine {

std::span<const int64_t> DecoderScheduler::Plan(std::span<const SequenceView> sequences, int64_t rows_max) {
  rows_.assign(sequences.size(), 0);
  prefills_.clear();
  int64_t budget = rows_max;
  for (size_t i = 0; i < sequences.size(); ++i) {
    if (sequences[i].paused) continue;
    if (!sequences[i].decode) {
      prefills_.push_back(i);
    } else if (budget > 0) {
      rows_[i] = 1;
      --budget;
    }
  }
  if (prefills_.empty()) return rows_;

  const auto grant = [&](size_t i, int64_t rows_limit) {
    const int64_t rows = std::min({sequences[i].rows_pending - rows_[i], rows_limit, budget});
    rows_[i] += rows;
    budget -= rows;
  };
  const size_t oldest = prefills_.front();
  grant(oldest, (budget + 1) / 2);
  // Ties go to the older one.
  std::sort(prefills_.begin() + 1, prefills_.end(), [&](size_t a, size_t b) {
    const int64_t rows_a = sequences[a].rows_pending;
    const int64_t rows_b = sequences[b].rows_pending;
    return rows_a != rows_b ? rows_a < rows_b : a < b;
  });
  for (size_t k = 1; k < prefills_.size(); ++k) grant(prefills_[k], budget);
  grant(oldest, budget);
  return rows_;
}

std::vector<EncoderGrant> PlanEncoderStep(std::span<const std::span<const int64_t>> input_lens,
                                          const EncoderLimits& limits) {
  std::vector<EncoderGrant> grants;
  std::vector<size_t> taken(input_lens.size(), 0);
  int64_t rows = 0;
  bool progress = true;
  while (progress) {
    progress = false;
    for (size_t r = 0; r < input_lens.size(); ++r) {
      if (taken[r] == input_lens[r].size() || static_cast<int64_t>(grants.size()) == limits.sequences_max) continue;
      const int64_t len = input_lens[r][taken[r]];
      if (!grants.empty() && rows + len > limits.rows_max) continue;
      grants.push_back({r, taken[r]++});
      rows += len;
      progress = true;
    }
  }
  return grants;
}

}  // namespace pensieve::engine
