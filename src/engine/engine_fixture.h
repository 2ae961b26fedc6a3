// A small device and network for the engine's tests: what they compute depends on every token of a sequence's history,
// as read back through its block table, and on whether each row was precise. So a wrong table, position, length, precision
// or a shared block with other contents gives other tokens than Expect* says.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <memory>
#include <span>
#include <stdexcept>
#include <vector>

#include "backend/host_backend.h"
#include "engine/engine.h"
#include "model/model.h"

namespace pensieve::engine {

inline constexpr int64_t kTestVocab = 101;
inline constexpr int64_t kTestHidden = 3;

inline uint64_t Mix(uint64_t hash, uint64_t value) {
  hash = (hash ^ value) * 0xff51afd7ed558ccdu;
  return hash ^ (hash >> 29);
}

// What one computed row leaves in the KV memory.
inline uint64_t SlotValue(int32_t token, bool precise, bool long_rope = false) {
  return static_cast<uint64_t>(token) * 4 + (precise ? 1 : 0) + (long_rope ? 2 : 0) + 1;
}
inline uint64_t TokenOfSlot(uint64_t value) { return (value - 1) / 4; }

// A number in [0, 8) for each (history, column).
inline float Column(uint64_t hash, int64_t column) {
  return static_cast<float>(Mix(hash, static_cast<uint64_t>(column) + 77) >> 40) * 0x1p-21f;
}

class TestKvCache : public backend::KvCache {
 public:
  explicit TestKvCache(const backend::KvShape& shape)
      : slots(static_cast<size_t>(shape.num_blocks * shape.block_len), 0), shape_(shape) {}
  const backend::KvShape& shape() const override { return shape_; }
  int64_t block_bytes() const override { return shape_.block_len * static_cast<int64_t>(sizeof(uint64_t)); }
  Status ReadBlock(int64_t block, std::span<std::byte> bytes) const override {
    std::memcpy(bytes.data(), slots.data() + block * shape_.block_len, bytes.size());
    return OkStatus();
  }
  Status WriteBlock(int64_t block, std::span<const std::byte> bytes) override {
    std::memcpy(slots.data() + block * shape_.block_len, bytes.data(), bytes.size());
    return OkStatus();
  }

  uint64_t& At(const backend::SequenceRows& rows, int64_t position) {
    const int32_t block = rows.block_table[static_cast<size_t>(position / shape_.block_len)];
    PENSIEVE_CHECK(block >= 0 && block < shape_.num_blocks);
    return slots[static_cast<size_t>(block * shape_.block_len + position % shape_.block_len)];
  }

  std::vector<uint64_t> slots;

 private:
  backend::KvShape shape_;
};

// Memory of a test's network.
struct TestBuffer : backend::Buffer {
  explicit TestBuffer(size_t size) : values(size, 0.0f) { base = values.data(); }
  std::vector<float> values;
};

class TestBackend : public backend::HostBackend {
 public:
  backend::BackendDescription Describe() const override {
    backend::BackendDescription description;
    description.device = description.name = "test";
    description.threads = 1;
    description.precision_differs = true;
    description.kv_dtypes = {backend::KvDType::kF16, backend::KvDType::kF32, backend::KvDType::kInt8};
    return description;
  }
  // How the device shall fail: of the calls that wait for it, the one with this number from now on (0: the next).
  int waits_to_fail = -1;
  bool fails_for_good = false;

  Status EndStep() override { return Wait(); }
  bool CanGoOn() const override { return !lost_; }
  Status CopyToDevice(std::span<const float> host, backend::Matrix device) override {
    PENSIEVE_RETURN_IF_ERROR(Wait());
    return HostBackend::CopyToDevice(host, device);
  }
  Status CopyToHost(backend::Matrix device, std::span<float> host) override {
    PENSIEVE_RETURN_IF_ERROR(Wait());
    return HostBackend::CopyToHost(device, host);
  }
  Status ReadDrawn(std::span<int32_t> tokens) override {
    PENSIEVE_RETURN_IF_ERROR(Wait());
    return HostBackend::ReadDrawn(tokens);
  }

  Result<std::unique_ptr<backend::KvCache>> NewKvCache(const backend::KvShape& shape) override {
    return std::unique_ptr<backend::KvCache>(std::make_unique<TestKvCache>(shape));
  }

