// From a row of logits to one token: pure functions and a seeded random state, one Sampler per sequence.
//
// Order (processors, then filters): logit bias; repetition, presence and frequency penalties; temperature 0 -> argmax
// (lowest id among equals); else top_k -> softmax(logits / temperature) -> top_p -> min_p -> draw. Chain documented in sampler.cc.
// Thread-compatible. Vectors are kept between calls, so that steady state allocates nothing.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <utility>
#include <vector>

#include "base/status.h"

namespace pensieve::sampling {

struct SamplingParams {
  float temperature = 1.0f;         // 0: greedy
  int32_t top_k = 0;                // 0: off
  float top_p = 1.0f;               // (0, 1]
  float min_p = 0.0f;               // [0, 1)
  float repetition_penalty = 1.0f;  // > 0; logits of seen tokens are divided (if > 0) or multiplied by it
  float presence_penalty = 0.0f;    // [-2, 2]
  float frequency_penalty = 0.0f;   // [-2, 2]
  int32_t penalty_window = 64;      // last tokens (prompt and answer) that repetition_penalty looks at; -1: all
  uint64_t seed = 0;
  std::vector<std::pair<int32_t, float>> logit_bias;
  int32_t top_logprobs = 0;         // alternatives to report, 0..20
  bool logprobs = false;            // report the chosen token's log-probability (of the raw logits)
};

// InvalidArgument naming the field and its range.
Status Validate(const SamplingParams& params, int32_t vocab_size);

struct TokenLogprob {
  int32_t id = 0;
  float logprob = 0.0f;  // natural logarithm, over the raw logits (before penalties, temperature and filters)
};

struct Sample {
  int32_t id = 0;
  float logprob = 0.0f;                  // when params.logprobs
  std::vector<TokenLogprob> top;         // descending, when params.top_logprobs > 0
};

class Sampler {
 public:
  explicit Sampler(SamplingParams params);

  // Tokens that penalties should know of: the prompt once, before the first draw.
  void ObservePrompt(std::span<const int32_t> tokens);
  // Draws from `logits` [vocab] (changed in place) and remembers the result. `banned`: ids never drawn (EOG under
  // ignore_eos, tokens past the tokenizer's size).
  Sample Draw(std::span<float> logits, std::span<const int32_t> banned = {});

 private:
  struct State;
  SamplingParams params_;
  std::vector<int32_t> history_;
  std::vector<std::pair<float, int32_t>> candidates_;
  uint64_t random_state_[4];
};

// log(sum(exp(logits))) in f64, shifted by the maximum.
double LogSumExp(std::span<const float> logits);

}  // namespace pensieve::sampling
