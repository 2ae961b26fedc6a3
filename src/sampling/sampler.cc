// The chain, in this order:
//
//   1. NaN -> -infinity, +infinity -> the largest float
//   2. raw log-probabilities, if wanted: logit - LogSumExp(logits), before anything else touches them
//   3. logit_bias: added
//   4. repetition_penalty: once per distinct id among the last penalty_window tokens of prompt and answer;
//      logit > 0 is divided by it, otherwise multiplied
//   5. presence_penalty + frequency_penalty * count: subtracted, for ids of the answer (not of the prompt)
//   6. banned ids, and those that a constraint does not allow: -infinity
//   7. temperature 0: the largest logit, lowest id among equals. Done.
//   8. top_k: the k largest logits
//   9. weights exp((logit - max) / temperature)
//  10. top_p: the shortest run of the most probable candidates whose share of all weights reaches top_p
//  11. min_p: candidates with at least min_p times the weight of the most probable one
//  12. draw in proportion to the weights
//
// "Most probable first" always means logit descending, then id ascending, so that sets and draws are the same with
// every standard library. What a filter drops weighs nothing; draws run through the others in order of ids.
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

Status OutOfRange(const char* field, double value, const char* range) {
  return InvalidArgument(fmt::format("{} is {}, but must lie in {}", field, value, range));
}

// Written so that NaN is outside of every range.
bool Within(float value, float low, float high) { return value >= low && value <= high; }

// Most words of a mask are all ones or all zeros.
void KeepAllowed(const TokenSet& allowed, std::span<float> logits) {
  const auto words = allowed.words();
  for (size_t first = 0; first < logits.size(); first += 64) {
    const uint64_t word = first / 64 < words.size() ? words[first / 64] : 0;
    if (word == ~uint64_t{0}) continue;
    const std::span<float> part = logits.subspan(first, std::min<size_t>(64, logits.size() - first));
    for (size_t i = 0; i < part.size(); ++i) part[i] = (word >> i & 1) != 0 ? part[i] : kMinusInfinity;
  }
}

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

void SamplerScratch::Reserve(int64_t vocab_size) {
  drawer.Reserve(vocab_size);
  raw.reserve(static_cast<size_t>(vocab_size));
  best.reserve(kTopLogprobsMax + 1);
}

Sampler::Sampler(SamplingParams params, std::shared_ptr<SamplerScratch> scratch)
    : params_(std::move(params)),
      random_(params_.seed),
      scratch_(scratch != nullptr ? std::move(scratch) : std::make_shared<SamplerScratch>()) {}

void Sampler::Reserve(int64_t tokens, int32_t vocab_size) {
  const auto distinct_max = static_cast<size_t>(std::min<int64_t>(tokens, vocab_size));
  if (CountsAll()) {
    seen_.reserve(distinct_max);
  } else if (params_.repetition_penalty != 1.0f) {
    history_.reserve(static_cast<size_t>(tokens));
    scratch_->window.reserve(static_cast<size_t>(std::min<int64_t>(tokens, params_.penalty_window)));
  }
  if (CountsAnswer()) answered_.reserve(distinct_max);
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

Sample Sampler::Draw(std::span<float> logits, std::span<const int32_t> banned, const TokenSet* allowed) {
  backend::MakeComparable(logits);
  if (WantsRaw()) scratch_->raw.assign(logits.begin(), logits.end());
  ApplyProcessors(logits);
  for (const int32_t id : banned) {
    if (id >= 0 && static_cast<size_t>(id) < logits.size()) logits[static_cast<size_t>(id)] = kMinusInfinity;
  }
  if (allowed != nullptr) KeepAllowed(*allowed, logits);
  Sample sample;
  sample.id = scratch_->drawer.Draw(logits, NextDraw());
  if (sample.id == kNoToken) return sample;
  if (WantsRaw()) Report(sample);
  Remember(sample.id);
  return sample;
}

backend::DrawParams Sampler::NextDraw() {
  const double unit = params_.temperature > 0.0f ? random_.NextUnit() : 0.0;
  return {.temperature = params_.temperature,
          .top_k = params_.top_k,
          .top_p = params_.top_p,
          .min_p = params_.min_p,
          .unit = unit};
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

void Sampler::ApplyProcessors(std::span<float> logits) {
  const auto vocab_size = static_cast<int32_t>(logits.size());
  for (const auto& [id, bias] : params_.logit_bias) {
    if (id < vocab_size) logits[static_cast<size_t>(id)] += bias;
  }
  if (params_.repetition_penalty != 1.0f) ApplyRepetition(logits);
  for (const Count& c : answered_) {
    const float penalty = params_.presence_penalty + params_.frequency_penalty * static_cast<float>(c.count);
    logits[static_cast<size_t>(c.id)] -= penalty;
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
  scratch_->window.assign(history_.end() - static_cast<std::ptrdiff_t>(window_len), history_.end());
  std::sort(scratch_->window.begin(), scratch_->window.end());
  scratch_->window.erase(std::unique(scratch_->window.begin(), scratch_->window.end()), scratch_->window.end());
  for (const int32_t id : scratch_->window) penalize(id);
}

void Sampler::Report(Sample& sample) {
  const std::span<const float> raw = scratch_->raw;
  std::vector<TokenLogprob>& best = scratch_->best;
  const double log_sum = LogSumExp(raw);
  const auto logprob = [&](float logit) { return static_cast<float>(static_cast<double>(logit) - log_sum); };
  if (params_.logprobs) sample.logprob = logprob(raw[static_cast<size_t>(sample.id)]);
  // An insertion into a list of at most 20, for the few logits that beat its last entry.
  best.clear();
  const auto wanted = static_cast<size_t>(params_.top_logprobs);
  for (size_t id = 0; wanted > 0 && id < raw.size(); ++id) {
    if (raw[id] == kMinusInfinity || (best.size() == wanted && raw[id] <= best.back().logprob)) continue;
    if (best.size() == wanted) best.pop_back();
    const auto at = std::upper_bound(best.begin(), best.end(), raw[id],
                                     [](float logit, const TokenLogprob& b) { return logit > b.logprob; });
    best.insert(at, {static_cast<int32_t>(id), raw[id]});
  }
  for (TokenLogprob& b : best) b.logprob = logprob(b.logprob);
  sample.top.assign(best.begin(), best.end());
}

}  // namespace pensieve::sampling
