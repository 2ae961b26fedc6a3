// Drawing by the definition: candidates sorted, sums in f64.
#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "backend/checks.h"
#include "backend/reference/reference_backend.h"

namespace pensieve::backend::reference {
namespace {

struct Candidate {
  int32_t id;
  double logit;
  double weight;
};

// All usable ones, the most probable first.
std::vector<Candidate> Sorted(std::span<const float> logits) {
  std::vector<Candidate> candidates;
  for (size_t i = 0; i < logits.size(); ++i) {
    const float logit = logits[i];
    if (std::isnan(logit) || logit == -std::numeric_limits<float>::infinity()) continue;
    const double bounded = std::min(static_cast<double>(logit), static_cast<double>(std::numeric_limits<float>::max()));
    candidates.push_back({static_cast<int32_t>(i), bounded, 0.0});
  }
  std::stable_sort(candidates.begin(), candidates.end(),
                   [](const Candidate& a, const Candidate& b) { return a.logit > b.logit; });
  return candidates;
}

double TotalWeight(const std::vector<Candidate>& candidates) {
  double total = 0.0;
  for (const Candidate& candidate : candidates) total += candidate.weight;
  return total;
}

}  // namespace

int32_t DrawToken(std::span<const float> logits, const DrawParams& params) {
  if (!IsDrawable(logits, params)) return kNoToken;
  if (params.vocab_limit > 0) logits = logits.first(std::min(logits.size(), static_cast<size_t>(params.vocab_limit)));
  std::vector<Candidate> candidates = Sorted(logits);
  if (candidates.empty()) return kNoToken;
  if (params.temperature == 0.0f) return candidates.front().id;
  const double largest = candidates.front().logit;
  for (Candidate& candidate : candidates) {
    candidate.weight = std::exp((candidate.logit - largest) / static_cast<double>(params.temperature));
  }
  if (params.top_k > 0 && candidates.size() > static_cast<size_t>(params.top_k)) {
    candidates.resize(static_cast<size_t>(params.top_k));
  }
  if (params.top_p < 1.0f) {
    const double wanted = static_cast<double>(params.top_p) * TotalWeight(candidates);
    double sum = 0.0;
    size_t kept = 0;
    while (kept < candidates.size() && sum < wanted) sum += candidates[kept++].weight;
    candidates.resize(std::max<size_t>(1, kept));
  }
  std::erase_if(candidates, [&](const Candidate& c) { return c.weight < static_cast<double>(params.min_p); });
  std::sort(candidates.begin(), candidates.end(), [](const Candidate& a, const Candidate& b) { return a.id < b.id; });
  const double target = params.unit * TotalWeight(candidates);
  double sum = 0.0;
  for (const Candidate& candidate : candidates) {
    sum += candidate.weight;
    if (target < sum) return candidate.id;
  }
  return candidates.back().id;
}

void ReferenceBackend::Draw(Matrix logits, std::span<const int32_t> rows, std::span<const DrawParams> params) {
  CheckDraw(logits, rows, params);
  drawn_.clear();
  for (size_t i = 0; i < rows.size(); ++i) {
    const float* row = View(logits).row(rows[i]);
    drawn_.push_back(DrawToken({row, static_cast<size_t>(logits.cols)}, params[i]));
  }
}

}  // namespace pensieve::backend::reference
