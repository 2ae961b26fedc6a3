#include "backend/draw.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <functional>
#include <limits>
#include <numeric>

#include "base/finite.h"

// Compiled for several vector lengths, of which the processor's own is taken when the program starts; with the same
// results, for no product and sum is fused. (Sanitizers are not ready yet when that choice is made.)
#if defined(__x86_64__) && defined(__linux__) && !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__) && \
    !defined(__clang__)
#define PENSIEVE_VECTORS __attribute__((target_clones("arch=x86-64-v4", "arch=x86-64-v3", "default")))
#else
#define PENSIEVE_VECTORS
#endif

namespace pensieve::backend {
namespace {

constexpr float kMinusInfinity = -std::numeric_limits<float>::infinity();
// Weights below e^-87, the smallest normal float, are 0.
constexpr float kLogWeightMin = -87.0f;
// Logits' maxima and weights' sums are kept by blocks, so that a draw need not pass through all of them again.
constexpr size_t kBlock = 256;
// Sums that grow side by side, so that compilers make vectors of them.
constexpr size_t kSums = 16;
// How top_p finds where to cut: in buckets, until so few candidates are left that they are sorted.
constexpr size_t kBuckets = 512;
constexpr size_t kMostSorted = 64;

// Every number by itself and without branches, so that compilers make vectors of them: a vocabulary is up to 262,144
// long and is passed through for every token of every sequence.
PENSIEVE_VECTORS void MakeAllComparable(std::span<float> logits) {
  for (float& logit : logits) {
    const float bounded = logit > std::numeric_limits<float>::max() ? std::numeric_limits<float>::max() : logit;
    logit = logit == logit ? bounded : kMinusInfinity;
  }
}

PENSIEVE_VECTORS float LargestOf(std::span<const float> logits) {
  std::array<float, kSums> largest;
  largest.fill(kMinusInfinity);
  size_t i = 0;
  for (; i + kSums <= logits.size(); i += kSums) {
    for (size_t j = 0; j < kSums; ++j) largest[j] = largest[j] < logits[i + j] ? logits[i + j] : largest[j];
  }
  for (; i < logits.size(); ++i) largest[0] = std::max(largest[0], logits[i]);
  return *std::max_element(largest.begin(), largest.end());
}

// The first index of a value that is there.
PENSIEVE_VECTORS size_t FirstEqual(std::span<const float> logits, float value) {
  size_t first = 0;
  for (; first + kBlock <= logits.size(); first += kBlock) {
    size_t equal = 0;
    for (size_t i = first; i < first + kBlock; ++i) equal += logits[i] == value ? 1 : 0;
    if (equal > 0) break;
  }
  const auto at = std::find(logits.begin() + static_cast<std::ptrdiff_t>(first), logits.end(), value);
  return static_cast<size_t>(at - logits.begin());
}

// e^x for x <= 0 to 2e-7 of itself. With x = n ln 2 + r, |r| <= ln 2 / 2: e^x = 2^n e^r, e^r by its Taylor polynomial
// of degree 7. n is rounded by adding 1.5 * 2^23, whose last bit counts ones; ln 2 is taken off in two parts, the first
// of so few bits that n times it is exact.
float ExpOfNonPositive(float x) {
  constexpr float kRounder = 12582912.0f;
  const float bounded = x < kLogWeightMin ? kLogWeightMin : x;
  const float shifted = bounded * 1.44269504f + kRounder;
  const float n = shifted - kRounder;
  const float r = (bounded - n * 0.693359375f) + n * 2.12194440e-4f;
  float e = 1.0f / 5040.0f;
  for (const float c : {1.0f / 720.0f, 1.0f / 120.0f, 1.0f / 24.0f, 1.0f / 6.0f, 0.5f, 1.0f, 1.0f}) e = e * r + c;
  const auto exponent = (std::bit_cast<uint32_t>(shifted) - std::bit_cast<uint32_t>(kRounder) + 127u) << 23;
  return x < kLogWeightMin ? 0.0f : e * std::bit_cast<float>(exponent);
}

// weights[i] = exp((logits[i] - logit_max) * scale).
PENSIEVE_VECTORS void Weigh(std::span<const float> logits, float logit_max, float scale, float* weights) {
  for (size_t i = 0; i < logits.size(); ++i) weights[i] = ExpOfNonPositive((logits[i] - logit_max) * scale);
}

PENSIEVE_VECTORS double SumOfBlock(const float* weights) {
  std::array<float, kSums> sums = {};
  for (size_t i = 0; i < kBlock; i += kSums) {
    for (size_t j = 0; j < kSums; ++j) sums[j] += weights[i + j];
  }
  return std::accumulate(sums.begin(), sums.end(), 0.0);
}

PENSIEVE_VECTORS double SumAtLeast(std::span<const float> logits, std::span<const float> weights, float floor) {
  double total = 0.0;
  size_t first = 0;
  for (; first + kBlock <= logits.size(); first += kBlock) {
    std::array<float, kSums> sums = {};
    for (size_t i = first; i < first + kBlock; i += kSums) {
      for (size_t j = 0; j < kSums; ++j) sums[j] += logits[i + j] >= floor ? weights[i + j] : 0.0f;
    }
    total += std::accumulate(sums.begin(), sums.end(), 0.0);
  }
  for (; first < logits.size(); ++first) total += logits[first] >= floor ? static_cast<double>(weights[first]) : 0.0;
  return total;
}

// weights[i] = 0 where logits[i] is smaller than `floor`.
PENSIEVE_VECTORS void KeepAtLeast(std::span<const float> logits, float floor, std::span<float> weights) {
  for (size_t i = 0; i < logits.size(); ++i) weights[i] = logits[i] >= floor ? weights[i] : 0.0f;
}

// The same where it is as small.
PENSIEVE_VECTORS void KeepAbove(std::span<const float> logits, float floor, std::span<float> weights) {
  for (size_t i = 0; i < logits.size(); ++i) weights[i] = logits[i] > floor ? weights[i] : 0.0f;
}

PENSIEVE_VECTORS void DropLighter(std::span<float> weights, float threshold) {
  for (float& weight : weights) weight = weight < threshold ? 0.0f : weight;
}

// Weights of the logits from `low` to `high`, added up in ranges of equal width, the most probable first.
class Buckets {
 public:
  Buckets(float low, float high) : high_(high), scale_(static_cast<float>(kBuckets) / (high - low)) {}
  size_t Of(float logit) const {
    const float place = (high_ - logit) * scale_;
    return place < static_cast<float>(kBuckets - 1) ? static_cast<size_t>(place) : kBuckets - 1;
  }
  void Add(float logit, double weight) { sums_[Of(logit)] += weight; }
  // The bucket in which `sum` reaches `wanted`; `sum` grows by those before.
  size_t Pass(double wanted, double& sum) const {
    size_t bucket = 0;
    for (; bucket + 1 < kBuckets && sum + sums_[bucket] < wanted; ++bucket) sum += sums_[bucket];
    return bucket;
  }

