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

// The first positions of every sequence of a decoder are precise rows. Rounding there costs the most: all later tokens look
// at them (attention sinks), and their own activations are the largest. On the default model, rounding them causes half
// of the divergence over the first 256 positions. 64 of them in two planes cost 5 % of a prefill of 512 tokens.
// docs/exactness.md states the whole rule.
inline constexpr int64_t kPrecisePositions = 64;

// The rows of one step, back to back, no padding; precise rows come first. Query factors are the network's own.
using Batch = backend::StepInputs;

class Model {
 public:
  virtual ~Model() = default;

  virtual const ModelConfig& config() const = 0;
  // Rows that one Forward may hold; activations are planned for it at load.
  virtual int64_t rows_max() const = 0;
  // Rows of one Forward whose logits may be wanted; at most rows_max.
  virtual int64_t outputs_max() const { return rows_max(); }
  // Bytes of weights that one decode step streams: the numerator of read_bandwidth_percent.
  virtual int64_t weight_bytes_per_step() const = 0;
  // Whether a sequence that will hold at most `planned_len` tokens (prompt and answer) is computed with the model's
  // long-context rotation. All passes of one sequence must say the same in SequenceRows::long_rope.
  virtual bool UsesLongRope(int64_t /*planned_len*/) const { return false; }

  // Both begin a step of the backend with `batch`, whose memory stays as it is until the caller has ended the step.
  //
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
