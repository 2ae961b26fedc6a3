// A network for the service's tests that says what a test tells it to, one byte a token, behind the real tokenizer,
// chat template, engine and sampler.
#pragma once

#include <algorithm>
#include <memory>
#include <string>
#include <vector>

#include "base/mutex.h"
#include "engine/engine_fixture.h"
#include "model/loader.h"

namespace pensieve::service {

inline constexpr int32_t kImStart = 256;
inline constexpr int32_t kImEnd = 257;
inline constexpr int32_t kTildes = 258;  // "~~", which a script says as two tokens
inline constexpr int64_t kScriptVocab = 260;
inline constexpr int64_t kScriptHidden = 4;

// What the model answers to every prompt. Shared between a test and the engine's thread.
class Script {
 public:
  void Set(std::string text, bool endless = false) {
    const MutexLock lock(mutex_);
    text_ = std::move(text);
    endless_ = endless;
  }
  int32_t At(size_t index) const {
    const MutexLock lock(mutex_);
    if (index < text_.size()) return static_cast<uint8_t>(text_[index]);
    return endless_ ? 'x' : kImEnd;
  }

 private:
  mutable Mutex mutex_;
  std::string text_ PENSIEVE_GUARDED_BY(mutex_);
  bool endless_ PENSIEVE_GUARDED_BY(mutex_) = false;
};

class ScriptedModel : public model::Model {
 public:
  // `backend` must outlive it.
  ScriptedModel(const model::ModelConfig& config, backend::Backend& backend, std::shared_ptr<const Script> script)
      : config_(config),
        backend_(backend),
        script_(std::move(script)),
        output_(static_cast<size_t>(64 * kScriptVocab)) {}

  const model::ModelConfig& config() const override { return config_; }
  int64_t rows_max() const override { return 64; }
  int64_t weight_bytes_per_step() const override { return 0; }

  backend::Matrix Forward(const model::Batch& batch, backend::KvCache& cache) override {
    auto& slots = static_cast<engine::TestKvCache&>(cache);
    Store(batch, slots);
    std::fill(output_.values.begin(), output_.values.end(), 0.0f);
    backend_.BeginStep(batch);
    size_t output = 0;
    for (const backend::SequenceRows& rows : batch.sequences) {
      for (int64_t i = 0; i < rows.num_rows; ++i) {
        if (output == batch.output_rows.size() || batch.output_rows[output] != rows.first_row + i) continue;
        const size_t answered = Answered(slots, rows, rows.cached_len + i + 1);
        output_.values[output * kScriptVocab + static_cast<size_t>(script_->At(answered))] = 50.0f;
        ++output;
      }
    }
    return {&output_, 0, static_cast<int64_t>(output), kScriptVocab, kScriptVocab};
  }

  // A row is (token id, 1, position, 2).
  backend::Matrix Hidden(const model::Batch& batch, backend::KvCache* cache) override {
    if (cache != nullptr) Store(batch, static_cast<engine::TestKvCache&>(*cache));
    backend_.BeginStep(batch);
    for (size_t r = 0; r < batch.ids.size(); ++r) {
      const float row[] = {static_cast<float>(batch.ids[r]), 1.0f, static_cast<float>(batch.positions[r]), 2.0f};
      std::copy_n(row, kScriptHidden, output_.values.begin() + static_cast<std::ptrdiff_t>(r) * kScriptHidden);
    }
    return {&output_, 0, batch.rows, kScriptHidden, kScriptHidden};
  }

 private:
  // How much of the script ends a history of `len` tokens.
  size_t Answered(engine::TestKvCache& slots, const backend::SequenceRows& rows, int64_t len) const {
    const auto said = [&](int64_t count) {
      for (int64_t i = 0; i < count; ++i) {
        const auto token = static_cast<uint64_t>(script_->At(static_cast<size_t>(i)));
        if (engine::TokenOfSlot(slots.At(rows, len - count + i)) != token) return false;
      }
      return true;
    };
    int64_t count = len;
    while (!said(count)) --count;
    return static_cast<size_t>(count);
  }

  static void Store(const model::Batch& batch, engine::TestKvCache& cache) {
    for (const backend::SequenceRows& rows : batch.sequences) {
      for (int64_t i = 0; i < rows.num_rows; ++i) {
        const bool precise = rows.first_row + i < batch.precise_rows;
        cache.At(rows, rows.cached_len + i) =
            engine::SlotValue(batch.ids[static_cast<size_t>(rows.first_row + i)], precise);
      }
    }
  }