 private:
  float high_;
  float scale_;
  std::array<double, kBuckets> sums_ = {};
};

}  // namespace

void MakeComparable(std::span<float> logits) { MakeAllComparable(logits); }

void TokenDrawer::Reserve(int64_t vocab_size) {
  const auto size = static_cast<size_t>(vocab_size);
  const size_t blocks = (size + kBlock - 1) / kBlock;
  weights_.reserve(blocks * kBlock);
  block_sums_.reserve(blocks);
  block_largest_.reserve(blocks);
  block_order_.reserve(blocks);
  near_.reserve(size);
}

bool IsDrawable(std::span<const float> logits, const DrawParams& params) {
  if (params.vocab_limit > 0) logits = logits.first(std::min(logits.size(), static_cast<size_t>(params.vocab_limit)));
  return AllFinite(logits);
}

int32_t TokenDrawer::Draw(std::span<const float> logits, const DrawParams& params) {
  if (params.vocab_limit > 0) logits = logits.first(std::min(logits.size(), static_cast<size_t>(params.vocab_limit)));
  const float largest = FindLargest(logits);
  if (largest == kMinusInfinity) return kNoToken;
  if (params.temperature == 0.0f) return static_cast<int32_t>(FirstEqual(logits, largest));
  params_ = params;
  return DrawCandidate(logits, largest);
}

float TokenDrawer::FindLargest(std::span<const float> logits) {
  block_largest_.clear();
  for (size_t first = 0; first < logits.size(); first += kBlock) {
    block_largest_.push_back(LargestOf(logits.subspan(first, std::min(kBlock, logits.size() - first))));
  }
  return LargestOf(block_largest_);
}

bool TokenDrawer::Before(const Candidate& a, const Candidate& b) {
  return a.logit != b.logit ? a.logit > b.logit : a.id < b.id;
}

// A target in [0, total) picks the first number at which the running sum of weights passes it. Rounding of the sums may
// leave the target at the very end: the last with any weight then.
int32_t TokenDrawer::DrawFromAll() {
  const double target = params_.unit * total_;
  double sum = 0.0;
  int32_t last = kNoToken;
  for (size_t block = 0; block < block_sums_.size(); ++block) {
    const double after = sum + block_sums_[block];
    if (target < after || block + 1 == block_sums_.size()) {
      for (size_t id = block * kBlock; id < (block + 1) * kBlock; ++id) {
        if (weights_[id] == 0.0f) continue;
        last = static_cast<int32_t>(id);
        sum += static_cast<double>(weights_[id]);
        if (target < sum) return last;
      }
    }
    sum = after;
  }
  for (size_t id = weights_.size(); last == kNoToken && id-- > 0;) {
    if (weights_[id] > 0.0f) last = static_cast<int32_t>(id);
  }
  return last;
}

int32_t TokenDrawer::DrawCandidate(std::span<const float> logits, float logit_max) {
  WeighAll(logits, logit_max);
  const bool top_k = params_.top_k > 0 && static_cast<size_t>(params_.top_k) < logits.size();
  const bool top_p = params_.top_p < 1.0f;
  if (top_k) {
    KeepUpTo(LastOfTopK(logits), logits);
  } else if (top_p) {
    KeepUpTo(LastOfTopP(logits, logit_max), logits);
  }
  if (params_.min_p > 0.0f) DropLighter(weights_, params_.min_p);  // the largest weight is 1 by construction
  if (top_k || top_p || params_.min_p > 0.0f) AddUp();
  return DrawFromAll();
}

// Shifted by the maximum, so that the largest weight is 1 whatever the temperature.
void TokenDrawer::WeighAll(std::span<const float> logits, float logit_max) {
  const float scale = std::min(1.0f / params_.temperature, std::numeric_limits<float>::max());
  const size_t blocks = (logits.size() + kBlock - 1) / kBlock;
  weights_.resize(blocks * kBlock);
  std::fill(weights_.begin() + static_cast<std::ptrdiff_t>(logits.size()), weights_.end(), 0.0f);
  Weigh(logits, logit_max, scale, weights_.data());
  AddUp();
}

void TokenDrawer::AddUp() {
  block_sums_.clear();
  total_ = 0.0;
  for (size_t first = 0; first < weights_.size(); first += kBlock) {
    block_sums_.push_back(SumOfBlock(weights_.data() + first));
    total_ += block_sums_.back();
  }
}

// What comes behind `last` weighs nothing from now on.
void TokenDrawer::KeepUpTo(const Candidate& last, std::span<const float> logits) {
  const auto behind = static_cast<size_t>(last.id) + 1;
  const std::span<float> weights(weights_.data(), logits.size());
  KeepAtLeast(logits.first(behind), last.logit, weights.first(behind));
  KeepAbove(logits.subspan(behind), last.logit, weights.subspan(behind));
}

// Logits from `floor` up, ids ascending.
template <typename Take>
void TokenDrawer::ForEachFrom(float floor, std::span<const float> logits, Take take) const {
  for (size_t block = 0; block < block_largest_.size(); ++block) {
    if (block_largest_[block] < floor) continue;
    const size_t end = std::min(logits.size(), (block + 1) * kBlock);
    for (size_t i = block * kBlock; i < end; ++i) {
      if (logits[i] < floor || logits[i] == kMinusInfinity) continue;
      take(Candidate{logits[i], static_cast<int32_t>(i), static_cast<double>(weights_[i])});
    }
  }
}

// The last of the k most probable; with top_p the last of those among them.
TokenDrawer::Candidate TokenDrawer::LastOfTopK(std::span<const float> logits) {
  const auto top_k = static_cast<size_t>(params_.top_k);
  float floor = kMinusInfinity;
  if (top_k <= block_largest_.size()) {
    block_order_ = block_largest_;
    const auto kth = block_order_.begin() + static_cast<std::ptrdiff_t>(top_k - 1);
    std::nth_element(block_order_.begin(), kth, block_order_.end(), std::greater<>());
    floor = *kth;  // k blocks hold one at least that is as large
  }
  near_.clear();
  ForEachFrom(floor, logits, [&](const Candidate& c) { near_.push_back(c); });
  const auto end = near_.begin() + static_cast<std::ptrdiff_t>(std::min(top_k, near_.size()));
  std::nth_element(near_.begin(), end - 1, near_.end(), Before);
  if (params_.top_p >= 1.0f) return *(end - 1);
  near_.erase(end, near_.end());
  double total = 0.0;
  for (const Candidate& c : near_) total += c.weight;
  return LastOfNear(0.0, static_cast<double>(params_.top_p) * total);
}

// The most probable of near_ until all together, with `sum` from before, weigh `wanted`: the last of them.
TokenDrawer::Candidate TokenDrawer::LastOfNear(double sum, double wanted) {
  std::sort(near_.begin(), near_.end(), Before);
  for (const Candidate& c : near_) {
    sum += c.weight;
    if (sum >= wanted) return c;
  }
  return near_.back();
}

// Not by sorting, for a flat distribution keeps most of a vocabulary: logits are counted into buckets, and only the
// bucket in which the sum passes what is wanted is looked at more closely. Buckets never part equals, and a bucket's
// number never falls as logits do, whatever is rounded.
TokenDrawer::Candidate TokenDrawer::LastOfTopP(std::span<const float> logits, float logit_max) {
  const double wanted = static_cast<double>(params_.top_p) * total_;
  // Of a large vocabulary nearly all logits are far below those that matter.
  float floor = kMinusInfinity;
  for (float distance = 4.0f; floor == kMinusInfinity && distance < -kLogWeightMin; distance *= 1.5f) {
    const float lower = logit_max - distance * params_.temperature;
    if (SumAtLeast(logits, weights_, lower) >= wanted) floor = lower;
  }
  float lowest = floor;
  if (floor == kMinusInfinity) {
    lowest = logit_max;
    ForEachFrom(floor, logits, [&](const Candidate& c) { lowest = std::min(lowest, c.logit); });
  }
  double sum = 0.0;  // of all that are more probable than the bucket
  Buckets buckets(lowest, logit_max);
  ForEachFrom(floor, logits, [&](const Candidate& c) { buckets.Add(c.logit, c.weight); });
  size_t passed = buckets.Pass(wanted, sum);
  near_.clear();
  ForEachFrom(floor, logits, [&](const Candidate& c) {
    if (buckets.Of(c.logit) == passed) near_.push_back(c);
  });
  while (near_.size() > kMostSorted) {
    const auto [low, high] =
        std::minmax_element(near_.begin(), near_.end(), [](const auto& a, const auto& b) { return a.logit < b.logit; });
    buckets = Buckets(low->logit, high->logit);
    for (const Candidate& c : near_) buckets.Add(c.logit, c.weight);
    passed = buckets.Pass(wanted, sum);
    if (std::erase_if(near_, [&](const Candidate& c) { return buckets.Of(c.logit) != passed; }) == 0) break;
  }
  return LastOfNear(sum, wanted);
}

}  // namespace pensieve::backend
