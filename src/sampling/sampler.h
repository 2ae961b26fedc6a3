// From a row of logits to one token: pure functions and a seeded random state, one Sampler per sequence.
//
// Order (processors, then filters): logit bias; repetition, presence and frequency penalties; temperature 0 -> argmax
// (lowest id among equals); else top_k -> softmax(logits / temperature) -> top_p -> min_p -> draw. Chain documented in
// sampler.cc. Thread-compatible; so are the samplers of one SamplerScratch together. Vectors are kept between calls, so that steady state allocates nothing.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <utility>
#include <vector>

#include "backend/draw.h"
#include "base/status.h"
#include "sampling/random.h"
#include "sampling/token_set.h"

namespace pensieve::sampling {

struct SamplingParams {
  float temperature = 1.0f;         // 0: greedy; at most 100
  int32_t top_k = 0;                // 0: off
  float top_p = 1.0f;               // (0, 1]
  float min_p = 0.0f;               // [0, 1)
  float repetition_penalty = 1.0f;  // (0, 100]; logits of seen tokens are divided (if > 0) or multiplied by it
  float presence_penalty = 0.0f;    // [-2, 2]; once for every token that the answer holds
  float frequency_penalty = 0.0f;   // [-2, 2]; for every occurrence in the answer
  int32_t penalty_window = 64;      // last tokens (prompt and answer) that repetition_penalty looks at; -1: all
  uint64_t seed = 0;
  std::vector<std::pair<int32_t, float>> logit_bias = {};  // ids in the vocabulary, values [-100, 100]; added up
  int32_t top_logprobs = 0;                                // alternatives to report, 0..20
  bool logprobs = false;  // report the chosen token's log-probability (of the raw logits)
};

// InvalidArgument naming the field and its range.
Status Validate(const SamplingParams& params, int32_t vocab_size);

struct TokenLogprob {
  int32_t id = 0;
  float logprob = 0.0f;  // natural logarithm, over the raw logits (before penalties, temperature and filters)
};

struct Sample {
  int32_t id = 0;                 // kNoToken when no logit was usable
  float logprob = 0.0f;           // when params.logprobs
  std::vector<TokenLogprob> top;  // descending, when params.top_logprobs > 0
};

// What Draw gives when every logit is NaN, -infinity or banned: the caller decides, and no token is remembered.
inline constexpr int32_t kNoToken = backend::kNoToken;

// What draws need while they last, as large as the vocabulary: the samplers of one thread share it.
struct SamplerScratch {
  // Makes room, so that draws allocate nothing.
  void Reserve(int64_t vocab_size);

  backend::TokenDrawer drawer;
  std::vector<float> raw;       // logits as the model gave them, while log-probabilities are wanted
  std::vector<int32_t> window;  // the distinct ids of the penalty window
  std::vector<TokenLogprob> best;
};

class Sampler {
 public:
  // `params` were validated. Without `scratch` it has one of its own.
  explicit Sampler(SamplingParams params, std::shared_ptr<SamplerScratch> scratch = nullptr);

  // Makes room for a sequence of `tokens` (prompt and answer) over `vocab_size` ids, so that Draw never allocates
  // (reported alternatives apart).
  void Reserve(int64_t tokens, int32_t vocab_size);
  // Tokens that penalties should know of: the prompt once, before the first draw.
  void ObservePrompt(std::span<const int32_t> tokens);
  // Draws from `logits` [vocab] (changed in place) and remembers the result. `banned`: ids never drawn (EOG under
  // ignore_eos, tokens past the tokenizer's size); those outside the vocabulary are ignored. NaN counts as -infinity.
  // `allowed`, when given: no other ids are drawn.
  // A draw at temperature > 0 takes exactly one random number, so the n-th token of a seed does not depend on filters
  // before.
  Sample Draw(std::span<float> logits, std::span<const int32_t> banned = {}, const TokenSet* allowed = nullptr);

  // For draws on the device: whether a draw needs nothing but NextDraw's parameters, which then stand for one Draw.
  bool DrawsPlainly() const { return params_.logit_bias.empty() && !WantsRaw() && !CountsAnswer() && !CountsPrompt(); }
  // The parameters of the next draw; takes its random number.
  backend::DrawParams NextDraw();

 private:
  struct Count {
    int32_t id;
    int32_t count;
  };

  bool WantsRaw() const { return params_.logprobs || params_.top_logprobs > 0; }
  bool CountsAnswer() const { return params_.presence_penalty != 0.0f || params_.frequency_penalty != 0.0f; }
  bool CountsPrompt() const { return params_.repetition_penalty != 1.0f; }
  bool CountsAll() const { return CountsPrompt() && params_.penalty_window < 0; }
  void Remember(int32_t id);
  void ApplyProcessors(std::span<float> logits);
  void ApplyRepetition(std::span<float> logits);
  void Report(Sample& sample);
  static void Add(std::vector<Count>& counts, int32_t id);

  SamplingParams params_;
  Random random_;
  std::shared_ptr<SamplerScratch> scratch_;
  std::vector<int32_t> history_;  // prompt and answer, while repetition_penalty has a window
  std::vector<Count> seen_;       // ids of prompt and answer, ascending, while the window is everything
  std::vector<Count> answered_;   // ids of the answer, ascending
};

// log(sum(exp(logits))) in f64, shifted by the maximum. NaN counts as -infinity; -infinity for nothing at all.
double LogSumExp(std::span<const float> logits);

}  // namespace pensieve::sampling