  void Draw(backend::Matrix logits, std::span<const int32_t> rows,
            std::span<const backend::DrawParams> params) override {
    drawn_.clear();
    for (size_t i = 0; i < rows.size(); ++i) {
      const std::span<float> row(View(logits).row(rows[i]), static_cast<size_t>(logits.cols));
      const bool drawable = backend::IsDrawable(row, params[i]);
      backend::MakeComparable(row);
      drawn_.push_back(drawable ? drawer_.Draw(row, params[i]) : backend::kNoToken);
    }
  }
  void Pool(backend::Matrix matrix, backend::Pooling pooling, backend::Matrix out) override {
    const backend::MatrixView x = View(matrix);
    for (size_t s = 0; s < step().sequences.size(); ++s) {
      const backend::MatrixView rows = x.Rows(step().sequences[s].first_row, step().sequences[s].num_rows);
      for (int64_t d = 0; d < x.cols; ++d) {
        float sum = 0.0f;
        float largest = rows.row(0)[d];
        for (int64_t r = 0; r < rows.rows; ++r) {
          sum += rows.row(r)[d];
          largest = std::max(largest, rows.row(r)[d]);
        }
        View(out).row(static_cast<int64_t>(s))[d] = pooling == backend::Pooling::kMean
                                                        ? sum / static_cast<float>(rows.rows)
                                                    : pooling == backend::Pooling::kCls  ? rows.row(0)[d]
                                                    : pooling == backend::Pooling::kLast ? rows.row(rows.rows - 1)[d]
                                                                                         : largest;
      }
    }
  }
  void L2Normalize(backend::Matrix matrix) override {
    const backend::MatrixView x = View(matrix);
    for (int64_t r = 0; r < x.rows; ++r) {
      float norm = 0.0f;
      for (int64_t d = 0; d < x.cols; ++d) norm += x.row(r)[d] * x.row(r)[d];
      for (int64_t d = 0; d < x.cols; ++d) x.row(r)[d] /= std::sqrt(norm);
    }
  }

  // The engine itself asks for none of these.
  Result<backend::Weight> Import(const tensor::Weight&, backend::WeightUse) override { return Unimplemented("test"); }
  Result<backend::ExpertSet> ImportExperts(const backend::ExpertLayer&) override { return Unimplemented("test"); }
  Result<backend::Rope> ImportRope(const backend::RopeTable&, const backend::RopeTable&) override {
    return Unimplemented("test");
  }
  void MatMul(const backend::MatMulInput&, std::span<const backend::Product>) override { PENSIEVE_UNREACHABLE(); }
  void GatedMatMul(const backend::MatMulInput&, const backend::GatedProduct&) override { PENSIEVE_UNREACHABLE(); }
  void Experts(const backend::MatMulInput&, backend::Matrix, const backend::ExpertSet&, backend::Matrix) override {
    PENSIEVE_UNREACHABLE();
  }
  void EmbedRows(const backend::Weight&, backend::EmbedBy, float, backend::Matrix, bool) override {
    PENSIEVE_UNREACHABLE();
  }
  void RmsNorm(backend::Matrix, backend::Vector, float, backend::Matrix) override { PENSIEVE_UNREACHABLE(); }
  void RmsNormHeads(backend::Matrix, int64_t, backend::Vector, float) override { PENSIEVE_UNREACHABLE(); }
  void LayerNorm(backend::Matrix, backend::Vector, backend::Vector, float, backend::Matrix) override {
    PENSIEVE_UNREACHABLE();
  }
  void Rotate(backend::Matrix, int64_t, const backend::Rope&) override { PENSIEVE_UNREACHABLE(); }
  void ScaleQueries(backend::Matrix) override { PENSIEVE_UNREACHABLE(); }
  void Add(backend::Matrix, backend::Matrix) override { PENSIEVE_UNREACHABLE(); }
  void Softcap(backend::Matrix, float) override { PENSIEVE_UNREACHABLE(); }
  void GatherOutputs(backend::Matrix, backend::Matrix) override { PENSIEVE_UNREACHABLE(); }
  void StoreKv(backend::KvCache&, int64_t, backend::Matrix, backend::Matrix) override { PENSIEVE_UNREACHABLE(); }
  void PagedAttention(const backend::KvCache&, int64_t, const backend::AttentionParams&, backend::Matrix,
                      backend::Matrix) override {
    PENSIEVE_UNREACHABLE();
  }
  void EncoderAttention(int64_t, const backend::AttentionParams&, backend::Matrix, backend::Matrix, backend::Matrix,
                        backend::Matrix) override {
    PENSIEVE_UNREACHABLE();
  }

