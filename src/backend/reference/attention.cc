// Attention as softmax(scale . q . k^T + mask) . v, every score kept. K and V are held as f32 after one rounding to the
// cache's type, so that the oracle shows what that type costs and nothing else.
#include <algorithm>
#include <cmath>
#include <cstring>
#include <functional>
#include <limits>
#include <vector>

#include "backend/checks.h"
#include "backend/reference/reference_backend.h"
#include "base/check.h"
#include "base/half.h"

namespace pensieve::backend::reference {
namespace {

// [layer][K, V][token slot][kv head][head_dim], a slot being block * block_len + offset.
class ReferenceKvCache final : public KvCache {
 public:
  ReferenceKvCache(const KvShape& shape, tensor::Buffer buffer) : shape_(shape), buffer_(std::move(buffer)) {}
  const KvShape& shape() const override { return shape_; }

  int64_t block_bytes() const override { return 2 * shape_.layers * PlaneBlockBytes(); }
  Status ReadBlock(int64_t block, std::span<std::byte> bytes) const override {
    PENSIEVE_CHECK(static_cast<int64_t>(bytes.size()) == block_bytes());
    for (int64_t plane = 0; plane < 2 * shape_.layers; ++plane) {
      const float* source = At(plane, block * shape_.block_len, 0);
      std::memcpy(bytes.data() + plane * PlaneBlockBytes(), source, static_cast<size_t>(PlaneBlockBytes()));
    }
    return OkStatus();
  }
  Status WriteBlock(int64_t block, std::span<const std::byte> bytes) override {
    PENSIEVE_CHECK(static_cast<int64_t>(bytes.size()) == block_bytes());
    for (int64_t plane = 0; plane < 2 * shape_.layers; ++plane) {
      float* target = At(plane, block * shape_.block_len, 0);
      std::memcpy(target, bytes.data() + plane * PlaneBlockBytes(), static_cast<size_t>(PlaneBlockBytes()));
    }
    return OkStatus();
  }

  float* Key(int64_t layer, int64_t slot, int64_t head) const { return At(2 * layer, slot, head); }
  float* Value(int64_t layer, int64_t slot, int64_t head) const { return At(2 * layer + 1, slot, head); }
  int64_t Slot(std::span<const int32_t> table, int64_t position) const {
    const int64_t block = table[static_cast<size_t>(position / shape_.block_len)];
    return block * shape_.block_len + position % shape_.block_len;
  }

 private:
  int64_t PlaneBlockBytes() const {
    return shape_.block_len * shape_.kv_heads * shape_.head_dim * static_cast<int64_t>(sizeof(float));
  }
  float* At(int64_t plane, int64_t slot, int64_t head) const {
    const int64_t slots = shape_.num_blocks * shape_.block_len;
    return buffer_.as<float>() + ((plane * slots + slot) * shape_.kv_heads + head) * shape_.head_dim;
  }

