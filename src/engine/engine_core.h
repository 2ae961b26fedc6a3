// The engine without its thread: everything that one step does, driven from outside. Tests drive it step by step.
//
// What runs and what waits:
//   requests_   arrived, not (wholly) taken up; in order of their turns
//   starting_   sequences that wait for KV blocks: the next to start, or preempted ones; oldest first
//   running_    sequences that hold KV blocks; oldest first
// A sequence starts only when its whole prompt fits, so that prefill never stops half-way. An answer grows block by
// block; when blocks run short, idle blocks of the prefix cache go first, then the youngest running sequence gives back
// its own and starts again later. The oldest always gets on: alone it fits, for the context is never larger than the
// pool.
//
// Engine-thread-only but for Check, Snapshot and the constants.
#pragma once

#include <atomic>
#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <vector>

#include "backend/backend.h"
#include "engine/block_pool.h"
#include "engine/embed_pooler.h"
#include "engine/mask_worker.h"
#include "engine/place_estimate.h"
#include "engine/prefix_cache.h"
#include "engine/request.h"
#include "engine/scheduler.h"
#include "engine/sequence.h"
#include "engine/step_batch.h"
#include "model/model.h"

namespace pensieve::engine {

class EngineCore {
 public:
  // `backend` and `network` must outlive the core. `wake` is called from a thread of the core's own when a Step that had
  // nothing to compute would have something now. InvalidArgument naming the option that does not work.
  static Result<std::unique_ptr<EngineCore>> Create(
      backend::Backend& backend, model::Model& network, const EngineOptions& options,
      std::function<void()> wake = [] {});

  // --- any thread ---
  // InvalidArgument for what can never run; what EngineOptions::check_weights says.
  Status Check(const GenerateRequest& request) const;
  Status Check(const EmbedRequest& request) const;
  // Counts a request in; ResourceExhausted (and counted as refused) when as many as allowed are in already, Unavailable
  // when the device is lost.
  Status Reserve();
  void CountRefusal() { counters_.refused.fetch_add(1, std::memory_order_relaxed); }
  EngineSnapshot Snapshot() const;
  int64_t requests_in() const { return counters_.in.load(); }
  // The next step frees the KV blocks that nobody holds.
  void ClearCache() { clear_cache_.store(true); }
  int64_t context_max() const { return context_max_; }

  // --- engine thread ---
  // After Reserve and Check. What goes wrong ends the request.
  void Add(std::shared_ptr<Request> request);
  // Ends cancelled requests, then computes one batch. False when there was nothing to compute: the next step makes
  // sense only after an Add, a Cancel or a drained stream. Never throws: an exception inside of the computation ends the
  // requests of that batch, one at the start of a request that request, and any other all requests that are in.
  bool Step();
  void CancelAll();

  // Every block is held by exactly those who should hold it. Internal naming what is wrong. For tests.
  Status CheckIntegrity() const;

 private:
  struct Counters {
    std::atomic<int64_t> in{0}, running{0}, blocks_used{0}, blocks_cached{0}, steps{0};
    std::atomic<int64_t> prompt_tokens{0}, cached_tokens{0}, generated{0}, embedded{0}, preemptions{0};
    std::atomic<int64_t> done{0}, failed{0}, cancelled{0}, refused{0};
  };
  using SequenceList = std::vector<std::unique_ptr<Sequence>>;

  EngineCore(backend::Backend& backend, model::Model& network, const EngineOptions& options,
             std::function<void()> wake);
  Status Allocate();  // KV pool and buffers
  bool is_encoder() const { return network_.config().is_encoder; }
  int64_t BlocksFor(int64_t tokens) const { return (tokens + options_.kv_block_len - 1) / options_.kv_block_len; }

  bool StepOnce();
  // Starting and stopping (engine_core.cc).
  void FailAll(const Status& error);
  void EndCancelled();
  void StartWaiting();
  bool TakeUpNext();  // moves the next sequence of requests_ into starting_, or ends its request; false: there is none
  void TakeUp(const std::shared_ptr<Request>& request);
  bool TryStart(Sequence& sequence);
  void Preempt(size_t running_idx);
  void ReleaseBlocks(Sequence& sequence);
  static void InsertByAge(SequenceList& list, std::unique_ptr<Sequence> sequence);
  // Sends the terminal event of a request and gives back all it holds; its objects go in Sweep.
  void Finish(Request& request, Event event);
  void FinishWithError(Request& request, Status error);
  // Every request that is in, once the device is lost.
  void EndAll(const Status& error);
  void Sweep();

  // The next block of a sequence. Evicts when needed; BlockPool::kNoBlock when all blocks are held.
  int32_t AllocateBlock(const Sequence& sequence);
  void PublishGauges();
  void PublishPlaces(double step_s);

  // One step (engine_step.cc).
  void PauseFullStreams();
  void GrowAnswers();
  void FollowOlderTwins();
  bool ComputesNextBlockOf(const Sequence& older, const Sequence& younger) const;
  void BuildDecoderBatches();
  void BuildEncoderBatch();
  void RunGuarded(const StepBatch& batch, Status (EngineCore::*compute)());
  // What EngineOptions::check_weights says of the weights that a forward pass has read.
  Status CheckStepWeights() const;
  Status ComputeGenerate();
  Status ComputeEmbed();
  static bool DrawsOnDevice(const Sequence& sequence);
  void DrawOnDevice(backend::Matrix logits);
  Status DrawOnHost(Sequence& sequence, backend::Matrix logits, sampling::Sample& sample);
  sampling::Sample DrawFrom(Sequence& sequence, std::span<float> logits);
  bool DrawHeld();  // the tokens whose masks were late; false when there was none
  void AddToken(Sequence& sequence, sampling::Sample sample);
  // Offers the full blocks of the first `len` <= computed_len tokens to others: those of a prompt as soon as they are
  // computed, those of an answer when the sequence gives them back, so that a decode step allocates nothing.
  void ShareBlocks(Sequence& sequence, int64_t len);

  backend::Backend& backend_;
  model::Model& network_;
  EngineOptions options_;
  int64_t context_max_ = 0;
  int64_t running_max_ = 0;  // sequences; fewer than a step's rows, so that prefill always gets one
  int64_t requests_max_ = 0;

  std::unique_ptr<backend::KvCache> kv_cache_;
  std::unique_ptr<BlockPool> pool_;
  std::unique_ptr<PrefixCache> prefix_cache_;
  std::optional<EmbedPooler> pooler_;

  std::deque<std::shared_ptr<Request>> requests_;
  SequenceList starting_;
  SequenceList running_;
  int64_t arrivals_ = 0;
  bool needs_sweep_ = false;

  // Scratch of a step.
  DecoderScheduler scheduler_;
  std::vector<SequenceView> views_;
  std::optional<StepBatch> generate_batch_;
  std::optional<StepBatch> embed_batch_;
  std::vector<float> logits_;  // [vocab_size]
  std::vector<int32_t> draw_rows_;
  std::vector<backend::DrawParams> draw_params_;
  std::vector<int32_t> drawn_;
  const std::shared_ptr<sampling::SamplerScratch> sampler_scratch_ = std::make_shared<sampling::SamplerScratch>();

  std::atomic<bool> lost_{false};  // the device: nothing can be computed any more
  Status lost_error_;              // engine thread only

  Counters counters_;
  PlaceEstimate places_;
  std::vector<int64_t> steps_left_;  // scratch
  std::atomic<bool> clear_cache_{false};
  MaskWorker mask_worker_;  // last: its thread uses what belongs to sequences
};

}  // namespace pensieve::engine
