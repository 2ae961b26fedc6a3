// The engine: takes token ids and parameters, gives token events. One thread owns all mutable inference state of a
// model.
//
// Callers submit from any thread into one bounded queue (full: ResourceExhausted with a retry hint) and read events
// from a bounded queue per request (full: the engine pauses that sequence, never the loop). A step takes every running
// sequence's next token plus as much pending prefill as the row budget allows, as one ragged batch. Every request ends
// in exactly one terminal event: done, error or cancelled; its KV blocks are free at the next step.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/status.h"
#include "model/model.h"
#include "sampling/constraint.h"
#include "sampling/sampler.h"

namespace pensieve::engine {

struct EngineOptions {
  int64_t queue_depth_max = 64;             // waiting requests beyond sequences_max running ones
  int64_t sequences_max = 64;               // running at once
  int64_t step_rows_max = 512;              // rows of one step: decode rows plus prefill chunk; <= model rows_max
  int64_t context_max = 0;                  // tokens of one sequence, 0: the model's own
  int64_t kv_bytes_max = int64_t{1} << 30;  // size of the KV pool
  int64_t kv_block_len = 32;
  backend::KvDType kv_dtype = backend::KvDType::kF16;
  int64_t stream_depth_max = 256;  // undelivered events a request may hold
  // Whether the weights still are what they were, nothing: they are. Asked when a request comes, and with `quick` set
  // after every forward pass, before anything of it is used: an error ends the requests of that pass. Any thread.
  std::function<Status(bool quick)> check_weights;
};

enum class FinishReason : uint8_t {
  kStop,         // an end-of-generation token (not delivered as a token)
  kLength,       // new_tokens_max reached
  kContextFull,  // the context is full
};

// Tokens [first, end) of a prompt.
struct TokenRange {
  int64_t first = 0;
  int64_t end = 0;
};

struct GenerateRequest {
  std::string id;               // for logs
  std::vector<int32_t> prompt;  // 1..context_max - 1 ids in [0, vocab_size)
  // The tokens of the prompt that the model said in earlier turns, without those that ended its turns. They are computed
  // as they were when they were generated, so that their KV blocks can be shared. Sorted, disjoint, none empty, within
  // the prompt.
  std::vector<TokenRange> precise_ranges;
  int64_t new_tokens_max = 0;  // >= 0; 0 only prefills
  sampling::SamplingParams sampling;
  std::vector<int32_t> stop_ids;  // tokens that end generation; not delivered, not counted
  bool ignore_stop_ids = false;   // benchmarks: never draw a stop id
  int32_t vocab_limit = 0;        // > 0: ids from here on have a logit but no text, and are never drawn
  // What the answer must be, or null: the request's own, used by no other. It may have read the beginning of the answer.
  // Stop ids end the answer only where it allows that; where nothing else is left, the answer ends by itself.
  std::shared_ptr<sampling::Constraint> constraint;
  uint64_t cache_partition = 0;  // KV blocks are shared only between requests with the same number
};

struct EmbedRequest {
  std::string id;
  std::vector<std::vector<int32_t>> sequences;  // each 1..context_max ids
  backend::Pooling pooling = backend::Pooling::kMean;
  bool normalize = true;
};

// Timing and counts of a finished request. Times are seconds since submission.
struct RequestStats {
  int64_t prompt_tokens = 0;
  int64_t cached_prompt_tokens = 0;  // taken from shared KV blocks
  int64_t new_tokens = 0;
  double queue_s = 0;
  double first_token_s = 0;
  double total_s = 0;
};

struct Event {
  enum class Kind : uint8_t { kPrefillProgress, kToken, kDone, kError, kCancelled };
  Kind kind = Kind::kToken;
  sampling::Sample sample;                     // kToken
  int64_t prefilled_tokens = 0;                // kPrefillProgress
  FinishReason finish = FinishReason::kStop;   // kDone
  Status error;                                // kError
  RequestStats stats;                          // kDone, kError, kCancelled
  std::vector<std::vector<float>> embeddings;  // kDone of an embed request: one row per sequence

  bool terminal() const { return kind == Kind::kDone || kind == Kind::kError || kind == Kind::kCancelled; }
};

// The consumer's end of one request. Destroying it cancels the request. Thread-safe.
class EventStream {
 public:
  virtual ~EventStream() = default;
  // The next event if one is there. Nothing after the terminal event.
  virtual std::optional<Event> TryNext() = 0;
  // Waits for the next event. Nothing after the terminal event.
  virtual std::optional<Event> Next() = 0;
  // `wake` is called (from the engine thread, with no lock held, must not block or throw) whenever an event becomes
  // available after the stream was empty. Called once immediately if events are already waiting. When SetWaker returns, and when
  // the stream is destroyed, the previous waker is not running and will not run again (unless it is the caller itself).
  virtual void SetWaker(std::function<void()> wake) = 0;
  // The request stops within one step; its terminal event is then kCancelled (unless it was already over).
  virtual void Cancel() = 0;
};

// A snapshot for metrics, health and `inspect`. Reading it takes no engine lock.
struct EngineSnapshot {
  int64_t waiting = 0;
  int64_t running = 0;
  int64_t kv_blocks_total = 0;
  int64_t kv_blocks_used = 0;    // held by running requests
  int64_t kv_blocks_cached = 0;  // held for reuse only: as good as free
  int64_t steps = 0;
  int64_t preemptions = 0;           // sequences that gave back their blocks to older ones and started again
  int64_t prompt_tokens = 0;         // computed
  int64_t cached_prompt_tokens = 0;  // taken from shared KV blocks instead
  int64_t generated_tokens = 0;
  int64_t embedded_tokens = 0;
  int64_t requests_done = 0;
  int64_t requests_failed = 0;
  int64_t requests_cancelled = 0;
  int64_t requests_refused = 0;
  bool device_lost = false;  // nothing can be computed any more: requests are refused
};

class Engine {
 public:
  // Allocates the KV pool and starts the thread. `backend` and `network` must outlive the Engine, and only its thread
  // uses them from here on.
  static Result<std::unique_ptr<Engine>> Create(backend::Backend& backend, model::Model& network,
                                                const EngineOptions& options);
  virtual ~Engine() = default;  // cancels everything, joins the thread

  // Any thread. InvalidArgument for what can never run (empty, ids out of range, longer than the context: reason
  // kPromptTooLong), ResourceExhausted (reason kQueueFull, retry hint) when the queue is full, Unavailable when
  // shutting down.
  virtual Result<std::unique_ptr<EventStream>> Generate(GenerateRequest request) = 0;
  virtual Result<std::unique_ptr<EventStream>> Embed(EmbedRequest request) = 0;

  virtual EngineSnapshot Snapshot() const = 0;
  virtual int64_t context_max() const = 0;
  // Frees the KV blocks that are held for reuse only, soon after. Any thread.
  virtual void ClearCache() = 0;
  // Refuses new requests; running ones go on. Returns when all are over or `deadline_ms` has passed (false then; what
  // is left is cancelled).
  virtual bool Drain(int64_t deadline_ms) = 0;
};

}  // namespace pensieve::engine
