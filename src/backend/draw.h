// From a row of logits to one token. Pure: the random number is a parameter.
//
//   1. NaN -> -infinity, +infinity -> the largest float (MakeComparable)
//   2. temperature 0: the largest logit, lowest id among equals. Done.
//   3. top_k: the k largest logits
//   4. weights exp((logit - max) / temperature)
//   5. top_p: the shortest run of the most probable candidates whose share of all weights reaches top_p
//   6. min_p: candidates with at least min_p times the weight of the most probable one
//   7. draw in proportion to the weights: the first id at which the running sum of weights passes unit * their total
//
// "Most probable first" always means logit descending, then id ascending, so that sets and draws are the same with
// every standard library. What a filter drops weighs nothing; draws run through the others in order of ids.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

namespace pensieve::backend {

struct DrawParams {
  float temperature = 1.0f;  // 0: greedy
  int32_t top_k = 0;         // 0: off
  float top_p = 1.0f;        // (0, 1]
  float min_p = 0.0f;        // [0, 1)
  double unit = 0.0;         // the draw's random number, [0, 1); not read when greedy
  int32_t vocab_limit = 0;   // > 0: ids from here on are never drawn
};

// Drawn when a logit is NaN or infinite: what the others say is then damaged too.
inline constexpr int32_t kNoToken = -1;

// Whether all logits that may be drawn are finite. Else nothing may be drawn: kNoToken.
bool IsDrawable(std::span<const float> logits, const DrawParams& params);

// Step 1, in place.
void MakeComparable(std::span<float> logits);

// Draws, and keeps the memory that this takes (about 5 floats an id) between draws. Thread-compatible.
class TokenDrawer {
 public:
  // Makes room for `vocab_size` ids, so that Draw allocates nothing.
  void Reserve(int64_t vocab_size);
  // Steps 2 to 7 over comparable logits [vocab].
  int32_t Draw(std::span<const float> logits, const DrawParams& params);

 private:
  struct Candidate {
    float logit;
    int32_t id;
    double weight;  // exp((logit - max) / temperature): a probability up to the common factor
  };

  int32_t DrawCandidate(std::span<const float> logits, float logit_max);
  int32_t DrawFromAll();
  void WeighAll(std::span<const float> logits, float logit_max);
  float FindLargest(std::span<const float> logits);
  void AddUp();
  void KeepUpTo(const Candidate& last, std::span<const float> logits);
  template <typename Take>
  void ForEachFrom(float floor, std::span<const float> logits, Take take) const;
  Candidate LastOfTopK(std::span<const float> logits);
  Candidate LastOfTopP(std::span<const float> logits, float logit_max);
  Candidate LastOfNear(double sum, double wanted);
  static bool Before(const Candidate& a, const Candidate& b);

  DrawParams params_;                 // of the present draw
  std::vector<float> weights_;        // exp((logit - max) / temperature), by id; whole blocks
  std::vector<double> block_sums_;    // of weights_, block by block
  std::vector<float> block_largest_;  // of the logits, block by block
  std::vector<float> block_order_;
  double total_ = 0.0;           // of weights_
  std::vector<Candidate> near_;  // those among which filters cut
};

}  // namespace pensieve::backend