 private:
  Status Wait() {
    if (!lost_ && (waits_to_fail < 0 || waits_to_fail-- > 0)) return OkStatus();
    lost_ = lost_ || fails_for_good;
    return Unavailable("the device fell off the bus");
  }

  backend::TokenDrawer drawer_;
  bool lost_ = false;
};

struct TestModelOptions {
  int64_t rows_max = 64;
  int64_t context_max = 256;
  int64_t short_context_max = 0;  // > 0: sequences planned longer leave other values in the cache
  bool is_encoder = false;
  bool is_embedding = false;
};

class TestModel : public model::Model {
 public:
  // `backend` must outlive it.
  TestModel(const TestModelOptions& options, backend::Backend& backend)
      : backend_(backend),
        rows_max_(options.rows_max),
        short_context_max_(options.short_context_max),
        output_(static_cast<size_t>(options.rows_max * std::max(kTestVocab, kTestHidden))) {
    config_.hidden_size = kTestHidden;
    config_.layers = config_.kv_heads = config_.head_dim = 1;
    config_.vocab_size = kTestVocab;
    config_.context_max = options.context_max;
    config_.is_encoder = options.is_encoder;
    config_.is_embedding = options.is_encoder || options.is_embedding;
  }

  const model::ModelConfig& config() const override { return config_; }
  int64_t rows_max() const override { return rows_max_; }
  int64_t weight_bytes_per_step() const override { return 0; }
  bool UsesLongRope(int64_t planned_len) const override {
    return short_context_max_ > 0 && planned_len > short_context_max_;
  }

  backend::Matrix Forward(const model::Batch& batch, backend::KvCache& cache) override {
    BeginStep(batch, &cache);
    size_t output = 0;
    for (const backend::SequenceRows& rows : batch.sequences) {
      for (int64_t i = 0; i < rows.num_rows; ++i) {
        if (output == batch.output_rows.size() || batch.output_rows[output] != rows.first_row + i) continue;
        const uint64_t hash = HistoryHash(static_cast<TestKvCache&>(cache), rows, rows.cached_len + i);
        for (int64_t v = 0; v < kTestVocab; ++v)
          output_.values[output * kTestVocab + static_cast<size_t>(v)] =
              give_nan || v == nan_column ? std::nanf("") : Column(hash, v);
        ++output;
      }
    }
    PENSIEVE_CHECK(output == batch.output_rows.size());
    return {&output_, 0, static_cast<int64_t>(output), kTestVocab, kTestVocab};
  }

  backend::Matrix Hidden(const model::Batch& batch, backend::KvCache* cache) override {
    PENSIEVE_CHECK((cache == nullptr) == config_.is_encoder);
    BeginStep(batch, cache);
    for (const backend::SequenceRows& rows : batch.sequences) {
      const auto tokens = batch.ids.subspan(static_cast<size_t>(rows.first_row), static_cast<size_t>(rows.num_rows));
      for (int64_t i = 0; i < rows.num_rows; ++i) {
        uint64_t hash = 1;
        if (cache != nullptr) {
          hash = HistoryHash(static_cast<TestKvCache&>(*cache), rows, rows.cached_len + i);
        } else {
          for (const int32_t token : tokens) hash = Mix(hash, SlotValue(token, false));
          hash = Mix(hash, static_cast<uint64_t>(i));
        }
        for (int64_t d = 0; d < kTestHidden; ++d)
          output_.values[static_cast<size_t>((rows.first_row + i) * kTestHidden + d)] =
              tokens[static_cast<size_t>(i)] == nan_token ? std::nanf("") : Column(hash, d);
      }
    }
    return {&output_, 0, batch.rows, kTestHidden, kTestHidden};
  }

  // What the next steps should do wrong.
  bool give_nan = false;
  int64_t nan_column = -1;  // of the logits
  int32_t nan_token = -1;   // its hidden rows are no numbers
  int steps_to_throw = -1;  // 0: throws now and never again

  int64_t steps = 0;
  std::vector<int64_t> rows_of_last_step;  // by piece

 private:
  static uint64_t HistoryHash(TestKvCache& cache, const backend::SequenceRows& rows, int64_t position) {
    uint64_t hash = 1;
    for (int64_t p = 0; p <= position; ++p) hash = Mix(hash, cache.At(rows, p));
    return hash;
  }

