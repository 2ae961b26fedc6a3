#include "service/service.h"

#include <fmt/format.h>

#include <algorithm>

#include "base/guarded.h"
#include "base/mutex.h"
#include "chat/closed_schema.h"
#include "service/answer_grammars.h"
#include "service/embed_worker.h"
#include "service/embedding.h"
#include "service/fill_in_middle.h"
#include "service/generation.h"
#include "service/memory_gate.h"
#include "service/preparing.h"
#include "service/prompt.h"
#include "service/served_model.h"

namespace pensieve::service {
namespace {

using Clock = std::chrono::steady_clock;
using ModelPtr = std::shared_ptr<ServedModel>;

double SecondsSince(Clock::time_point start) { return std::chrono::duration<double>(Clock::now() - start).count(); }

constexpr int64_t kLoadingRetryAfterMs = 2000;
constexpr size_t kStopSequencesMax = 64;
constexpr size_t kStopSequenceBytesMax = 256;

Status CheckStopSequences(const std::vector<std::string>& stops) {
  if (stops.size() > kStopSequencesMax) {
    return InvalidArgument(fmt::format("stop_sequences: must have at most {} entries", kStopSequencesMax));
  }
  for (const std::string& stop : stops) {
    if (!stop.empty() && stop.size() <= kStopSequenceBytesMax) continue;
    return InvalidArgument(fmt::format("stop_sequences: each must have 1 to {} bytes", kStopSequenceBytesMax));
  }
  return OkStatus();
}

// Refuses a text that is far too long before all of it is tokenized.
Status RefuseLongText(const ServedModel& model, const std::string& text) {
  return CheckTextLen(model.tokenizer(), text, model.engine().context_max() - 1);
}

// The model that a name means by itself: spelled exactly so, else in another way. Of two, one that `can` do the task.
template <typename Can>
ModelPtr FindNamed(const std::vector<ModelPtr>& models, std::string_view name, const Can& can) {
  if (name.empty()) return nullptr;
  ModelPtr named;
  const auto search = [&](auto&& matches) {
    for (const ModelPtr& model : models) {
      const auto& aliases = model->aliases();
      const bool found = matches(model->name()) || std::any_of(aliases.begin(), aliases.end(), matches);
      if (found && (named == nullptr || !can(named))) named = model;
    }
  };
  search([&](const std::string& other) { return other == name; });
  if (named == nullptr) search([&](const std::string& other) { return IsSameModelName(other, name); });
  return named;
}

class EngineService final : public Service {
 public:
  explicit EngineService(const ServiceOptions& options)
      : options_(options),
        gate_({.enabled = options.memory_gate,
               .critical_gb = options.memory_critical_gb,
               .emergency_gb = options.memory_emergency_gb}),
        kv_bytes_max_(options.engine.kv_bytes_max) {}

  ~EngineService() override {
    draining_ = true;
    for (const ModelPtr& model : Pool()) model->engine().Drain(0);
    worker_.reset();  // every embed request reports its end before the engines go
  }

  Status AddModel(const std::string& name, std::vector<std::string> aliases,
                  std::unique_ptr<model::LoadedModel> loaded) override {
    if (name.empty()) return InvalidArgument("a model needs a name");
    engine::EngineOptions engine_options = options_.engine;
    engine_options.kv_bytes_max = kv_bytes_max_;
    PENSIEVE_TRY(ModelPtr model, ServedModel::Create(name, std::move(aliases), std::move(loaded), engine_options));
    const WriterLock lock(models_mutex_);
    for (const ModelPtr& other : models_) {
      if (other->name() == name)
        return {StatusCode::kAlreadyExists, fmt::format("a model named \"{}\" is loaded already", name)};
    }
    models_.push_back(std::move(model));
    return OkStatus();
  }

  void SetLoading(std::optional<LoadProgress> progress) override {
    const WriterLock lock(models_mutex_);
    loading_ = std::move(progress);
  }

  void SetKvBytesMax(int64_t bytes) override { kv_bytes_max_ = bytes; }

