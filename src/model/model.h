// A loaded network, written once per architecture over backend/. Knows tokens and rows; knows no request and no text.
//
// Engine-thread-only: Forward and Hidden mutate planned activations.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "backend/backend.h"
#include "base/status.h"
#include "model/config.h"

namespace pensieve::model {

// The first positions of every sequence of a decoder are fine rows. Rounding there costs the most: all later tokens look
// at them (attention sinks), and their own activations are the largest. On the default model, rounding them causes half
// of the divergence over the first 256 positions. 64 of them in two planes cost 5 % of a prefill of 512 tokens.
// docs/exactness.md states the whole rule.
inline constexpr int64_t kFinePositions = 64;

// One ragged batch: the rows of all sequences back to back, no padding. Fine rows come first. A sequence whose rows are
// of both precisions comes in several pieces, each of one precision. Keys and values of all pieces are stored before any
// of them attends.
struct Batch {
  std::span<const int32_t> tokens;                     // [M] in [0, vocab_size)
  std::span<const int32_t> positions;                  // [M]
  std::span<const backend::SequenceRows> sequences;    // pieces, in row order
  int64_t fine_rows = 0;                               // leading rows that are computed finely
  std::span<const int32_t> output_rows;                // rows whose logits are wanted, ascending
  std::span<const uint8_t> long_rope;  // of each piece: Model::UsesLongRope of its planned length; empty: all 0
};

class Model {
 public:
  virtual ~Model() = default;

  virtual const ModelConfig& config() const = 0;
  // Rows that one Forward may hold; activations are planned for it at load.
  virtual int64_t rows_max() const = 0;
  // Bytes of weights that one decode step streams: the numerator of read_bandwidth_percent.
  virtual int64_t weight_bytes_per_step() const = 0;
  // Whether a sequence that will hold at most `planned_len` tokens (prompt and answer) is computed with the model's
  // long-context rotation. All passes of one sequence must say the same in Batch::long_rope.
  virtual bool UsesLongRope(int64_t /*planned_len*/) const { return false; }

  // Logits of batch.output_rows, [output_rows, vocab_size] in device memory, valid until the next call. Generators
  // only. Stores K and V of all rows in `cache`.
  virtual backend::Matrix Forward(const Batch& batch, backend::KvCache& cache) = 0;
  // Hidden states of all rows after the final norm, [M, hidden_size], valid until the next call. `cache` is null for
  // encoders.
  virtual backend::Matrix Hidden(const Batch& batch, backend::KvCache* cache) = 0;
  // What the model's makers do with pooled rows before they are normalized: [n <= rows_max, hidden_size] to
  // [n, embedding_size], perhaps `pooled` itself; valid until the next call.
  virtual backend::Matrix ProjectPooled(backend::Matrix pooled) { return pooled; }
};

}  // namespace pensieve::model
