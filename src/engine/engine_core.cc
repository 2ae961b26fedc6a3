#include "engine/engine_core.h"

#include <algorithm>
#include <limits>
#include <utility>

#include <fmt/format.h>

#include "base/guarded.h"

namespace pensieve::engine {
namespace {

constexpr int64_t kBlockLenMax = 4096;
constexpr int64_t kStreamDepthMax = 65536;
constexpr int64_t kCountMax = 1 << 20;  // of sequences, rows and requests: far past any use, far from overflow

Status CheckOption(const char* name, int64_t value, int64_t min, int64_t max) {
  if (value >= min && value <= max) return OkStatus();
  return InvalidArgument(fmt::format("engine option {} is {}, but must lie in [{}, {}]", name, value, min, max));
}

Status CheckOptions(const EngineOptions& options) {
  constexpr int64_t kAny = std::numeric_limits<int64_t>::max();
  PENSIEVE_RETURN_IF_ERROR(CheckOption("queue_depth_max", options.queue_depth_max, 0, kCountMax));
  PENSIEVE_RETURN_IF_ERROR(CheckOption("sequences_max", options.sequences_max, 1, kCountMax));
  PENSIEVE_RETURN_IF_ERROR(CheckOption("step_rows_max", options.step_rows_max, 1, kCountMax));
  PENSIEVE_RETURN_IF_ERROR(CheckOption("context_max", options.context_max, 0, kAny));
  PENSIEVE_RETURN_IF_ERROR(CheckOption("kv_bytes_max", options.kv_bytes_max, 1, kAny));
  PENSIEVE_RETURN_IF_ERROR(CheckOption("kv_block_len", options.kv_block_len, 1, kBlockLenMax));
  return CheckOption("stream_depth_max", options.stream_depth_max, 1, kStreamDepthMax);
}

Status CheckTokens(std::span<const int32_t> tokens, int64_t len_max, int64_t vocab_size) {
  if (tokens.empty()) return InvalidArgument("the prompt has no tokens");
  if (static_cast<int64_t>(tokens.size()) > len_max)
    return InvalidArgument(fmt::format("prompt is too long: {} tokens > {} maximum", tokens.size(), len_max))
        .WithReason(ErrorReason::kPromptTooLong);
  for (const int32_t token : tokens) {
    if (token < 0 || token >= vocab_size)
      return InvalidArgument(fmt::format("token id {} is outside of the vocabulary of {}", token, vocab_size));
  }
  return OkStatus();
}

Status CheckRanges(std::span<const TokenRange> ranges, int64_t prompt_len) {
  int64_t end = 0;
  for (const TokenRange& range : ranges) {
    if (range.first < end || range.end <= range.first || range.end > prompt_len)
      return InvalidArgument(
          fmt::format("the range [{}, {}) of precise tokens is empty, out of order or outside of the {} of "
                      "the prompt",
                      range.first, range.end, prompt_len));
    end = range.end;
  }
  return OkStatus();
}

}  // namespace

Result<std::unique_ptr<EngineCore>> EngineCore::Create(backend::Backend& backend, model::Model& network,
                                                       const EngineOptions& options, std::function<void()> wake) {
  PENSIEVE_RETURN_IF_ERROR(CheckOptions(options));
  auto core = std::unique_ptr<EngineCore>(new EngineCore(backend, network, options, std::move(wake)));
  PENSIEVE_RETURN_IF_ERROR(core->Allocate());
  return core;
}

EngineCore::EngineCore(backend::Backend& backend, model::Model& network, const EngineOptions& options,
                       std::function<void()> wake)
    : backend_(backend), network_(network), options_(options), mask_worker_(std::move(wake)) {
  options_.step_rows_max = std::min(options.step_rows_max, network.rows_max());
  running_max_ =
      std::min({options.sequences_max, network.outputs_max(), std::max<int64_t>(options_.step_rows_max - 1, 1)});
  requests_max_ = options.sequences_max + options.queue_depth_max;
  context_max_ = std::numeric_limits<int32_t>::max() - 1;  // positions are int32
  for (const int64_t limit : {network.config().context_max, options.context_max}) {
    if (limit > 0) context_max_ = std::min(context_max_, limit);
  }
  if (is_encoder()) context_max_ = std::min(context_max_, network.rows_max());
}

Status EngineCore::Allocate() {
  const model::ModelConfig& config = network_.config();
  int64_t num_blocks = 0;
  if (!is_encoder()) {
    backend::KvShape shape{.layers = config.layers,
                           .kv_heads = config.kv_heads,
                           .head_dim = config.head_dim,
                           .block_len = options_.kv_block_len,
                           .dtype = options_.kv_dtype};
    const std::vector<backend::KvDType> dtypes = backend_.Describe().kv_dtypes;
    if (std::find(dtypes.begin(), dtypes.end(), options_.kv_dtype) == dtypes.end())
      return InvalidArgument(fmt::format("engine option kv_dtype: {} does not keep keys and values in that format",
                                         backend_.Describe().name));
    const int64_t block_bytes = shape.bytes_per_token() * shape.block_len;
    num_blocks = std::min<int64_t>(options_.kv_bytes_max / block_bytes, std::numeric_limits<int32_t>::max());
    if (num_blocks == 0)
      return InvalidArgument(fmt::format("engine option kv_bytes_max is {}, but one block of {} tokens takes {} bytes",
                                         options_.kv_bytes_max, shape.block_len, block_bytes));
    shape.num_blocks = num_blocks;
    PENSIEVE_TRY(kv_cache_, backend_.NewKvCache(shape));
    context_max_ = std::min(context_max_, num_blocks * shape.block_len);
  }
  pool_ = std::make_unique<BlockPool>(num_blocks);
  prefix_cache_ = std::make_unique<PrefixCache>(*pool_, options_.kv_block_len);
  if (is_encoder() || config.is_embedding) {
    PENSIEVE_TRY(pooler_, EmbedPooler::Create(backend_, network_, options_.step_rows_max));
  }
  // An encoder's step may be one text longer than the budget.
  const int64_t rows_max = is_encoder() ? std::max(options_.step_rows_max, context_max_) : options_.step_rows_max;
  generate_batch_.emplace(is_encoder() ? 0 : rows_max, options_.kv_block_len);
  embed_batch_.emplace(rows_max, options_.kv_block_len);
  if (!is_encoder()) {
    logits_.resize(static_cast<size_t>(config.vocab_size));
    sampler_scratch_->Reserve(config.vocab_size);
  }
  running_.reserve(static_cast<size_t>(running_max_));
  starting_.reserve(static_cast<size_t>(running_max_) + 1);  // a preempted sequence always has a place
  views_.reserve(static_cast<size_t>(running_max_));
  steps_left_.reserve(static_cast<size_t>(running_max_) + 1);
  return OkStatus();
}

Status EngineCore::Check(const GenerateRequest& request) const {
  const model::ModelConfig& config = network_.config();
  if (!config.can_generate()) return InvalidArgument("this model embeds and cannot generate");
  if (options_.check_weights) PENSIEVE_RETURN_IF_ERROR(options_.check_weights(/*quick=*/false));
  PENSIEVE_RETURN_IF_ERROR(CheckTokens(request.prompt, context_max_ - 1, config.vocab_size));
  PENSIEVE_RETURN_IF_ERROR(CheckRanges(request.precise_ranges, static_cast<int64_t>(request.prompt.size())));
  if (request.new_tokens_max < 0)
    return InvalidArgument(fmt::format("new_tokens_max is {}, but must not be negative", request.new_tokens_max));
  if (request.vocab_limit < 0 || request.vocab_limit > config.vocab_size)
    return InvalidArgument(
        fmt::format("vocab_limit is {}, but the vocabulary has {}", request.vocab_limit, config.vocab_size));
  return sampling::Validate(request.sampling, static_cast<int32_t>(config.vocab_size));
}

Status EngineCore::Check(const EmbedRequest& request) const {
  if (!pooler_.has_value()) return InvalidArgument("this model generates and cannot embed");
  if (options_.check_weights) PENSIEVE_RETURN_IF_ERROR(options_.check_weights(/*quick=*/false));
  if (request.sequences.empty()) return InvalidArgument("there is nothing to embed");
  for (const auto& sequence : request.sequences) {
    PENSIEVE_RETURN_IF_ERROR(CheckTokens(sequence, context_max_, network_.config().vocab_size));
  }
  return OkStatus();
}

Status EngineCore::Reserve() {
  if (lost_.load(std::memory_order_acquire)) {
    CountRefusal();
    return Unavailable("the model's device is lost; the server must be started again");
  }
  if (counters_.in.fetch_add(1) < requests_max_) return OkStatus();
  counters_.in.fetch_sub(1);
  CountRefusal();
  return ResourceExhausted(fmt::format("the queue is full: {} requests are running or waiting", requests_max_))
      .WithReason(ErrorReason::kQueueFull)
      .WithRetryAfterMs(places_.NextWaitMs());
}

EngineSnapshot EngineCore::Snapshot() const {
  const auto read = [](const std::atomic<int64_t>& counter) { return counter.load(std::memory_order_relaxed); };
  EngineSnapshot snapshot;
  snapshot.running = read(counters_.running);
  snapshot.waiting = std::max<int64_t>(read(counters_.in) - snapshot.running, 0);
  snapshot.kv_blocks_total = pool_->num_blocks();
  snapshot.kv_blocks_used = read(counters_.blocks_used);
  snapshot.kv_blocks_cached = read(counters_.blocks_cached);
  snapshot.steps = read(counters_.steps);
  snapshot.preemptions = read(counters_.preemptions);
  snapshot.prompt_tokens = read(counters_.prompt_tokens);
  snapshot.cached_prompt_tokens = read(counters_.cached_tokens);
  snapshot.generated_tokens = read(counters_.generated);
  snapshot.embedded_tokens = read(counters_.embedded);
  snapshot.requests_done = read(counters_.done);
  snapshot.requests_failed = read(counters_.failed);
  snapshot.requests_cancelled = read(counters_.cancelled);
  snapshot.requests_refused = read(counters_.refused);
  snapshot.device_lost = lost_.load(std::memory_order_acquire);
  return snapshot;
}

void EngineCore::PublishPlaces(double step_s) {
  places_.AddStep(step_s);
  steps_left_.clear();
  for (const auto& sequence : running_) {
    const int64_t prefill_steps = (sequence->rows_pending() + options_.step_rows_max - 1) / options_.step_rows_max;
    steps_left_.push_back(prefill_steps + std::max<int64_t>(sequence->len_max - sequence->len(), 0));
  }
  // Texts of an encoder are over within the step that takes them up.
  if (is_encoder()) steps_left_.assign(1, 1);
  places_.Publish(steps_left_);
}

void EngineCore::PublishGauges() {
  const int64_t cached = prefix_cache_->num_idle();
  counters_.blocks_cached.store(cached, std::memory_order_relaxed);
  counters_.blocks_used.store(pool_->num_blocks() - pool_->num_free() - cached, std::memory_order_relaxed);
}

void EngineCore::Add(std::shared_ptr<Request> request) {
  request->arrival = arrivals_++;
  const Status status = Guarded([&] { requests_.push_back(request); });
  if (!status.ok()) FinishWithError(*request, status);
}

void EngineCore::FailAll(const Status& error) {
  const auto fail = [&](Request& request) {
    if (!request.over) FinishWithError(request, error);
  };
  for (const auto& request : requests_) fail(*request);
  for (const auto& sequence : starting_) fail(*sequence->request);
  for (const auto& sequence : running_) fail(*sequence->request);
  Sweep();
}

void EngineCore::CancelAll() {
  for (const auto& request : requests_) request->cancelled.store(true);
  for (const auto& sequence : starting_) sequence->request->cancelled.store(true);
  for (const auto& sequence : running_) sequence->request->cancelled.store(true);
}

void EngineCore::EndCancelled() {
  const auto end = [this](Request& request) {
    if (request.over || !request.cancelled.load(std::memory_order_acquire)) return;
    Event event;
    event.kind = Event::Kind::kCancelled;
    Finish(request, std::move(event));
  };
  for (const auto& request : requests_) end(*request);
  for (const auto& sequence : starting_) end(*sequence->request);
  for (const auto& sequence : running_) end(*sequence->request);
  Sweep();
}

void EngineCore::StartWaiting() {
  while (static_cast<int64_t>(running_.size()) < running_max_) {
    if (starting_.empty() && !TakeUpNext()) return;
    if (starting_.empty()) continue;
    // Strictly in order: letting smaller ones pass would starve a long prompt.
    if (!TryStart(*starting_.front())) return;
    InsertByAge(running_, std::move(starting_.front()));
    starting_.erase(starting_.begin());
  }
}

bool EngineCore::TakeUpNext() {
  if (requests_.empty()) return false;
  const std::shared_ptr<Request> request = std::move(requests_.front());
  requests_.pop_front();
  const Status status = Guarded([&] { TakeUp(request); });
  if (status.ok()) return true;
  FinishWithError(*request, status.WithContext("the request could not be started"));
  Sweep();
  return true;
}

void EngineCore::TakeUp(const std::shared_ptr<Request>& request) {
  auto sequence = std::make_unique<Sequence>(request, request->inputs_started++, context_max_, options_.kv_block_len,
                                             model::kPrecisePositions);
  if (!request->is_embed) sequence->sampler.emplace(request->generate.sampling, sampler_scratch_);
  sequence->long_rope = network_.UsesLongRope(sequence->len_max);
  if (sequence->sampler.has_value()) {
    sequence->sampler->Reserve(sequence->len_max, static_cast<int32_t>(network_.config().vocab_size));
    sequence->sampler->ObservePrompt(sequence->tokens);
  }
  if (request->generate.constraint != nullptr && request->generate.new_tokens_max > 0) {
    sequence->next_mask = std::make_shared<NextMask>(request->generate.constraint, request->generate.stop_ids);
    mask_worker_.Ask(sequence->next_mask);  // while the prompt is computed
  }
  InsertByAge(starting_, std::move(sequence));
  // Requests with many texts take turns with everybody else.
  if (request->inputs_started < request->num_inputs()) requests_.push_back(request);
}

bool EngineCore::TryStart(Sequence& sequence) {
  Request& request = *sequence.request;
  if (!request.is_embed) {
    // The last row is always computed, for its logits.
    const auto shareable = std::span(sequence.row_keys).first(sequence.row_keys.size() - 1);
    sequence.shared_tip = prefix_cache_->Acquire(sequence.Partition(), shareable, sequence.block_table);
    sequence.shared_blocks = static_cast<int64_t>(sequence.block_table.size());
  }
  const int64_t missing = BlocksFor(sequence.len()) - sequence.shared_blocks;
  // Leaves one block for each running sequence: to start a sequence and preempt it at once would be wasted work.
  const int64_t available = pool_->num_free() + prefix_cache_->num_idle() - static_cast<int64_t>(running_.size());
  if (available < missing) {
    ReleaseBlocks(sequence);
    return false;
  }
  for (int64_t i = 0; i < missing; ++i) sequence.block_table.push_back(AllocateBlock(sequence));
  sequence.cached_len = sequence.computed_len = sequence.shared_blocks * options_.kv_block_len;
  const int64_t cached_prompt_len = std::min(sequence.cached_len, sequence.prompt_len);
  counters_.cached_tokens.fetch_add(cached_prompt_len, std::memory_order_relaxed);
  if (request.started) return true;
  request.started = true;
  request.stats.cached_prompt_tokens = cached_prompt_len;
  request.stats.queue_s = request.SecondsSince();
  counters_.running.fetch_add(1, std::memory_order_relaxed);
  return true;
}

int32_t EngineCore::AllocateBlock(const Sequence& sequence) {
  const int32_t last = sequence.block_table.empty() ? BlockPool::kNoBlock : sequence.block_table.back();
  int32_t block = pool_->Allocate(last);
  if (block == BlockPool::kNoBlock && prefix_cache_->EvictOne()) block = pool_->Allocate(last);
  return block;
}

void EngineCore::Preempt(size_t running_idx) {
  std::unique_ptr<Sequence> sequence = std::move(running_[running_idx]);
  running_.erase(running_.begin() + static_cast<std::ptrdiff_t>(running_idx));
  ShareBlocks(*sequence, sequence->computed_len);
  ReleaseBlocks(*sequence);
  sequence->Restart();
  counters_.preemptions.fetch_add(1, std::memory_order_relaxed);
  InsertByAge(starting_, std::move(sequence));
}

void EngineCore::ReleaseBlocks(Sequence& sequence) {
  prefix_cache_->Release(sequence.shared_tip);
  for (size_t i = static_cast<size_t>(sequence.shared_blocks); i < sequence.block_table.size(); ++i) {
    pool_->Release(sequence.block_table[i]);
  }
  sequence.block_table.clear();
  sequence.shared_tip = nullptr;
  sequence.shared_blocks = 0;
}

void EngineCore::InsertByAge(SequenceList& list, std::unique_ptr<Sequence> sequence) {
  const auto younger = [](const std::unique_ptr<Sequence>& a, const std::unique_ptr<Sequence>& b) {
    return a->Before(*b);
  };
  const auto at = std::upper_bound(list.begin(), list.end(), sequence, younger);
  list.insert(at, std::move(sequence));
}

void EngineCore::Finish(Request& request, Event event) {
  PENSIEVE_CHECK(!request.over);
  request.over = true;
  needs_sweep_ = true;
  for (const SequenceList* list : {&running_, &starting_}) {
    for (const auto& sequence : *list) {
      if (sequence->request.get() != &request) continue;
      if (event.kind != Event::Kind::kError) ShareBlocks(*sequence, sequence->computed_len);
      ReleaseBlocks(*sequence);
      sequence->done = true;
    }
  }
  request.stats.total_s = request.SecondsSince();
  event.stats = request.stats;
  if (request.started) counters_.running.fetch_sub(1, std::memory_order_relaxed);
  auto& outcome = event.kind == Event::Kind::kDone        ? counters_.done
                  : event.kind == Event::Kind::kCancelled ? counters_.cancelled
                                                          : counters_.failed;
  outcome.fetch_add(1, std::memory_order_relaxed);
  PublishGauges();
  places_.OnEnd();
  counters_.in.fetch_sub(1);
  // Last: who sees the end finds the blocks free, the counts right and room for the next request.
  request.events.PushTerminal(std::move(event));
}

void EngineCore::FinishWithError(Request& request, Status error) {
  Event event;
  event.kind = Event::Kind::kError;
  event.error = std::move(error);
  Finish(request, std::move(event));
}

void EngineCore::EndAll(const Status& error) {
  lost_error_ = error;
  lost_.store(true, std::memory_order_release);
  const auto end = [&](Request& request) {
    if (!request.over) FinishWithError(request, error);
  };
  for (const auto& request : requests_) end(*request);
  for (const auto& sequence : starting_) end(*sequence->request);
  for (const auto& sequence : running_) end(*sequence->request);
}

void EngineCore::Sweep() {
  if (!std::exchange(needs_sweep_, false)) return;
  const auto is_done = [](const std::unique_ptr<Sequence>& sequence) { return sequence->done; };
  std::erase_if(running_, is_done);
  std::erase_if(starting_, is_done);
  std::erase_if(requests_, [](const std::shared_ptr<Request>& request) { return request->over; });
}

Status EngineCore::CheckIntegrity() const {
  PENSIEVE_RETURN_IF_ERROR(pool_->CheckIntegrity());
  std::vector<int32_t> references(static_cast<size_t>(pool_->num_blocks()), 0);
  PENSIEVE_RETURN_IF_ERROR(prefix_cache_->CheckIntegrity(references));
  for (const SequenceList* list : {&running_, &starting_}) {
    for (const auto& sequence : *list) {
      sequence->CheckInvariant();
      for (const int32_t block : sequence->block_table) ++references[static_cast<size_t>(block)];
      if (list == &starting_ && !sequence->block_table.empty()) return Internal("a waiting sequence holds blocks");
      if (list == &running_ && BlocksFor(sequence->computed_len) > static_cast<int64_t>(sequence->block_table.size()))
        return Internal("a running sequence has fewer blocks than tokens");
    }
  }
  for (int32_t block = 0; block < pool_->num_blocks(); ++block) {
    if (references[static_cast<size_t>(block)] != pool_->references(block))
      return Internal(fmt::format("block {} has {} references and {} holders", block, pool_->references(block),
                                  references[static_cast<size_t>(block)]));
  }
  return OkStatus();
}

}  // namespace pensieve::engine