  Result<std::unique_ptr<Generation>> Chat(ChatRequest request) override;
  Result<std::unique_ptr<Generation>> Complete(CompletionRequest request) override;
  Result<int64_t> CountTokens(const ChatRequest& request) override;
  Result<std::string> Render(const ChatRequest& request) override;
  std::function<void()> Embed(EmbedRequest request, std::function<void(Result<EmbedResult>)> done) override;

  std::vector<ModelDescription> Models() const override {
    std::vector<ModelDescription> descriptions;
    for (const ModelPtr& model : Pool()) descriptions.push_back(model->description());
    return descriptions;
  }

  Result<ModelDescription> FindModel(const std::string& name, bool embedding) const override {
    PENSIEVE_TRY(const ModelPtr model, Resolve(name, embedding ? Task::kEmbed : Task::kGenerate, NameRule::kStrict));
    return model->description();
  }

  Health GetHealth() const override {
    const MemoryState memory = gate_.State();
    const std::vector<ModelPtr> models = Pool();
    std::vector<std::string> lost;
    for (const ModelPtr& model : models) {
      if (const Status weights = model->CheckWeights(); !weights.ok()) lost.push_back(weights.message());
      if (model->engine().Snapshot().device_lost) lost.push_back("the device of model " + model->name() + " is lost");
    }
    const std::optional<LoadProgress> loading = Loading();
    return {.ready = !models.empty() && !draining_ && !loading && lost.empty(),
            .draining = draining_,
            .loading = loading,
            .lost = std::move(lost),
            .uptime_s = SecondsSince(started_),
            .memory_status = memory.level,
            .memory_available_gb = memory.available_gb,
            .concurrent_limit = options_.engine.sequences_max,
            .device = models.empty() ? std::nullopt : std::optional(models.front()->description().device),
            .device_reason = options_.device_reason};
  }

  void ClearCaches() override {
    for (const ModelPtr& model : Pool()) model->engine().ClearCache();
  }

  std::vector<ModelMetrics> GetMetrics() const override {
    std::vector<ModelMetrics> metrics;
    for (const ModelPtr& model : Pool()) metrics.push_back({model->name(), model->engine().Snapshot()});
    return metrics;
  }

  bool Drain(int64_t deadline_ms) override {
    draining_ = true;
    const auto deadline = Clock::now() + std::chrono::milliseconds(deadline_ms);
    bool all_over = preparing_.WaitForNone(deadline);
    for (const ModelPtr& model : Pool()) {
      const auto left = std::chrono::duration_cast<std::chrono::milliseconds>(deadline - Clock::now()).count();
      all_over &= model->engine().Drain(std::max<int64_t>(left, 0));
    }
    return all_over;
  }

 private:
  enum class Task : uint8_t { kGenerate, kEmbed };

  struct Submission {
    ModelPtr model;
    std::string id;
    std::vector<int32_t> prompt_ids;
    std::vector<engine::TokenRange> answers;  // of the prompt
    std::optional<PromptPrefix> store_behind;
    size_t answer_begin = 0;
    std::vector<int32_t> stop_ids;  // beside the model's own
    std::optional<int64_t> new_tokens_max;
    std::string first_text;  // of the answer, before what is generated
    OutputOptions output;
    uint64_t cache_partition = 0;
    std::shared_ptr<sampling::Constraint> constraint;  // or null
  };

  std::optional<LoadProgress> Loading() const {
    const ReaderLock lock(models_mutex_);
    return loading_;
  }

  std::vector<ModelPtr> Pool() const {
    const ReaderLock lock(models_mutex_);
    return models_;
  }

  // What an unknown name means.
  enum class NameRule : uint8_t {
    kStrict,     // nothing
    kOnlyModel,  // the only model that can do it, unless the options are strict
    kAnyModel,   // the default
  };
  static NameRule RuleOf(bool any_model) { return any_model ? NameRule::kAnyModel : NameRule::kOnlyModel; }
  Result<ModelPtr> Resolve(const std::string& name, Task task, NameRule rule) const;
  Status CheckOpen() const;
  // Embed, but may throw.
  std::function<void()> StartEmbed(EmbedRequest request, std::function<void(Result<EmbedResult>)> done);
  // Null when the answer may be anything. InvalidArgument naming what cannot be enforced.
  Result<std::shared_ptr<sampling::Constraint>> Constrain(const ServedModel& model, const Prompt& prompt,
                                                          AnswerDemands demands);
  Result<std::unique_ptr<Generation>> Submit(Submission submission, const SamplingRequest& sampling);

