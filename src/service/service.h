// What every dialect and transport calls: neutral requests in, neutral events out. Validates, resolves the model,
// renders the chat template, tokenizes, submits to the engine; on the way back detokenizes, splits reasoning and tool
// calls from text, and matches stop sequences. Nothing here knows HTTP, gRPC or a vendor's field name.
//
// Prompts are tokenized as Hugging Face does it, but that special tokens which a message spells out ("<|im_end|>") are
// plain text: only the template opens and closes turns. Raw completions are parsed for special tokens.
//
// Thread-safe. Calls that render or tokenize use the caller's thread (long prompts take milliseconds to tens of them):
// transports call from a worker pool, never from an I/O loop.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/json.h"
#include "base/status.h"
#include "engine/engine.h"
#include "model/loader.h"
#include "service/model_names.h"

namespace pensieve::service {

// Sampling as a client asked for it; what is absent comes from the model's own defaults, then ours.
struct SamplingRequest {
  std::optional<float> temperature;
  std::optional<float> top_p;
  std::optional<int32_t> top_k;
  std::optional<float> min_p;
  std::optional<float> repetition_penalty;
  std::optional<float> presence_penalty;
  std::optional<float> frequency_penalty;
  std::optional<uint64_t> seed;  // absent: a fresh random one
  std::vector<std::pair<int32_t, float>> logit_bias;
  bool logprobs = false;
  int32_t top_logprobs = 0;
};

enum class ToolChoice : uint8_t { kAuto, kNone, kAny, kNamed };

struct ChatRequest {
  std::string id;          // request id, for logs
  std::string model;       // as the client wrote it
  bool any_model = false;  // an unknown name means the default generator instead of NotFound
  Json messages;           // chat-template shape: [{role, content, tool_calls?, tool_call_id?, reasoning_content?}]
  Json tools;              // [{type: "function", function: {name, description, parameters}}] or null
  Json deferred_tools;     // the same; the conversation may show them later, and then they may be called
  ToolChoice tool_choice = ToolChoice::kAuto;
  std::string tool_choice_name;         // kNamed
  bool parallel_tool_calls = true;      // false: the answer ends behind its first tool call
  bool continue_final_message = false;  // the last message is an assistant prefill to continue
  std::optional<bool> thinking;         // absent: the template's default
  std::string effort;                   // "", "low", "medium", "high", ...
  Json template_context;                // extra template variables or null
  // What the answer must be, one of these at most: JSON that satisfies a JSON Schema ({} for any value) or null; a
  // text that a regular expression matches; a text of a grammar (chat/grammar_text.h).
  Json output_schema;
  std::string output_regex;
  std::string output_grammar;
  std::vector<std::string> strict_tools;    // names of tools whose arguments must match their schemas in any case
  std::optional<int64_t> new_tokens_max;    // clamped to the room the context leaves
  std::vector<std::string> stop_sequences;  // at most 64, each 1..256 bytes; found in text, not in reasoning or calls
  SamplingRequest sampling;
  uint64_t cache_partition = 0;  // prompts share computed blocks, and count them as cached, only within one number
};

// Raw text without a template.
struct CompletionRequest {
  std::string id;
  std::string model;
  bool any_model = false;
  std::string prompt;
  std::vector<int32_t> prompt_ids;  // instead of `prompt`, when not empty
  std::string suffix;  // not empty: the answer is what stands between `prompt`, which is text then, and this
  bool echo = false;   // the answer begins with the prompt's text; not with log-probabilities
  std::optional<int64_t> new_tokens_max;
  std::vector<std::string> stop_sequences;
  SamplingRequest sampling;
  uint64_t cache_partition = 0;
};

enum class StopReason : uint8_t { kEnd, kMaxTokens, kStopSequence, kToolUse, kContextFull };

struct Usage {
  int64_t prompt_tokens = 0;         // all of them
  int64_t cached_prompt_tokens = 0;  // of these, taken from shared KV
  int64_t completion_tokens = 0;
  int64_t reasoning_tokens = 0;
  double first_token_s = 0;
  double total_s = 0;
};

struct TokenLogprob {
  int32_t id = 0;
  std::string bytes;  // may be a part of a character
  float logprob = 0;
  std::vector<TokenLogprob> top;  // alternatives, in descending order; theirs is empty
};

struct GenerationEvent {
  enum class Kind : uint8_t {
    kProgress,           // prefilled_tokens
    kText,               // text
    kReasoning,          // text
    kToolCallStart,      // call_id, tool_name
    kToolCallArguments,  // text: a fragment of a JSON object
    kToolCallEnd,
    kDone,   // stop_reason, stop_sequence, usage
    kError,  // error
    kCancelled,
  };
  Kind kind = Kind::kText;
  std::string text;
  std::string call_id;  // globally unique, without a dialect's prefix
  std::string tool_name;
  std::vector<TokenLogprob> logprobs;  // of the tokens that made this text, when asked for
  int64_t prefilled_tokens = 0;
  StopReason stop_reason = StopReason::kEnd;
  std::string stop_sequence;  // kStopSequence: the one that matched
  Usage usage;
  Status error;

