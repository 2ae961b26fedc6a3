#include "engine/step_batch.h"

namespace pensieve::engine {

StepBatch::StepBatch(int64_t rows_max, int64_t block_len) : block_len_(block_len) {
  const auto rows = static_cast<size_t>(rows_max);
  members_.reserve(rows);
  tokens_.reserve(rows);
  positions_.reserve(rows);
  pieces_.reserve(rows);
  owners_.reserve(rows);
  output_rows_.reserve(rows);
}

void StepBatch::Clear() {
  precise_rows_ = 0;
  members_.clear();
  tokens_.clear();
  positions_.clear();
  pieces_.clear();
  owners_.clear();
  output_rows_.clear();
}

void StepBatch::Add(Sequence& sequence, int64_t num_rows, bool wants_output) {
  PENSIEVE_CHECK(num_rows > 0 && num_rows <= sequence.rows_pending());
  members_.push_back({.sequence = &sequence, .num_rows = num_rows, .wants_output = wants_output});
}

void StepBatch::Seal() {
  PENSIEVE_CHECK(tokens_.empty());
  for (Member& member : members_) LayOut(member, /*precise=*/true);
  precise_rows_ = static_cast<int64_t>(tokens_.size());
  for (Member& member : members_) LayOut(member, /*precise=*/false);
}

void StepBatch::LayOut(Member& member, bool precise) {
  Sequence& sequence = *member.sequence;
  const int64_t end = sequence.computed_len + member.num_rows;
  for (int64_t first = sequence.computed_len; first < end;) {
    const int64_t run_end = sequence.RunEnd(first, end);
    if (sequence.is_precise(first) == precise) AddPiece(sequence, first, run_end);
    first = run_end;
  }
  if (!member.wants_output || sequence.is_precise(end - 1) != precise) return;
  member.output_idx = static_cast<int64_t>(output_rows_.size());
  output_rows_.push_back(static_cast<int32_t>(tokens_.size()) - 1);
}

void StepBatch::AddPiece(Sequence& sequence, int64_t first, int64_t end) {
  const auto first_row = static_cast<int64_t>(tokens_.size());
  for (int64_t position = first; position < end; ++position) {
    tokens_.push_back(sequence.tokens[static_cast<size_t>(position)]);
    positions_.push_back(static_cast<int32_t>(position));
  }
  std::span<const int32_t> block_table;
  if (!sequence.block_table.empty()) {
    const auto num_blocks = static_cast<size_t>((end + block_len_ - 1) / block_len_);
    PENSIEVE_CHECK(num_blocks <= sequence.block_table.size());
    block_table = std::span(sequence.block_table).first(num_blocks);
  }
  pieces_.push_back({first_row, end - first, first, block_table, sequence.long_rope});
  owners_.push_back(&sequence);
}

model::Batch StepBatch::batch() const {
  return {.rows = static_cast<int64_t>(tokens_.size()),
          .ids = tokens_,
          .positions = positions_,
          .sequences = pieces_,
          .precise_rows = precise_rows_,
          .output_rows = output_rows_};
}

}  // namespace pensieve::engine