  const ServiceOptions options_;
  const Clock::time_point started_ = Clock::now();
  mutable MemoryGate gate_;
  std::atomic<bool> draining_{false};
  mutable SharedMutex models_mutex_;
  std::vector<ModelPtr> models_ PENSIEVE_GUARDED_BY(models_mutex_);
  std::optional<LoadProgress> loading_ PENSIEVE_GUARDED_BY(models_mutex_);
  std::atomic<int64_t> kv_bytes_max_;
  Preparing preparing_;  // requests past CheckOpen that no engine has yet
  AnswerGrammars grammars_;
  std::unique_ptr<EmbedWorker> worker_ = std::make_unique<EmbedWorker>();
};

Result<ModelPtr> EngineService::Resolve(const std::string& name, Task task, NameRule rule) const {
  if (const auto loading = Loading()) {
    return Unavailable(fmt::format("the server is still loading its models: {} of {} are there", loading->models_loaded,
                                   loading->models_total))
        .WithRetryAfterMs(kLoadingRetryAfterMs);
  }
  const std::vector<ModelPtr> models = Pool();
  const auto can = [task](const ModelPtr& model) {
    return task == Task::kEmbed ? model->description().embeds : model->description().generates;
  };
  ModelPtr named = FindNamed(models, name, can);
  if (named == nullptr) {
    const std::string_view target = FindAlias(options_.aliases, name);
    if (!target.empty()) named = FindNamed(models, target, can);
  }
  if (named != nullptr && can(named)) return named;
  const char* what = task == Task::kEmbed ? "make embeddings" : "generate text";
  const bool is_claude = task == Task::kGenerate && name.starts_with("claude-");
  const bool is_only = rule == NameRule::kOnlyModel && named == nullptr && !options_.strict_names &&
                       std::count_if(models.begin(), models.end(), can) == 1;
  if (rule == NameRule::kAnyModel || is_only || is_claude || name.empty()) {
    const auto first = std::find_if(models.begin(), models.end(), can);
    if (first != models.end()) return *first;
    return NotFound(fmt::format("model: no loaded model can {}", what));
  }
  if (named != nullptr) return InvalidArgument(fmt::format("model: \"{}\" cannot {}", name, what));
  return NotFound(fmt::format("model: \"{}\" is not loaded", name));
}

Status EngineService::CheckOpen() const {
  if (draining_) return Unavailable("the server is shutting down").WithReason(ErrorReason::kShuttingDown);
  return gate_.Check();
}

Result<std::shared_ptr<sampling::Constraint>> EngineService::Constrain(const ServedModel& model, const Prompt& prompt,
                                                                       AnswerDemands demands) {
  demands.rules.tools = prompt.tools;
  demands.rules.format = prompt.format;
  demands.rules.template_source = prompt.template_source;
  if (prompt.tools.is_null()) demands.rules.calls = chat::CallRule::kNone;
  for (Json& tool : demands.deferred_tools) demands.rules.tools.push_back(std::move(tool));
  demands.rules.schema = chat::CloseObjects(std::move(demands.rules.schema));
  demands.rules.tools = chat::CloseParameters(std::move(demands.rules.tools));
  PENSIEVE_TRY(auto grammar, grammars_.Get(demands.rules));
  if (grammar == nullptr) return std::shared_ptr<sampling::Constraint>();
  std::shared_ptr<sampling::Constraint> constraint =
      sampling::NewGrammarConstraint(std::move(grammar), model.token_masks());
  if (!constraint->AcceptBytes(demands.beginning))
    return InvalidArgument("messages: the last turn is no beginning of an answer that the request allows");
  return constraint;
}

Result<std::unique_ptr<Generation>> EngineService::Submit(Submission submission, const SamplingRequest& sampling) {
  const ServedModel& model = *submission.model;
  const int64_t context = model.engine().context_max();
  const auto prompt_len = static_cast<int64_t>(submission.prompt_ids.size());
  PENSIEVE_RETURN_IF_ERROR(CheckPromptLen(prompt_len, context - 1));
  PENSIEVE_RETURN_IF_ERROR(CheckStopSequences(submission.output.stop_sequences));
  const int64_t room = context - prompt_len;
  const int64_t wanted = std::max<int64_t>(submission.new_tokens_max.value_or(options_.default_new_tokens), 0);
  engine::GenerateRequest request;
  request.id = std::move(submission.id);
  request.prompt = submission.prompt_ids;
  request.precise_ranges = std::move(submission.answers);
  request.new_tokens_max = std::min(wanted, room);
  request.cache_partition = submission.cache_partition;
  request.stop_ids = model.text().stop_ids;
  request.stop_ids.insert(request.stop_ids.end(), submission.stop_ids.begin(), submission.stop_ids.end());
  request.vocab_limit = model.vocab_size();
  request.constraint = std::move(submission.constraint);
  PENSIEVE_TRY(request.sampling, ResolveSampling(model, sampling));
  submission.output.logprobs = sampling.logprobs;
  PENSIEVE_TRY(auto stream, model.engine().Generate(std::move(request)));
  return NewGeneration({.model = std::move(submission.model),
                        .prompt_ids = std::move(submission.prompt_ids),
                        .stream = std::move(stream),
                        .first_text = std::move(submission.first_text),
                        .output = std::move(submission.output),
                        .store_behind = submission.store_behind,
                        .partition = submission.cache_partition,
                        .answer_begin = submission.answer_begin,
                        .room = room,
                        .limited_by_room = wanted > room});
}

Result<std::unique_ptr<Generation>> EngineService::Chat(ChatRequest request) {
  const Preparing::Scope scope(preparing_);
  PENSIEVE_RETURN_IF_ERROR(CheckOpen());
  // A tool that is demanded by its name is called once.
  if (request.tool_choice == ToolChoice::kNamed) request.parallel_tool_calls = false;
  Submission submission;
  PENSIEVE_TRY(submission.model, Resolve(request.model, Task::kGenerate, RuleOf(request.any_model)));
  submission.id = std::move(request.id);
  submission.cache_partition = request.cache_partition;
  submission.new_tokens_max = request.new_tokens_max;
  submission.output.stop_sequences = std::move(request.stop_sequences);
  submission.output.parallel_tool_calls = request.parallel_tool_calls;
  const SamplingRequest sampling = std::move(request.sampling);
  PENSIEVE_TRY(AnswerDemands demands, ReadDemands(request));
  PENSIEVE_TRY(Prompt prompt, RenderPrompt(*submission.model, std::move(request)));
  PENSIEVE_RETURN_IF_ERROR(RefuseLongText(*submission.model, prompt.rendered.text));
  PENSIEVE_TRY(submission.constraint, Constrain(*submission.model, prompt, std::move(demands)));
  PromptIds tokenized = TokenizePrompt(*submission.model, prompt, submission.cache_partition);
  submission.prompt_ids = std::move(tokenized.ids);
  submission.answers = std::move(tokenized.answers);
  if (tokenized.answer_known) submission.store_behind = tokenized.before;
  submission.answer_begin = tokenized.answer_begin;
  submission.output.format = prompt.format;
  submission.output.tools = std::move(prompt.tools);
  return Submit(std::move(submission), sampling);
}

Result<std::unique_ptr<Generation>> EngineService::Complete(CompletionRequest request) {
  const Preparing::Scope scope(preparing_);
  PENSIEVE_RETURN_IF_ERROR(CheckOpen());
  Submission submission;
  PENSIEVE_TRY(submission.model, Resolve(request.model, Task::kGenerate, RuleOf(request.any_model)));
  submission.id = std::move(request.id);
  submission.cache_partition = request.cache_partition;
  submission.new_tokens_max = request.new_tokens_max;
  submission.output.stop_sequences = std::move(request.stop_sequences);
  const tokenizer::Tokenizer& tokenizer = submission.model->tokenizer();
  submission.prompt_ids = std::move(request.prompt_ids);
  PENSIEVE_RETURN_IF_ERROR(RefuseLongText(*submission.model, request.prompt));
  PENSIEVE_RETURN_IF_ERROR(RefuseLongText(*submission.model, request.suffix));
  if (!request.suffix.empty()) {
    if (!submission.prompt_ids.empty()) return InvalidArgument("suffix: the prompt must be text");
    PENSIEVE_TRY(FillInMiddle fill, MakeFillInMiddle(tokenizer, request.prompt, request.suffix));
    submission.prompt_ids = std::move(fill.prompt_ids);
    submission.stop_ids = std::move(fill.stop_ids);
  }
  if (submission.prompt_ids.empty()) submission.prompt_ids = tokenizer.Encode(request.prompt);
  if (submission.prompt_ids.empty()) {
    const auto& bos = tokenizer.special().bos;
    if (!bos) return InvalidArgument("prompt: must not be empty");
    submission.prompt_ids = {bos->id};
  }
  if (request.echo) {
    const bool is_text = !request.prompt.empty() || !request.suffix.empty();
    submission.first_text = is_text ? request.prompt : tokenizer.Decode(submission.prompt_ids);
  }
  return Submit(std::move(submission), request.sampling);
}

Result<int64_t> EngineService::CountTokens(const ChatRequest& request) {
  PENSIEVE_TRY(const ModelPtr model, Resolve(request.model, Task::kGenerate, RuleOf(request.any_model)));
  PENSIEVE_TRY(const Prompt prompt, RenderPrompt(*model, request));
  return static_cast<int64_t>(TokenizePrompt(*model, prompt, request.cache_partition).ids.size());
}

Result<std::string> EngineService::Render(const ChatRequest& request) {
  PENSIEVE_TRY(const ModelPtr model, Resolve(request.model, Task::kGenerate, RuleOf(request.any_model)));
  PENSIEVE_TRY(Prompt prompt, RenderPrompt(*model, request));
  return std::move(prompt.rendered.text);
}

std::function<void()> EngineService::Embed(EmbedRequest request, std::function<void(Result<EmbedResult>)> done) {
  // An exception below may come before or behind a call of `done`: the first call counts.
  const auto once = [done = std::move(done),
                     called = std::make_shared<std::atomic<bool>>(false)](Result<EmbedResult> result) {
    if (!called->exchange(true)) done(std::move(result));
  };
  std::function<void()> cancel = [] {};
  const Status failure = Guarded([&] { cancel = StartEmbed(std::move(request), once); });
  if (!failure.ok()) once(failure);
  return cancel;
}

std::function<void()> EngineService::StartEmbed(EmbedRequest request, std::function<void(Result<EmbedResult>)> done) {
  const auto start = Clock::now();
  const Preparing::Scope scope(preparing_);
  const auto fail = [&done](const Status& status) {
    done(status);
    return [] {};
  };
  if (const Status open = CheckOpen(); !open.ok()) return fail(open);
  auto model = Resolve(request.model, Task::kEmbed, RuleOf(request.any_model));
  if (!model.has_value()) return fail(model.error());
  auto planned = PlanEmbedding(**model, std::move(request));
  if (!planned.has_value()) return fail(planned.error());
  engine::EmbedRequest to_engine = std::move(planned->request);
  planned->request = {.id = "", .sequences = {}, .pooling = to_engine.pooling, .normalize = to_engine.normalize};
  auto stream = (*model)->engine().Embed(std::move(to_engine));
  if (!stream.has_value()) return fail(stream.error());
  return worker_->Watch(*std::move(stream), [model = *model, plan = *std::move(planned), start,
                                             done = std::move(done)](engine::Event event) {
    if (event.kind == engine::Event::Kind::kError) return done(event.error);
    if (event.kind == engine::Event::Kind::kCancelled) return done(Cancelled("the request was cancelled"));
    EmbedResult result;
    const Status failure = Guarded([&] {
      result.model_name = model->name();
      result.dimension = plan.dimension;
      result.embeddings = std::move(event.embeddings);
      result.tokens = plan.tokens;
      result.prompt_tokens = plan.prompt_tokens;
      FinishEmbeddings(plan, result.embeddings);
      result.total_s = SecondsSince(start);
    });
    if (!failure.ok()) return done(failure);
    done(std::move(result));
  });
}

}  // namespace

std::unique_ptr<Service> Service::Create(const ServiceOptions& options) {
  return std::make_unique<EngineService>(options);
}

}  // namespace pensieve::service