  KvShape shape_;
  tensor::Buffer buffer_;
};

// One head of one token as the cache's type keeps it. kInt8: symmetric, largest magnitude / 127 as the scale.
void RoundHead(const float* x, int64_t n, KvDType dtype, float* out) {
  float largest = 0.0f;
  for (int64_t i = 0; i < n; ++i) largest = std::max(largest, std::fabs(x[i]));
  const float scale = largest / 127.0f;
  for (int64_t i = 0; i < n; ++i) {
    if (dtype == KvDType::kF32) out[i] = x[i];
    if (dtype == KvDType::kF16) out[i] = F16ToF32(F32ToF16(x[i]));
    if (dtype == KvDType::kInt8) out[i] = scale == 0.0f ? 0.0f : std::nearbyint(x[i] / scale) * scale;
  }
}

using KeyAt = std::function<const float*(int64_t)>;

struct Range {
  int64_t first;  // first key seen
  int64_t end;    // one past the last
};

void AttendRow(const float* q, Range keys, int64_t head_dim, const AttentionParams& params, int64_t head,
               const KeyAt& key, const KeyAt& value, float* out) {
  std::vector<double> scores;
  const float* sinks = View(params.sinks);
  double largest = sinks == nullptr ? -std::numeric_limits<double>::infinity() : static_cast<double>(sinks[head]);
  for (int64_t j = keys.first; j < keys.end; ++j) {
    double score = 0.0;
    for (int64_t d = 0; d < head_dim; ++d) score += static_cast<double>(q[d]) * static_cast<double>(key(j)[d]);
    score *= static_cast<double>(params.scale);
    const auto cap = static_cast<double>(params.softcap);
    if (cap > 0.0) score = cap * std::tanh(score / cap);
    scores.push_back(score);
    largest = std::max(largest, score);
  }
  double sum = sinks == nullptr ? 0.0 : std::exp(static_cast<double>(sinks[head]) - largest);
  std::vector<double> mixed(static_cast<size_t>(head_dim), 0.0);
  for (int64_t j = keys.first; j < keys.end; ++j) {
    const double p = std::exp(scores[static_cast<size_t>(j - keys.first)] - largest);
    sum += p;
    for (int64_t d = 0; d < head_dim; ++d) mixed[static_cast<size_t>(d)] += p * static_cast<double>(value(j)[d]);
  }
  for (int64_t d = 0; d < head_dim; ++d) out[d] = static_cast<float>(mixed[static_cast<size_t>(d)] / sum);
}

}  // namespace

Result<std::unique_ptr<KvCache>> ReferenceBackend::NewKvCache(const KvShape& shape) {
  PENSIEVE_RETURN_IF_ERROR(CheckKvShape(shape));
  const int64_t values = shape.layers * 2 * shape.num_blocks * shape.block_len * shape.kv_heads * shape.head_dim;
  PENSIEVE_TRY(auto buffer, tensor::Buffer::Allocate(static_cast<size_t>(values) * sizeof(float)));
  return std::unique_ptr<KvCache>(std::make_unique<ReferenceKvCache>(shape, std::move(buffer)));
}

void ReferenceBackend::StoreKv(KvCache& cache, int64_t layer, Matrix k, Matrix v) {
  auto& own = static_cast<ReferenceKvCache&>(cache);
  const KvShape& shape = own.shape();
  CheckStoreKv(shape, layer, step(), k, v);
  for (const SequenceRows& sequence : step().sequences) {
    for (int64_t r = 0; r < sequence.num_rows; ++r) {
      const int64_t slot = own.Slot(sequence.block_table, sequence.cached_len + r);
      const int64_t row = sequence.first_row + r;
      for (int64_t h = 0; h < shape.kv_heads; ++h) {
        const int64_t offset = h * shape.head_dim;
        RoundHead(View(k).row(row) + offset, shape.head_dim, shape.dtype, own.Key(layer, slot, h));
        RoundHead(View(v).row(row) + offset, shape.head_dim, shape.dtype, own.Value(layer, slot, h));
      }
    }
  }
}

void ReferenceBackend::PagedAttention(const KvCache& cache, int64_t layer, const AttentionParams& params, Matrix q,
                                      Matrix out) {
  const auto& own = static_cast<const ReferenceKvCache&>(cache);
  const KvShape& shape = own.shape();
  CheckPagedAttention(shape, layer, step(), q, out);
  const int64_t heads = q.cols / shape.head_dim;
  const int64_t share = heads / shape.kv_heads;
  for (const SequenceRows& sequence : step().sequences) {
    for (int64_t r = 0; r < sequence.num_rows; ++r) {
      const int64_t position = sequence.cached_len + r;
      const Range keys = {params.window > 0 ? std::max<int64_t>(0, position - params.window + 1) : 0, position + 1};
      for (int64_t h = 0; h < heads; ++h) {
        const auto key = [&](int64_t j) { return own.Key(layer, own.Slot(sequence.block_table, j), h / share); };
        const auto value = [&](int64_t j) { return own.Value(layer, own.Slot(sequence.block_table, j), h / share); };
        const int64_t row = sequence.first_row + r;
        AttendRow(View(q).row(row) + h * shape.head_dim, keys, shape.head_dim, params, h, key, value,
                  View(out).row(row) + h * shape.head_dim);
      }
    }
  }
}

void ReferenceBackend::EncoderAttention(int64_t head_dim, const AttentionParams& params, Matrix q, Matrix k, Matrix v,
                                        Matrix out) {
  CheckEncoderAttention(step(), head_dim, q, k, v, out);
  const int64_t heads = q.cols / head_dim;
  const int64_t share = q.cols / k.cols;
  for (const SequenceRows& sequence : step().sequences) {
    const int64_t first = sequence.first_row;
    for (int64_t r = 0; r < sequence.num_rows; ++r) {
      Range keys = {0, sequence.num_rows};
      if (params.window > 0) {
        keys = {std::max<int64_t>(0, r - params.window), std::min(sequence.num_rows, r + params.window + 1)};
      }
      for (int64_t h = 0; h < heads; ++h) {
        const int64_t offset = h / share * head_dim;
        const auto key = [&](int64_t j) { return View(k).row(first + j) + offset; };
        const auto value = [&](int64_t j) { return View(v).row(first + j) + offset; };
        AttendRow(View(q).row(first + r) + h * head_dim, keys, head_dim, params, h, key, value,
                  View(out).row(first + r) + h * head_dim);
      }
    }
  }
}

}  // namespace pensieve::backend::reference
