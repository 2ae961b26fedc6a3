// The ragged batch of one step, built row by row into buffers that are kept between steps. Engine-thread-only.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "engine/sequence.h"
#include "model/model.h"

namespace pensieve::engine {

class StepBatch {
 public:
  StepBatch(int64_t rows_max, int64_t block_len);

  void Clear();
  // The next `num_rows` rows of `sequence`, which must outlive the step. Sequences in decode come before those in
  // prefill. With `wants_output` the last of them gives logits.
  void Add(Sequence& sequence, int64_t num_rows, bool wants_output);

  bool empty() const { return members_.empty(); }
  int64_t num_rows() const { return static_cast<int64_t>(tokens_.size()); }
  std::span<Sequence* const> members() const { return members_; }                  // in row order
  std::span<const backend::SequenceRows> sequences() const { return sequences_; }  // of each member
  // Valid until the next Clear or Add.
  model::Batch batch() const;

 private:
  const int64_t block_len_;
  int64_t fine_rows_ = 0;
  std::vector<Sequence*> members_;
  std::vector<int32_t> tokens_;
  std::vector<int32_t> positions_;
  std::vector<backend::SequenceRows> sequences_;
  std::vector<int32_t> output_rows_;
  std::vector<uint8_t> long_rope_;
};

}  // namespace pensieve::engine
