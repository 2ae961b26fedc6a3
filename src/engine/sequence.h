// A token stream in the engine: a prompt with its answer, or one text to embed.
//
// Lengths keep cached_len <= computed_len <= tokens.size() <= len_max. Whether a token's row is precise depends on the
// token's place alone: the first positions are (model::kPrecisePositions), and so is what the model said, in this answer or
// in an earlier turn. So a row that is computed again, after a preemption or in the next turn, has the same bits.
// Engine-thread-only.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "backend/backend.h"
#include "engine/mask_worker.h"
#include "engine/prefix_cache.h"
#include "engine/request.h"
#include "sampling/sampler.h"

namespace pensieve::engine {

struct Sequence {
  // Takes the prompt out of `request` (input `index` of an embed request). `context_max` limits prompt and answer
  // together.
  Sequence(std::shared_ptr<Request> request, size_t index, int64_t context_max, int64_t block_len,
           int64_t precise_positions);
  // The next token of the answer.
  void Append(int32_t token);

  std::shared_ptr<Request> request;
  size_t input_idx = 0;
  std::optional<sampling::Sampler> sampler;  // generate only; set by the core

  std::vector<int32_t> tokens;  // prompt, then answer
  // What the prefix cache must find equal: each token's id, as ~id where its row is precise. As long as `tokens`.
  std::vector<int32_t> row_keys;
  int64_t prompt_len = 0;
  int64_t cached_len = 0;    // of these, K and V came from the prefix cache
  int64_t computed_len = 0;  // K and V are in the blocks
  int64_t len_max = 0;       // tokens.size() never exceeds it
  bool long_rope = false;    // the model's choice for len_max tokens, for the sequence's whole life

  std::vector<int32_t> block_table;
  PrefixCache::Node* shared_tip = nullptr;  // the first shared_blocks of block_table are this path of the prefix cache
  int64_t shared_blocks = 0;
  bool share_more = false;  // later blocks may still be shared

  // Of a constrained answer: what may be drawn next, and the logits that wait for it.
  std::shared_ptr<NextMask> next_mask;
  std::vector<float> held_logits;
  bool holds_logits = false;

  // This step leaves it out: its stream is full, its mask is late, or an older sequence computes its next block.
  bool paused = false;
  bool done = false;  // holds nothing any more and leaves the lists at the next sweep

  std::vector<float> pooled;  // decoder embeddings under mean or max pooling: the rows so far

  int64_t len() const { return static_cast<int64_t>(tokens.size()); }
  // Rows to compute before the next token can be drawn (or the text pooled).
  int64_t rows_pending() const { return len() - computed_len; }
  bool in_prefill() const { return computed_len < prompt_len; }
  bool is_precise(int64_t position) const { return row_keys[static_cast<size_t>(position)] < 0; }
  // Where the run of rows with the precision of row `first` ends, `end` at the latest.
  int64_t RunEnd(int64_t first, int64_t end) const;
  // Whom it may share KV blocks with.
  CachePartition Partition() const { return {request->generate.cache_partition, long_rope}; }
  int64_t answer_len() const { return len() - prompt_len; }
  // Whether the next prompt block may come from the prefix cache: one prompt row is always left to compute.
  bool CanShareBlock(int64_t block_len) const {
    return share_more && in_prefill() && (shared_blocks + 1) * block_len < prompt_len;
  }
  // The keys of block `shared_blocks`, which is full.
  std::span<const int32_t> NextSharedKeys(int64_t block_len) const {
    return std::span(row_keys).subspan(static_cast<size_t>(shared_blocks * block_len), static_cast<size_t>(block_len));
  }
  // Older first: by arrival, then by input.
  bool Before(const Sequence& other) const;
  // Forgets what was computed (its blocks were given back); the tokens stay.
  void Restart();
  void CheckInvariant() const;
};

}  // namespace pensieve::engine