  const model::ModelConfig config_;
  backend::Backend& backend_;
  const std::shared_ptr<const Script> script_;
  engine::TestBuffer output_;
};

// A byte-level tokenizer: id = byte, 256 <|im_start|>, 257 <|im_end|>, 258 two tildes. `closes`: the post-processor adds <|im_end|>.
inline std::unique_ptr<tokenizer::Tokenizer> ByteTokenizer(bool closes) {
  const auto utf8 = [](int code) {
    if (code < 0x80) return std::string(1, static_cast<char>(code));
    return std::string{static_cast<char>(0xC0 | code >> 6), static_cast<char>(0x80 | (code & 63))};
  };
  Json vocab = Json::object();
  int next = 256;  // bytes without a printable Latin-1 form are spelled from U+0100 on
  for (int byte = 0; byte < 256; ++byte) {
    const bool printable = (byte >= 33 && byte <= 126) || (byte >= 161 && byte <= 172) || byte >= 174;
    vocab[utf8(printable ? byte : next++)] = byte;
  }
  vocab["~~"] = kTildes;
  const auto added = [](int id, const char* content) {
    return Json{{"id", id},        {"content", content},  {"single_word", false}, {"lstrip", false},
                {"rstrip", false}, {"normalized", false}, {"special", true}};
  };
  const Json byte_level = {
      {"type", "ByteLevel"}, {"add_prefix_space", false}, {"trim_offsets", true}, {"use_regex", true}};
  Json post = nullptr;
  if (closes) {
    post = {
        {"type", "TemplateProcessing"},
        {"single",
         {{{"Sequence", {{"id", "A"}, {"type_id", 0}}}}, {{"SpecialToken", {{"id", "<|im_end|>"}, {"type_id", 0}}}}}},
        {"pair", Json::array()},
        {"special_tokens", {{"<|im_end|>", {{"id", "<|im_end|>"}, {"ids", {kImEnd}}, {"tokens", {"<|im_end|>"}}}}}}};
  }
  const Json document = {{"version", "1.0"},
                         {"added_tokens", {added(kImStart, "<|im_start|>"), added(kImEnd, "<|im_end|>")}},
                         {"normalizer", nullptr},
                         {"pre_tokenizer", byte_level},
                         {"post_processor", post},
                         {"decoder", byte_level},
                         {"model", {{"type", "BPE"}, {"vocab", vocab}, {"merges", Json::array({"~ ~"})}}}};
  auto tokenizer = tokenizer::Tokenizer::FromHuggingFace(DumpJson(document), Json(), "byte-tokenizer");
  PENSIEVE_CHECK(tokenizer.has_value());
  return *std::move(tokenizer);
}

inline constexpr char kTestTemplate[] =
    "{% if tools %}<|im_start|>system\n<tools>{% for t in tools %}{{ t | tojson }}{% endfor %}</tools>"
    "Answer <tool_call>{\"name\": ..., \"arguments\": ...}</tool_call><|im_end|>\n{% endif %}"
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% if enable_thinking %}<think>\n{% endif %}{% endif %}";

struct TestModelKind {
  bool is_encoder = false;
  bool is_embedding = false;
  bool closes = false;  // the tokenizer ends every text with <|im_end|>
  bool has_template = true;
  int64_t context_max = 512;
};

inline std::unique_ptr<model::LoadedModel> ScriptedLoadedModel(std::shared_ptr<const Script> script,
                                                               const TestModelKind& kind = {}) {
  auto loaded = std::make_unique<model::LoadedModel>();
  loaded->path = "test-model";
  model::ModelConfig& config = loaded->config;
  config.architecture = "test";
  config.name = "Test Model";
  config.hidden_size = kScriptHidden;
  config.layers = config.kv_heads = config.heads = config.head_dim = 1;
  config.vocab_size = kScriptVocab;
  config.context_max = kind.context_max;
  config.is_encoder = kind.is_encoder;
  config.is_embedding = kind.is_encoder || kind.is_embedding;
  config.pooling = kind.is_encoder ? backend::Pooling::kCls : backend::Pooling::kLast;
  config.normalize = false;
  loaded->text.tokenizer = ByteTokenizer(kind.closes);
  if (kind.has_template) loaded->text.chat_template = kTestTemplate;
  loaded->text.stop_ids = {kImEnd};
  loaded->backend = std::make_unique<engine::TestBackend>();
  loaded->network = std::make_unique<ScriptedModel>(config, *loaded->backend, std::move(script));
  return loaded;
}

}  // namespace pensieve::service
