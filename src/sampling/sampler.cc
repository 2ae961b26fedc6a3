// The chain, in this order:
//
//   1. NaN -> -infinity, +infinity -> the largest float
//   2. raw log-probabilities, if wanted: logit - LogSumExp(logits), before anything else touches them
//   3. logit_bias: added
//   4. repetition_penalty: once per distinct id among the last penalty_window tokens of prompt and answer;
//      logit > 0 is divided by it, otherwise multiplied
//   5. presence_penalty + frequency_penalty * count: subtracted, for ids of the answer (not of the prompt)
//   6. banned ids: -infinity
//   7. temperature 0: the largest logit, lowest id among equals. Done.
//   8. top_k: the k largest logits
//   9. weights exp((logit - max) / temperature)
//  10. top_p: the shortest run of the most probable candidates whose share of all weights reaches top_p
//  11. min_p: candidates with at least min_p times the weight of the most probable one
//  12. draw in proportion to the weights
//
// "Most probable first" always means logit descending, then id ascending, so that sets and draws are the same with
// every standard library. Candidates stay in order of ids as long as no filter needs them sorted.
#include "sampling/sampler.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include <fmt/format.h>

namespace pensieve::sampling {
namespace {

constexpr float kMinusInfinity = -std::numeric_limits<float>::infinity();
constexpr int32_t kTopLogprobsMax = 20;
constexpr float kTemperatureMax = 100.0f;
constexpr float kRepetitionPenaltyMax = 100.0f;
constexpr float kPenaltyMax = 2.0f;
constexpr float kBiasMax = 100.0f;
// exp of this is 0 in f32; anything lower may not even be a float.
constexpr double kLogWeightMin = -1000.0;
// Candidates that the first round of top_p sorts: nearly always enough for a peaked distribution.
constexpr size_t kTopPFirstRound = 128;

Status OutOfRange(const char* field, double value, const char* range) {
  return InvalidArgument(fmt::format("{} is {}, but must lie in {}", field, value, range));
}

// Written so that NaN is outside of every range.
bool Within(float value, float low, float high) { return value >= low && value <= high; }

}  // namespace

Status Validate(const SamplingParams& params, int32_t vocab_size) {
  if (!Within(params.temperature, 0.0f, kTemperatureMax))
    return OutOfRange("temperature", params.temperature, "[0, 100]");
  if (params.top_k < 0) return OutOfRange("top_k", params.top_k, "[0, 2147483647]");
  if (!Within(params.top_p, 0.0f, 1.0f) || params.top_p == 0.0f) return OutOfRange("top_p", params.top_p, "(0, 1]");
  if (!Within(params.min_p, 0.0f, 1.0f) || params.min_p == 1.0f) return OutOfRange("min_p", params.min_p, "[0, 1)");
  if (!Within(params.repetition_penalty, 0.0f, kRepetitionPenaltyMax) || params.repetition_penalty == 0.0f)
    return OutOfRange("repetition_penalty", params.repetition_penalty, "(0, 100]");
  if (!Within(params.presence_penalty, -kPenaltyMax, kPenaltyMax))
    return OutOfRange("presence_penalty", params.presence_penalty, "[-2, 2]");
  if (!Within(params.frequency_penalty, -kPenaltyMax, kPenaltyMax))
    return OutOfRange("frequency_penalty", params.frequency_penalty, "[-2, 2]");
  if (params.penalty_window < -1) return OutOfRange("penalty_window", params.penalty_window, "[-1, 2147483647]");
  if (params.top_logprobs < 0 || params.top_logprobs > kTopLogprobsMax)
    return OutOfRange("top_logprobs", params.top_logprobs, "[0, 20]");
  if (params.logit_bias.size() > static_cast<size_t>(vocab_size))
    return InvalidArgument(
        fmt::format("logit_bias has {} entries, more than the vocabulary's {}", params.logit_bias.size(), vocab_size));
  for (const auto& [id, bias] : params.logit_bias) {
    if (id < 0 || id >= vocab_size)
      return InvalidArgument(fmt::format("logit_bias names token {}, but the vocabulary has {}", id, vocab_size));
    if (!Within(bias, -kBiasMax, kBiasMax)) return OutOfRange("a value of logit_bias", bias, "[-100, 100]");
  }
  return OkStatus();
}

double LogSumExp(std::span<const float> logits) {
  float logit_max = kMinusInfinity;
  for (const float logit : logits) logit_max = logit > logit_max ? logit : logit_max;  // NaN never wins
  if (std::isinf(logit_max)) return logit_max;
  double sum = 0.0;
  for (const float logit : logits) {
    if (!std::isnan(logit)) sum += std::exp(static_cast<double>(logit) - logit_max);
  }
  return logit_max + std::log(sum);
}

Sampler::Sampler(SamplingParams params) : params_(std::move(params)), random_(params_.seed) {}

void Sampler::Reserve(int64_t tokens, int32_t vocab_size) {
  const auto distinct_max = static_cast<size_t>(std::min<int64_t>(tokens, vocab_size));
  if (CountsAll()) {
    seen_.reserve(distinct_max);
  } else if (params_.repetition_penalty != 1.0f) {
    history_.reserve(static_cast<size_t>(tokens));
    window_.reserve(static_cast<size_t>(std::min<int64_t>(tokens, params_.penalty_window)));
  }
  if (CountsAnswer()) answered_.reserve(distinct_max);
  if (params_.temperature > 0.0f) candidates_.reserve(static_cast<size_t>(vocab_size));
  if (WantsRaw()) raw_.reserve(static_cast<size_t>(vocab_size));
  best_.reserve(static_cast<size_t>(params_.top_logprobs) + 1);
}

void Sampler::ObservePrompt(std::span<const int32_t> tokens) {
  if (params_.repetition_penalty == 1.0f) return;
  if (!CountsAll()) {
    history_.insert(history_.end(), tokens.begin(), tokens.end());
    return;
  }
  // Sorted as a whole: one insertion per token would be quadratic in the prompt.
  for (const int32_t id : tokens) seen_.push_back({id, 1});
  std::sort(seen_.begin(), seen_.end(), [](const Count& a, const Count& b) { return a.id < b.id; });
  seen_.erase(std::unique(seen_.begin(), seen_.end(), [](const Count& a, const Count& b) { return a.id == b.id; }),
              seen_.end());
}

Sample Sampler::Draw(std::span<float> logits, std::span<const int32_t> banned) {
  for (float& logit : logits) {
    if (std::isnan(logit)) logit = kMinusInfinity;
    if (logit > std::numeric_limits<float>::max()) logit = std::numeric_limits<float>::max();
  }
  if (WantsRaw()) raw_.assign(logits.begin(), logits.end());
  ApplyProcessors(logits, banned);

  const auto largest = std::max_element(logits.begin(), logits.end());  // the first among equals
  Sample sample;
  sample.id = kNoToken;
  if (largest == logits.end() || *largest == kMinusInfinity) return sample;
  sample.id =
      params_.temperature == 0.0f ? static_cast<int32_t>(largest - logits.begin()) : DrawCandidate(logits, *largest);
  if (WantsRaw()) Report(sample);
  Remember(sample.id);
  return sample;
}

void Sampler::Remember(int32_t id) {
  if (params_.repetition_penalty != 1.0f) {
    if (CountsAll()) {
      Add(seen_, id);
    } else {
      history_.push_back(id);
    }
  }
  if (CountsAnswer()) Add(answered_, id);
}

void Sampler::Add(std::vector<Count>& counts, int32_t id) {
  const auto at =
      std::lower_bound(counts.begin(), counts.end(), id, [](const Count& c, int32_t i) { return c.id < i; });
  if (at != counts.end() && at->id == id) {
    ++at->count;
  } else {
    counts.insert(at, {id, 1});
  }
}

void Sampler::ApplyProcessors(std::span<float> logits, std::span<const int32_t> banned) {
  const auto vocab_size = static_cast<int32_t>(logits.size());
  for (const auto& [id, bias] : params_.logit_bias) {
    if (id < vocab_size) logits[static_cast<size_t>(id)] += bias;
  }
  if (params_.repetition_penalty != 1.0f) ApplyRepetition(logits);
  for (const Count& c : answered_) {
    const float penalty = params_.presence_penalty + params_.frequency_penalty * static_cast<float>(c.count);
    logits[static_cast<size_t>(c.id)] -= penalty;
  }
  for (const int32_t id : banned) {
    if (id >= 0 && id < vocab_size) logits[static_cast<size_t>(id)] = kMinusInfinity;
  }
}

void Sampler::ApplyRepetition(std::span<float> logits) {
  const auto penalize = [&](int32_t id) {
    if (id < 0 || static_cast<size_t>(id) >= logits.size()) return;
    float& logit = logits[static_cast<size_t>(id)];
    logit = logit > 0.0f ? logit / params_.repetition_penalty : logit * params_.repetition_penalty;
  };
  if (CountsAll()) {
    for (const Count& c : seen_) penalize(c.id);
    return;
  }
  const size_t window_len = std::min(history_.size(), static_cast<size_t>(params_.penalty_window));
  window_.assign(history_.end() - static_cast<std::ptrdiff_t>(window_len), history_.end());
  std::sort(window_.begin(), window_.end());
  window_.erase(std::unique(window_.begin(), window_.end()), window_.end());
  for (const int32_t id : window_) penalize(id);
}

bool Sampler::Before(const Candidate& a, const Candidate& b) {
  return a.logit != b.logit ? a.logit > b.logit : a.id < b.id;
}

int32_t Sampler::DrawCandidate(std::span<const float> logits, float logit_max) {
  CollectCandidates(logits, logit_max);
  if (params_.top_p < 1.0f) KeepTopP();
  if (params_.min_p > 0.0f) KeepMinP();

  double total = 0.0;
  for (const Candidate& c : candidates_) total += c.weight;
  const double target = random_.NextUnit() * total;
  double sum = 0.0;
  int32_t last = kNoToken;
  for (const Candidate& c : candidates_) {
    if (c.weight == 0.0) continue;
    last = c.id;
    sum += c.weight;
    if (target < sum) break;
  }
  // Rounding of the sums may leave `target` at the very end: the last candidate with any weight then.
  return last;
}

void Sampler::CollectCandidates(std::span<const float> logits, float logit_max) {
  candidates_.clear();
  for (size_t id = 0; id < logits.size(); ++id) {
    if (logits[id] != kMinusInfinity) candidates_.push_back({logits[id], static_cast<int32_t>(id), 0.0});
  }
  const auto top_k = static_cast<size_t>(params_.top_k);
  if (top_k > 0 && top_k < candidates_.size()) {
    const auto end = candidates_.begin() + static_cast<std::ptrdiff_t>(top_k);
    std::nth_element(candidates_.begin(), end - 1, candidates_.end(), Before);
    candidates_.erase(end, candidates_.end());
    std::sort(candidates_.begin(), candidates_.end(), Before);
  }
  // Shifted by the maximum, so that the largest weight is 1 whatever the temperature.
  const double scale = 1.0 / static_cast<double>(params_.temperature);
  for (Candidate& c : candidates_) {
    c.weight =
        std::exp(static_cast<float>(std::max((static_cast<double>(c.logit) - logit_max) * scale, kLogWeightMin)));
  }
}

void Sampler::KeepTopP() {
  double total = 0.0;
  for (const Candidate& c : candidates_) total += c.weight;
  const double wanted = static_cast<double>(params_.top_p) * total;
  // Sorts growing prefixes until one is heavy enough: the vocabulary's tail is rarely needed.
  double sum = 0.0;
  size_t sorted = 0;
  size_t kept = 0;
  while (kept < candidates_.size() && sum < wanted) {
    if (kept == sorted) {
      const size_t round_end = std::min(candidates_.size(), std::max(kTopPFirstRound, sorted * 8));
      const auto first = candidates_.begin() + static_cast<std::ptrdiff_t>(sorted);
      const auto end = candidates_.begin() + static_cast<std::ptrdiff_t>(round_end);
      if (end != candidates_.end()) std::nth_element(first, end - 1, candidates_.end(), Before);
      std::sort(first, end, Before);
      sorted = round_end;
    }
    sum += candidates_[kept++].weight;
  }
  candidates_.resize(std::max<size_t>(kept, 1));
}

void Sampler::KeepMinP() {
  // The largest weight is 1 by construction.
  const auto threshold = static_cast<double>(params_.min_p);
  std::erase_if(candidates_, [threshold](const Candidate& c) { return c.weight < threshold; });
}

void Sampler::Report(Sample& sample) {
  const double log_sum = LogSumExp(raw_);
  const auto logprob = [&](float logit) { return static_cast<float>(static_cast<double>(logit) - log_sum); };
  if (params_.logprobs) sample.logprob = logprob(raw_[static_cast<size_t>(sample.id)]);
  // An insertion into a list of at most 20, for the few logits that beat its last entry.
  best_.clear();
  const auto wanted = static_cast<size_t>(params_.top_logprobs);
  for (size_t id = 0; wanted > 0 && id < raw_.size(); ++id) {
    if (raw_[id] == kMinusInfinity || (best_.size() == wanted && raw_[id] <= best_.back().logprob)) continue;
    if (best_.size() == wanted) best_.pop_back();
    const auto at = std::upper_bound(best_.begin(), best_.end(), raw_[id],
                                     [](float logit, const TokenLogprob& b) { return logit > b.logprob; });
    best_.insert(at, {static_cast<int32_t>(id), raw_[id]});
  }
  for (TokenLogprob& b : best_) b.logprob = logprob(b.logprob);
  sample.top.assign(best_.begin(), best_.end());
}

}  // namespace pensieve::sampling