  void BeginStep(const model::Batch& batch, backend::KvCache* cache) {
    ++steps;
    if (steps_to_throw >= 0 && steps_to_throw-- == 0) throw std::runtime_error("the device is gone");
    PENSIEVE_CHECK(batch.rows > 0 && batch.rows <= rows_max_);
    PENSIEVE_CHECK(static_cast<int64_t>(batch.ids.size()) == batch.rows);
    backend_.BeginStep(batch);
    PENSIEVE_CHECK(batch.positions.size() == batch.ids.size());
    rows_of_last_step.clear();
    int64_t next_row = 0;
    for (const backend::SequenceRows& rows : batch.sequences) {
      PENSIEVE_CHECK(rows.first_row == next_row && rows.num_rows > 0);
      next_row += rows.num_rows;
      rows_of_last_step.push_back(rows.num_rows);
      PENSIEVE_CHECK(rows.first_row >= batch.precise_rows ||
                     next_row <= batch.precise_rows);  // a piece is of one precision
      for (int64_t i = 0; i < rows.num_rows; ++i) {
        const auto row = static_cast<size_t>(rows.first_row + i);
        PENSIEVE_CHECK(batch.positions[row] == rows.cached_len + i);
        PENSIEVE_CHECK(batch.ids[row] >= 0 && batch.ids[row] < kTestVocab);
        if (cache == nullptr) continue;
        const bool precise = rows.first_row + i < batch.precise_rows;
        static_cast<TestKvCache&>(*cache).At(rows, rows.cached_len + i) =
            SlotValue(batch.ids[row], precise, rows.long_rope);
      }
    }
    PENSIEVE_CHECK(next_row == static_cast<int64_t>(batch.ids.size()));
  }

  backend::Backend& backend_;
  const int64_t rows_max_;
  const int64_t short_context_max_;
  model::ModelConfig config_;
  TestBuffer output_;
};

// Whether the row of the prompt's token at `position` must be precise.
inline bool IsPrecise(const GenerateRequest& request, int64_t position) {
  return position < 64 ||
         std::any_of(request.precise_ranges.begin(), request.precise_ranges.end(),
                     [&](TokenRange range) { return range.first <= position && position < range.end; });
}

// The answer that `request` must get, whatever runs beside it: the same sampler over logits of an unpaged history.
inline std::vector<int32_t> ExpectAnswer(const GenerateRequest& request, int64_t context_max, bool long_rope = false) {
  sampling::Sampler sampler(request.sampling);
  sampler.ObservePrompt(request.prompt);
  uint64_t hash = 1;
  for (size_t i = 0; i < request.prompt.size(); ++i) {
    hash = Mix(hash, SlotValue(request.prompt[i], IsPrecise(request, static_cast<int64_t>(i)), long_rope));
  }
  std::vector<int32_t> answer;
  std::vector<float> logits(kTestVocab);
  while (static_cast<int64_t>(answer.size()) < request.new_tokens_max &&
         static_cast<int64_t>(request.prompt.size() + answer.size()) < context_max) {
    for (int64_t v = 0; v < kTestVocab; ++v) logits[static_cast<size_t>(v)] = Column(hash, v);
    const int32_t id = sampler.Draw(logits).id;
    if (std::count(request.stop_ids.begin(), request.stop_ids.end(), id) > 0) break;
    answer.push_back(id);
    hash = Mix(hash, SlotValue(id, true, long_rope));
  }
  return answer;
}

// The vector of a text under mean pooling without normalization.
inline std::vector<float> ExpectMean(const std::vector<int32_t>& tokens, bool is_encoder) {
  std::vector<float> mean(kTestHidden, 0.0f);
  uint64_t all = 1;
  for (const int32_t token : tokens) all = Mix(all, SlotValue(token, false));
  uint64_t prefix = 1;
  for (size_t i = 0; i < tokens.size(); ++i) {
    prefix = Mix(prefix, SlotValue(tokens[i], i < 64));
    const uint64_t hash = is_encoder ? Mix(all, i) : prefix;
    for (int64_t d = 0; d < kTestHidden; ++d) mean[static_cast<size_t>(d)] += Column(hash, d);
  }
  for (float& value : mean) value /= static_cast<float>(tokens.size());
  return mean;
}

}  // namespace pensieve::engine