  bool terminal() const { return kind == Kind::kDone || kind == Kind::kError || kind == Kind::kCancelled; }
};

// A running generation. One consumer, whose thread also turns tokens into text; Cancel may come from any thread.
// Destroying it cancels the request. It must not outlive its Service.
class Generation {
 public:
  virtual ~Generation() = default;
  virtual const std::string& model_name() const = 0;  // the served model's own name
  virtual int64_t prompt_tokens() const = 0;
  virtual const std::vector<int32_t>& prompt_ids() const = 0;
  // The next event if one is ready; nothing after the terminal one.
  virtual std::optional<GenerationEvent> TryNext() = 0;
  // Waits for it.
  virtual std::optional<GenerationEvent> Next() = 0;
  // As engine::EventStream::SetWaker: after a wake, call TryNext until it gives nothing.
  virtual void SetWaker(std::function<void()> wake) = 0;
  virtual void Cancel() = 0;
  // Ids generated so far, for `run --json` and eval.
  virtual const std::vector<int32_t>& generated_ids() const = 0;
};

enum class PoolingChoice : uint8_t {
  kModelDefault,
  kMean,
  kCls,
  kLast,
  kMax,
  kMeanForDecoders,  // mean over causal models whatever their recipe says, the recipe of all others
};

struct EmbedRequest {
  std::string id;
  std::string model;                            // "" or unknown: the default embedding model when `any_model`
  bool any_model = false;                       // AkiDB echoes any name and never answers 404
  std::vector<std::string> texts;               // alternatively:
  std::vector<std::vector<int32_t>> token_ids;  // OpenAI's pre-tokenized input
  PoolingChoice pooling = PoolingChoice::kModelDefault;
  std::optional<bool> normalize;  // absent: the model's recipe
  int64_t dimensions = 0;         // > 0: Matryoshka truncation, then renormalized
  bool truncate = true;           // else InvalidArgument (kPromptTooLong) for a text past the limit
  int64_t tokens_max = 0;         // > 0: truncate earlier than the model would
};

// Tokens of one text to embed: all of them, and those that are left when it was cut to the limit.
struct TextTokens {
  int64_t seen = 0;  // only of the part that was looked at, when EmbedRequest::tokens_max asked for an early cut
  int64_t used = 0;

