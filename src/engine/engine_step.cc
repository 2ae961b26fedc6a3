// One step of the engine: choose rows, compute them, hand out what they gave.
#include <algorithm>
#include <chrono>
#include <utility>

#include <fmt/format.h>

#include "base/finite.h"
#include "base/guarded.h"
#include "engine/engine_core.h"

namespace pensieve::engine {
namespace {

constexpr const char* kNotFinite =
    "the model computed NaN or infinity: its weights are damaged or overflow in this precision";

}  // namespace

bool EngineCore::Step() {
  bool worked = false;
  const Status status = Guarded([&] { worked = StepOnce(); });
  if (!status.ok()) FailAll(status.WithContext("the engine failed between two steps"));
  return worked || !status.ok();
}

bool EngineCore::StepOnce() {
  const auto start = std::chrono::steady_clock::now();
  EndCancelled();
  if (lost_.load(std::memory_order_relaxed)) {
    EndAll(lost_error_);
    Sweep();
    return false;
  }
  if (clear_cache_.exchange(false))
    while (prefix_cache_->EvictOne()) {}
  const bool drew = DrawHeld();
  generate_batch_->Clear();
  embed_batch_->Clear();
  if (is_encoder()) {
    BuildEncoderBatch();
  } else {
    StartWaiting();
    PauseFullStreams();
    GrowAnswers();
    FollowOlderTwins();
    BuildDecoderBatches();
  }
  const bool worked = drew || !generate_batch_->empty() || !embed_batch_->empty();
  if (!generate_batch_->empty()) RunGuarded(*generate_batch_, &EngineCore::ComputeGenerate);
  if (!embed_batch_->empty()) RunGuarded(*embed_batch_, &EngineCore::ComputeEmbed);
  Sweep();
  PublishGauges();
  if (worked) {
    counters_.steps.fetch_add(1, std::memory_order_relaxed);
    PublishPlaces(std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count());
  }
  return worked;
}

void EngineCore::PauseFullStreams() {
  // Read once: a consumer may make room at any moment, and the whole step must see the same.
  for (const auto& sequence : running_) sequence->paused = sequence->holds_logits || sequence->request->events.full();
}

void EngineCore::GrowAnswers() {
  for (size_t i = 0; i < running_.size(); ++i) {
    Sequence& sequence = *running_[i];
    if (sequence.paused || BlocksFor(sequence.len()) <= static_cast<int64_t>(sequence.block_table.size())) continue;
    int32_t block = AllocateBlock(sequence);
    while (block == BlockPool::kNoBlock && running_.size() > i + 1) {
      Preempt(running_.size() - 1);
      block = AllocateBlock(sequence);
    }
    if (block == BlockPool::kNoBlock) {
      Preempt(i);  // itself the youngest
      return;
    }
    sequence.block_table.push_back(block);
  }
}

// Requests that arrive together often begin alike (agents with one system prompt). One of them computes the common
// blocks; the younger ones wait for each and take it over.
void EngineCore::FollowOlderTwins() {
  for (size_t i = 0; i < running_.size(); ++i) {
    Sequence& sequence = *running_[i];
    while (sequence.CanShareBlock(options_.kv_block_len)) {
      PrefixCache::Node* tip = prefix_cache_->Follow(sequence.shared_tip, sequence.Partition(),
                                                     sequence.NextSharedKeys(options_.kv_block_len),
                                                     sequence.block_table[static_cast<size_t>(sequence.shared_blocks)]);
      if (tip == nullptr) break;
      sequence.shared_tip = tip;
      ++sequence.shared_blocks;
      const int64_t taken_over =
          std::max<int64_t>(sequence.shared_blocks * options_.kv_block_len - sequence.computed_len, 0);
      sequence.computed_len += taken_over;
      sequence.cached_len += taken_over;
      sequence.request->stats.cached_prompt_tokens += taken_over;
      counters_.cached_tokens.fetch_add(taken_over, std::memory_order_relaxed);
    }
    // Only on older ones that go on themselves: the oldest of all waits for nobody, so that somebody always gets on.
    for (size_t older = 0; older < i && !sequence.paused; ++older) {
      sequence.paused = !running_[older]->paused && ComputesNextBlockOf(*running_[older], sequence);
    }
  }
}

bool EngineCore::ComputesNextBlockOf(const Sequence& older, const Sequence& younger) const {
  const int64_t block_len = options_.kv_block_len;
  if (!younger.CanShareBlock(block_len) || !older.share_more || older.shared_blocks != younger.shared_blocks)
    return false;
  if (older.shared_tip != younger.shared_tip || older.computed_len < younger.computed_len) return false;
  if (older.prompt_len < (older.shared_blocks + 1) * block_len) return false;
  if (older.Partition() != younger.Partition()) return false;
  const auto wanted = younger.NextSharedKeys(block_len);
  const auto coming = older.NextSharedKeys(block_len);
  return std::equal(wanted.begin(), wanted.end(), coming.begin());
}

void EngineCore::BuildDecoderBatches() {
  views_.clear();
  for (const auto& sequence : running_) {
    const int64_t pending = sequence->rows_pending();
    views_.push_back(
        {.rows_pending = pending, .decode = !sequence->in_prefill() && pending == 1, .paused = sequence->paused});
  }
  const std::span<const int64_t> rows = scheduler_.Plan(views_, options_.step_rows_max);
  for (size_t i = 0; i < running_.size(); ++i) {
    Sequence& sequence = *running_[i];
    if (rows[i] == 0) continue;
    if (sequence.request->is_embed) {
      embed_batch_->Add(sequence, rows[i], false);
    } else {
      const bool is_last = rows[i] == sequence.rows_pending();
      generate_batch_->Add(sequence, rows[i], is_last && sequence.request->generate.new_tokens_max > 0);
    }
  }
}

void EngineCore::BuildEncoderBatch() {
  std::vector<std::span<const int64_t>> input_lens;
  for (const auto& request : requests_)
    input_lens.push_back(std::span(request->input_lens).subspan(request->inputs_started));
  const std::vector<EncoderGrant> grants = engine::PlanEncoderStep(
      input_lens, {.rows_max = options_.step_rows_max, .sequences_max = options_.step_rows_max});
  for (const EncoderGrant& grant : grants) {
    const std::shared_ptr<Request>& request = requests_[grant.request_idx];
    if (!std::exchange(request->started, true)) {
      request->stats.queue_s = request->SecondsSince();
      counters_.running.fetch_add(1, std::memory_order_relaxed);
    }
    // A text attends to itself in one piece, so that it is of one precision: coarse.
    running_.push_back(std::make_unique<Sequence>(request, request->inputs_started++, context_max_,
                                                  options_.kv_block_len, /*precise_positions=*/0));
    embed_batch_->Add(*running_.back(), running_.back()->len(), false);
  }
  // The turn passes on; requests whose texts are all in this step leave the line.
  if (!requests_.empty()) {
    requests_.push_back(std::move(requests_.front()));
    requests_.pop_front();
  }
  std::erase_if(requests_, [](const auto& request) { return request->inputs_started == request->num_inputs(); });
}

// A step that fails ends its own requests, and with a device that is lost all others too; never the server. Backends
// stop the exceptions of their libraries; what slips through is such a failure.
void EngineCore::RunGuarded(const StepBatch& batch, Status (EngineCore::*compute)()) {
  Status error;
  if (const Status exception = Guarded([&] { error = (this->*compute)(); }); !exception.ok()) error = exception;
  if (error.ok()) return;
  error = error.WithContext("the model failed while it computed a step");
  if (!backend_.CanGoOn()) return EndAll(error);  // the batch's own among them
  for (const StepBatch::Member& member : batch.members()) {
    Request& request = *member.sequence->request;
    if (!request.over) FinishWithError(request, error);
  }
}

Status EngineCore::CheckStepWeights() const {
  return options_.check_weights ? options_.check_weights(/*quick=*/true) : OkStatus();
}

Status EngineCore::ComputeGenerate() {
  generate_batch_->Seal();
  const backend::Matrix logits = network_.Forward(generate_batch_->batch(), *kv_cache_);
  DrawOnDevice(logits);
  backend_.Submit();
  PENSIEVE_RETURN_IF_ERROR(backend_.EndStep());
  PENSIEVE_RETURN_IF_ERROR(backend_.ReadDrawn(drawn_));
  PENSIEVE_RETURN_IF_ERROR(CheckStepWeights());
  size_t drawn = 0;
  for (const StepBatch::Member& member : generate_batch_->members()) {
    Sequence& sequence = *member.sequence;
    Request& request = *sequence.request;
    const int64_t prompt_rows = std::min(member.num_rows, sequence.prompt_len - sequence.computed_len);
    sequence.computed_len += member.num_rows;
    if (prompt_rows > 0) {
      counters_.prompt_tokens.fetch_add(prompt_rows, std::memory_order_relaxed);
      ShareBlocks(sequence, std::min(sequence.computed_len, sequence.prompt_len));
    }
    if (sequence.in_prefill()) {
      Event event;
      event.kind = Event::Kind::kPrefillProgress;
      event.prefilled_tokens = sequence.computed_len;
      request.events.PushIfEmpty(std::move(event));
    } else if (request.generate.new_tokens_max == 0) {
      Event event;
      event.kind = Event::Kind::kDone;
      event.finish = FinishReason::kLength;
      Finish(request, std::move(event));
    } else if (sequence.rows_pending() == 0) {
      sampling::Sample sample;
      if (DrawsOnDevice(sequence)) {
        sample.id = drawn_[drawn++];
      } else {
        PENSIEVE_RETURN_IF_ERROR(DrawOnHost(sequence, logits.Rows(member.output_idx, 1), sample));
        if (sequence.holds_logits) continue;
      }
      AddToken(sequence, std::move(sample));
    }
  }
  return OkStatus();
}

bool EngineCore::DrawsOnDevice(const Sequence& sequence) {
  return sequence.sampler->DrawsPlainly() && sequence.next_mask == nullptr &&
         !sequence.request->generate.ignore_stop_ids;
}

// The next token of every sequence whose sampler looks at nothing but its logits; those of the others come to the host.
void EngineCore::DrawOnDevice(backend::Matrix logits) {
  draw_rows_.clear();
  draw_params_.clear();
  for (const StepBatch::Member& member : generate_batch_->members()) {
    Sequence& sequence = *member.sequence;
    if (member.output_idx < 0 || !DrawsOnDevice(sequence)) continue;
    draw_rows_.push_back(static_cast<int32_t>(member.output_idx));
    draw_params_.push_back(sequence.sampler->NextDraw());
    draw_params_.back().vocab_limit = sequence.request->generate.vocab_limit;
  }
  drawn_.resize(draw_rows_.size());
  backend_.Draw(logits, draw_rows_, draw_params_);
}

// A mask that is late delays its own sequence only: the logits are kept, and the others go on.
Status EngineCore::DrawOnHost(Sequence& sequence, backend::Matrix logits, sampling::Sample& sample) {
  const bool late = sequence.next_mask != nullptr && !sequence.next_mask->ready.load(std::memory_order_acquire);
  if (late) {
    sequence.held_logits.resize(logits_.size());
    sequence.holds_logits = true;
    return backend_.CopyToHost(logits, sequence.held_logits);
  }
  PENSIEVE_RETURN_IF_ERROR(backend_.CopyToHost(logits, logits_));
  std::span<float> drawable = logits_;
  const int32_t vocab_limit = sequence.request->generate.vocab_limit;
  if (vocab_limit > 0) drawable = drawable.first(static_cast<size_t>(vocab_limit));
  sample.id = sampling::kNoToken;
  if (!AllFinite(drawable)) return OkStatus();
  sample = DrawFrom(sequence, logits_);
  return OkStatus();
}

sampling::Sample EngineCore::DrawFrom(Sequence& sequence, std::span<float> logits) {
  const GenerateRequest& generate = sequence.request->generate;
  if (generate.vocab_limit > 0) logits = logits.first(static_cast<size_t>(generate.vocab_limit));
  const std::span<const int32_t> banned = generate.ignore_stop_ids ? generate.stop_ids : std::span<const int32_t>();
  return sequence.sampler->Draw(logits, banned, sequence.next_mask != nullptr ? &sequence.next_mask->allowed : nullptr);
}

bool EngineCore::DrawHeld() {
  bool drew = false;
  for (const auto& sequence : running_) {
    const bool can_draw = sequence->holds_logits && !sequence->done && !sequence->request->events.full();
    if (!can_draw || !sequence->next_mask->ready.load(std::memory_order_acquire)) continue;
    sequence->holds_logits = false;
    AddToken(*sequence, DrawFrom(*sequence, sequence->held_logits));
    drew = true;
  }
  Sweep();
  return drew;
}

void EngineCore::AddToken(Sequence& sequence, sampling::Sample sample) {
  Request& request = *sequence.request;
  const GenerateRequest& generate = request.generate;
  const int32_t id = sample.id;
  if (id == sampling::kNoToken)
    return FinishWithError(
        request, Internal(sequence.next_mask != nullptr ? "no token of the vocabulary fits what the answer must be"
                                                        : kNotFinite));

  Event done;
  done.kind = Event::Kind::kDone;
  const auto& stop_ids = generate.stop_ids;
  if (!generate.ignore_stop_ids && std::find(stop_ids.begin(), stop_ids.end(), id) != stop_ids.end()) {
    done.finish = FinishReason::kStop;
    return Finish(request, std::move(done));
  }
  sampling::Constraint* constraint = sequence.next_mask != nullptr ? sequence.next_mask->constraint.get() : nullptr;
  if (constraint != nullptr && !constraint->Accept(id))
    return FinishWithError(request, Internal("a token was drawn that the answer's grammar does not allow"));
  sequence.Append(id);
  if (request.stats.new_tokens++ == 0) request.stats.first_token_s = request.SecondsSince();
  counters_.generated.fetch_add(1, std::memory_order_relaxed);
  Event event;
  event.sample = std::move(sample);
  request.events.Push(std::move(event));
  const bool complete = constraint != nullptr && constraint->finished() && !generate.ignore_stop_ids;
  if (sequence.len() < sequence.len_max && !complete) {
    if (constraint == nullptr) return;
    sequence.next_mask->ready.store(false, std::memory_order_relaxed);
    return mask_worker_.Ask(sequence.next_mask);
  }
  if (complete) {
    done.finish = FinishReason::kStop;
    return Finish(request, std::move(done));
  }
  done.finish = sequence.answer_len() == generate.new_tokens_max ? FinishReason::kLength : FinishReason::kContextFull;
  Finish(request, std::move(done));
}

void EngineCore::ShareBlocks(Sequence& sequence, int64_t len) {
  const int64_t block_len = options_.kv_block_len;
  const int64_t full_blocks = len / block_len;
  while (sequence.share_more && sequence.shared_blocks < full_blocks) {
    PrefixCache::Node* tip = nullptr;
    // Without memory for a node, the block serves this sequence alone: sharing is never worth a failure.
    (void)Guarded([&] {
      tip = prefix_cache_->Extend(sequence.shared_tip, sequence.Partition(), sequence.NextSharedKeys(block_len),
                                  sequence.block_table[static_cast<size_t>(sequence.shared_blocks)]);
    }).ok();
    if (tip == nullptr) {
      sequence.share_more = false;
      return;
    }
    sequence.shared_tip = tip;
    ++sequence.shared_blocks;
  }
}

Status EngineCore::ComputeEmbed() {
  embed_batch_->Seal();
  const backend::Matrix hidden = network_.Hidden(embed_batch_->batch(), kv_cache_.get());
  const auto owners = embed_batch_->owners();
  const auto pieces = embed_batch_->pieces();
  if (is_encoder()) PENSIEVE_RETURN_IF_ERROR(pooler_->PoolWhole(hidden, owners));
  // In the order of positions: of a text to embed, only the first ones are precise.
  for (size_t i = 0; i < pieces.size() && !is_encoder(); ++i) {
    PENSIEVE_RETURN_IF_ERROR(pooler_->PoolChunk(hidden, *owners[i], pieces[i]));
  }
  PENSIEVE_RETURN_IF_ERROR(backend_.EndStep());
  PENSIEVE_RETURN_IF_ERROR(CheckStepWeights());
  for (size_t i = 0; i < pieces.size(); ++i) {
    Sequence& sequence = *owners[i];
    Request& request = *sequence.request;
    if (request.over) continue;  // by an error of another of its texts
    sequence.computed_len += pieces[i].num_rows;
    if (sequence.rows_pending() > 0) continue;
    if (!AllFinite(request.embeddings[sequence.input_idx])) {
      FinishWithError(request, Internal(fmt::format("text {}: {}", sequence.input_idx, kNotFinite)));
      continue;
    }
    ReleaseBlocks(sequence);
    sequence.done = true;
    needs_sweep_ = true;
    if (++request.inputs_done < request.num_inputs()) continue;
    counters_.embedded.fetch_add(request.stats.prompt_tokens, std::memory_order_relaxed);
    Event event;
    event.kind = Event::Kind::kDone;
    event.embeddings = std::move(request.embeddings);
    Finish(request, std::move(event));
  }
  return OkStatus();
}

}  // namespace pensieve::engine
