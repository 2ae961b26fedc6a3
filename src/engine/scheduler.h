// Which rows are computed in the next step. Pure functions over lengths: no blocks, no requests, no clock.
//
// Decoders: first every sequence that waits for its next token, one row each, for these people are reading. What is
// left of the row budget is shared among the sequences in prefill: the oldest gets at least half, so that nobody can
// starve it; the others get the rest, shortest first, so that a short prompt does not wait for a long one.
// Encoders: texts run whole. Requests take turns, one text at a time, and the turn passes on with every step.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

namespace pensieve::engine {

// A running sequence of a decoder.
struct SequenceView {
  int64_t rows_pending = 0;  // > 0
  bool decode = false;       // exactly one row, of the answer
  bool paused = false;       // left out of this step
};

// Rows for each of `sequences` (oldest first) in the next step, 0 for none; their sum is at most `rows_max` >= 1.
// A caller that keeps fewer than `rows_max` sequences running always sees prefill go on.
class DecoderScheduler {
 public:
  std::span<const int64_t> Plan(std::span<const SequenceView> sequences, int64_t rows_max);

 private:
  std::vector<int64_t> rows_;
  std::vector<size_t> prefills_;  // scratch: indexes of sequences in prefill
};

// A text of an encoder's step: which request of the list, which of its texts.
struct EncoderGrant {
  size_t request_idx = 0;
  size_t input_idx = 0;
};

struct EncoderLimits {
  int64_t rows_max = 0;  // rows of the step; a first text that is longer runs alone
  int64_t sequences_max = 0;
};

// `input_lens`: for each waiting request, in the order of their turns, the lengths of the texts it still waits for.
std::vector<EncoderGrant> PlanEncoderStep(std::span<const std::span<const int64_t>> input_lens,
                                          const EncoderLimits& limits);

}  // namespace pensieve::engine
