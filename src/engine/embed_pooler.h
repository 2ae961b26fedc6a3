// From hidden states to embedding vectors. Encoders see a text whole, so the backend pools it. Decoders may see it in
// several chunks, cut differently from run to run: their rows are then gathered here, in row order in f32, also when
// there is only one chunk, so that the vector never depends on the cut. Engine-thread-only.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "backend/backend.h"
#include "engine/sequence.h"
#include "model/model.h"

namespace pensieve::engine {

class EmbedPooler {
 public:
  // `backend` and `network` must outlive the pooler. At most `sequences_max` texts a step.
  static Result<EmbedPooler> Create(backend::Backend& backend, model::Model& network, int64_t sequences_max);

  // Whole texts, the sequences of the present step: pools the rows of each of `members` into its place in the request's
  // embeddings.
  Status PoolWhole(backend::Matrix hidden, std::span<Sequence* const> members);

  // One chunk of a text, before its computed_len moves on. After the last chunk the vector is in its place.
  Status PoolChunk(backend::Matrix hidden, Sequence& sequence, const backend::SequenceRows& rows);

 private:
  EmbedPooler(backend::Backend& backend, model::Model& network, backend::Matrix pooled);
  // The first `rows` of pooled_ as vectors: projected as the model asks and normalized if wanted.
  backend::Matrix ToVectors(int64_t rows, bool normalize);
  Status CopyOut(const Sequence& sequence, backend::Matrix vectors, int64_t row);

  backend::Backend* backend_;
  model::Model* network_;
  backend::Matrix pooled_;       // [sequences_max, hidden_size]
  std::vector<float> host_row_;  // [hidden_size]
};

}  // namespace pensieve::engine
