#include "engine/step_batch.h"

namespace pensieve::engine {

StepBatch::StepBatch(int64_t rows_max, int64_t block_len) : block_len_(block_len) {
  const auto rows = static_cast<size_t>(rows_max);
  members_.reserve(rows);
  tokens_.reserve(rows);
  positions_.reserve(rows);
  sequences_.reserve(rows);
  output_rows_.reserve(rows);
  long_rope_.reserve(rows);
}

void StepBatch::Clear() {
  fine_rows_ = 0;
  members_.clear();
  tokens_.clear();
  positions_.clear();
  sequences_.clear();
  output_rows_.clear();
  long_rope_.clear();
}

void StepBatch::Add(Sequence& sequence, int64_t num_rows, bool wants_output) {
  const int64_t first_row = this->num_rows();
  const int64_t first = sequence.computed_len;
  PENSIEVE_CHECK(num_rows > 0 && first + num_rows <= sequence.len());
  if (!sequence.in_prefill()) {
    PENSIEVE_CHECK(fine_rows_ == first_row);
    fine_rows_ += num_rows;
  } else {
    PENSIEVE_CHECK(first + num_rows <= sequence.prompt_len);
  }
  for (int64_t position = first; position < first + num_rows; ++position) {
    tokens_.push_back(sequence.tokens[static_cast<size_t>(position)]);
    positions_.push_back(static_cast<int32_t>(position));
  }
  std::span<const int32_t> block_table;
  if (!sequence.block_table.empty()) {
    const auto num_blocks = static_cast<size_t>((first + num_rows + block_len_ - 1) / block_len_);
    PENSIEVE_CHECK(num_blocks <= sequence.block_table.size());
    block_table = std::span(sequence.block_table).first(num_blocks);
  }
  members_.push_back(&sequence);
  sequences_.push_back({first_row, num_rows, first, block_table});
  long_rope_.push_back(sequence.long_rope ? 1 : 0);
  if (wants_output) output_rows_.push_back(static_cast<int32_t>(this->num_rows() - 1));
}

model::Batch StepBatch::batch() const {
  return {tokens_, positions_, sequences_, fine_rows_, output_rows_, long_rope_};
}

}  // namespace pensieve::engine
