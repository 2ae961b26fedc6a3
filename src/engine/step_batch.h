// The ragged batch of one step, built into buffers that are kept between steps. Engine-thread-only.
//
// Members are added in any order; Seal lays out their rows, the precise ones of all members first. A member whose rows are
// of both precisions comes in several pieces.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "engine/sequence.h"
#include "model/model.h"

namespace pensieve::engine {

class StepBatch {
 public:
  struct Member {
    Sequence* sequence = nullptr;
    int64_t num_rows = 0;
    bool wants_output = false;
    int64_t output_idx = -1;  // its row of the logits; after Seal, if it wants one
  };

  StepBatch(int64_t rows_max, int64_t block_len);

  void Clear();
  // The next `num_rows` rows of `sequence`, which must outlive the step. With `wants_output` the last of them gives
  // logits.
  void Add(Sequence& sequence, int64_t num_rows, bool wants_output);
  // After the last Add.
  void Seal();

  bool empty() const { return members_.empty(); }
  std::span<const Member> members() const { return members_; }  // in the order of Add
  // After Seal. In row order; of one member in the order of its positions, but for the precise ones, which come first.
  std::span<const backend::SequenceRows> pieces() const { return pieces_; }
  std::span<Sequence* const> owners() const { return owners_; }  // of each piece
  // After Seal; valid until the next Clear.
  model::Batch batch() const;

 private:
  void LayOut(Member& member, bool precise);
  void AddPiece(Sequence& sequence, int64_t first, int64_t end);

  const int64_t block_len_;
  int64_t precise_rows_ = 0;
  std::vector<Member> members_;
  std::vector<int32_t> tokens_;
  std::vector<int32_t> positions_;
  std::vector<backend::SequenceRows> pieces_;
  std::vector<Sequence*> owners_;
  std::vector<int32_t> output_rows_;
};

}  // namespace pensieve::engine