  bool truncated() const { return used < seen; }
};

struct EmbedResult {
  std::string model_name;
  int64_t dimension = 0;
  std::vector<std::vector<float>> embeddings;  // in input order
  std::vector<TextTokens> tokens;              // in input order
  int64_t prompt_tokens = 0;                   // real tokens, truncation applied
  double total_s = 0;
};

struct ModelDescription {
  std::string name;
  std::string display_name;
  std::string path;
  bool generates = false;
  bool embeds = false;
  int64_t context_max = 0;
  int64_t embed_context_max = 0;
  int64_t dimension = 0;       // of embeddings
  int64_t created_unix_s = 0;  // file time of the weights
  bool supports_tools = false;
  bool supports_thinking = false;
  backend::BackendDescription device = {};  // what computes it, and what that promises
  std::string architecture;                 // as the files name it
  std::string quantization;                 // as `inspect` shows it
  std::string chat_template;                // "" for none
  int64_t size_bytes = 0;                   // of the files
};

// How far a server is that loads its models.
struct LoadProgress {
  std::string model;  // the one at work
  std::string step;   // "finding", "downloading", "loading"
  int64_t models_loaded = 0;
  int64_t models_total = 0;
  int64_t done_bytes = 0;   // of a download
  int64_t total_bytes = 0;  // 0: not known
};

struct Health {
  bool ready = false;  // every configured model is usable: loaded, and its device is not lost
  bool draining = false;
  std::optional<LoadProgress> loading;  // while models are still to come
  std::vector<std::string> lost;        // models whose files were truncated while in use, one sentence each
  double uptime_s = 0;
  std::string memory_status;  // "safe", "warning", "critical", "emergency"
  double memory_available_gb = 0;
  int64_t concurrent_limit = 0;
  std::optional<backend::BackendDescription> device = {};  // what models compute on; nothing before one is loaded
  std::string device_reason = {};                          // why this one
};

struct ModelMetrics {
  std::string model;
  engine::EngineSnapshot engine;
};

struct ServiceOptions {
  int64_t default_new_tokens = 4096;  // when a request names no limit
  double memory_critical_gb = 1.0;    // below: new work is refused (kMemoryPressure)
  double memory_emergency_gb = 0.5;
  bool memory_gate = true;
  std::string device_reason = {};  // shown by /health: why models compute on the device that they do
  std::vector<ModelAlias> aliases;
  bool strict_names = false;  // a single generator or embedder answers to its own names only
  engine::EngineOptions engine;
};

class Service {
 public:
  static std::unique_ptr<Service> Create(const ServiceOptions& options);
  virtual ~Service() = default;

  // Adds a loaded model under `name` (and aliases) and starts its engine. AlreadyExists when the name is taken. The
  // first generator and the first embedding model added are the defaults. Names resolve to: a model or alias spelled
  // exactly so; else one that differs only in what IsSameModelName overlooks; else what ServiceOptions::aliases gives;
  // else the default for "", for any "claude-*" (text only), when the request says any_model, and unless strict_names
  // when there is only one model that can do what is asked; else NotFound, whose message begins with "model: ".
  // InvalidArgument for the name of a model that cannot do what is asked.
  virtual Status AddModel(const std::string& name, std::vector<std::string> aliases,
                          std::unique_ptr<model::LoadedModel> loaded) = 0;

  // Until it is called with nothing, no request is taken and health shows the progress.
  virtual void SetLoading(std::optional<LoadProgress> progress) = 0;
  // The KV memory of each model that is added from now on; before, ServiceOptions.engine.kv_bytes_max.
  virtual void SetKvBytesMax(int64_t bytes) = 0;

  virtual Result<std::unique_ptr<Generation>> Chat(ChatRequest request) = 0;
  virtual Result<std::unique_ptr<Generation>> Complete(CompletionRequest request) = 0;
  // Chat and Complete: InvalidArgument naming the field; kPromptTooLong in the words "prompt is too long: N tokens > M
  // maximum"; Unavailable (kMemoryPressure, kShuttingDown, or models that still load); DataLoss (the model's file was
  // truncated); ResourceExhausted (kQueueFull). Nothing runs then.
  //
  // Tokens that Chat would prefill. Never waits for the engine.
  virtual Result<int64_t> CountTokens(const ChatRequest& request) = 0;
  // The exact prompt text that Chat would tokenize.
  virtual Result<std::string> Render(const ChatRequest& request) = 0;

  // `done` is called exactly once, from a service thread (or at once, from the caller's, for early errors).
  // The returned function cancels; it may be called at any time from any thread, also after `done`. Never throws.
  virtual std::function<void()> Embed(EmbedRequest request, std::function<void(Result<EmbedResult>)> done) = 0;

  virtual std::vector<ModelDescription> Models() const = 0;
  // As above, but a name is never answered by a model only because there is no other.
  virtual Result<ModelDescription> FindModel(const std::string& name, bool embedding) const = 0;
  virtual Health GetHealth() const = 0;
  // Forgets what prefix caches hold of earlier requests, soon after.
  virtual void ClearCaches() = 0;
  virtual std::vector<ModelMetrics> GetMetrics() const = 0;
  // Refuses new work and waits for running requests, also those that are still rendered and tokenized; false
  // when the deadline cut some off.
  virtual bool Drain(int64_t deadline_ms) = 0;
};

}  // namespace pensieve::service
