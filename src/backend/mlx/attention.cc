// Attention, a sequence at a time: over views of the cache where a sequence's blocks are consecutive, over gathered
// blocks elsewhere. No sequence's keys are ever in another's arrays.
#include <algorithm>
#include <limits>

#include "backend/checks.h"
#include "backend/mlx/mlx_backend.h"
#include "base/check.h"

namespace pensieve::backend::mlx {
namespace {

// Scores that are held at once where MLX has no fused kernel: softcaps.
constexpr int64_t kMostScores = int64_t{1} << 26;

// [tokens, heads, dim] -> [1, heads, tokens, dim]
mx::array ByHead(const mx::array& x) { return mx::transpose(mx::expand_dims(x, 0), {0, 2, 1, 3}); }

}  // namespace

const mx::array& MlxBackend::Slots(const KvShape& shape) {
  if (arrays_.slots) return *arrays_.slots;
  std::vector<int32_t> slots;
  for (const SequenceRows& sequence : step_.sequences) {
    PENSIEVE_CHECK(sequence.num_rows == 0 || sequence.first_row == static_cast<int64_t>(slots.size()));
    for (int64_t r = 0; r < sequence.num_rows; ++r) {
      const int64_t place = sequence.cached_len + r;
      const int64_t block = sequence.block_table[static_cast<size_t>(place / shape.block_len)];
      slots.push_back(Int(block * shape.block_len + place % shape.block_len));
    }
  }
  arrays_.slots = FromInts(slots);
  return *arrays_.slots;
}

void MlxBackend::StoreKv(KvCache& cache, int64_t layer, Matrix k, Matrix v) {
  CheckStoreKv(cache.shape(), layer, step_, k, v);
  if (k.rows == 0) return;
  auto& own = static_cast<MlxKvCache&>(cache);
  Issue("storing keys and values with MLX", [&] {
    const mx::array& slots = Slots(own.shape());
    own.Store(2 * layer, slots, Get(k));
    own.Store(2 * layer + 1, slots, Get(v));
    if (std::find(caches_.begin(), caches_.end(), &own) == caches_.end()) caches_.push_back(&own);
  });
}

std::optional<mx::array> MlxBackend::Mask(const Span& span, int64_t window, bool causal) {
  const int64_t last_row = span.first_place + span.rows - 1;
  const int64_t last_key = span.first_key + span.keys - 1;
  // A single row that sees all its keys needs no mask.
  const bool sees_all = causal ? span.rows == 1 : true;
  const bool in_window =
      window == 0 || (causal ? last_row - span.first_key < window
                             : std::max(last_key - span.first_place, last_row - span.first_key) <= window);
  if (sees_all && in_window) return std::nullopt;
  const auto key = std::tuple(span.first_place - span.first_key, span.rows, span.keys, window, causal);
  const auto found = arrays_.masks.find(key);
  if (found != arrays_.masks.end()) return found->second;
  const mx::array rows =
      mx::reshape(mx::arange(Int(span.first_place), Int(span.first_place + span.rows)), {Int(span.rows), 1});
  const mx::array keys =
      mx::reshape(mx::arange(Int(span.first_key), Int(span.first_key + span.keys)), {1, Int(span.keys)});
  const mx::array distance = mx::subtract(rows, keys);
  const mx::array reach(static_cast<int>(window));
  std::optional<mx::array> mask;
  if (causal) mask = mx::greater_equal(distance, mx::array(0));
  if (window > 0) {
    const mx::array near = causal ? mx::less(distance, reach) : mx::less_equal(mx::abs(distance), reach);
    mask = mask ? mx::logical_and(*mask, near) : near;
  }
  return arrays_.masks.emplace(key, *mask).first->second;
}

mx::array MlxBackend::AttendCapped(const mx::array& q, const mx::array& k, const mx::array& v,
                                   const AttentionParams& params, const mx::array& mask) const {
  const int rows = q.shape(0);
  const int keys = k.shape(0);
  const int kv_heads = k.shape(1);
  const int dim = k.shape(2);
  const int share = q.shape(1) / (kv_heads * dim);
  const auto f32 = [](const mx::array& x) { return mx::astype(x, mx::float32); };
  const mx::array queries = mx::transpose(mx::reshape(f32(q), {rows, kv_heads, share, dim}), {1, 2, 0, 3});
  const mx::array by_head_k = mx::expand_dims(mx::transpose(f32(k), {1, 2, 0}), 1);  // [kv heads, 1, dim, keys]
  const mx::array by_head_v = mx::expand_dims(mx::transpose(f32(v), {1, 0, 2}), 1);
  const mx::array cap(params.softcap);
  mx::array scores = mx::matmul(mx::multiply(queries, mx::array(params.scale)), by_head_k);
  scores = mx::multiply(cap, mx::tanh(mx::divide(scores, cap)));
  scores = mx::where(mask, scores, mx::array(-std::numeric_limits<float>::infinity()));
  if (params.sinks) {
    const mx::array sinks = mx::reshape(Get(params.sinks, kv_heads * share), {kv_heads, share, 1, 1});
    scores = mx::concatenate({scores, mx::broadcast_to(sinks, {kv_heads, share, rows, 1})}, 3);
  }
  mx::array shares = mx::softmax(scores, 3, /*precise=*/true);
  if (params.sinks) shares = mx::slice(shares, {0, 0, 0, 0}, {kv_heads, share, rows, keys});
  const mx::array mixed = mx::transpose(mx::matmul(shares, by_head_v), {2, 0, 1, 3});
  return mx::reshape(mixed, {rows, kv_heads * share * dim});
}

mx::array MlxBackend::Attend(const mx::array& q, const mx::array& k, const mx::array& v, const Span& span,
                             const AttentionParams& params, bool causal) {
  const int cols = q.shape(1);
  const int dim = k.shape(2);
  const int heads = cols / dim;
  if (params.softcap > 0.0f) {
    std::vector<mx::array> parts;
    const int64_t most = std::clamp<int64_t>(kMostScores / std::max<int64_t>(1, heads * span.keys), 1, span.rows);
    for (int64_t first = 0; first < span.rows; first += most) {
      Span part = span;
      part.first_place += first;
      part.rows = std::min(most, span.rows - first);
      const std::optional<mx::array> mask = Mask(part, params.window, causal);
      const mx::array some = mx::slice(q, {Int(first), 0}, {Int(first + part.rows), cols});
      parts.push_back(AttendCapped(some, k, v, params, mask ? *mask : mx::array(true)));
    }
    return parts.size() == 1 ? parts.front() : mx::concatenate(std::move(parts), 0);
  }
  // MLX's own causal mask is the same where the rows are the last of the keys and no window hides the first.
  const bool plain_causal =
      causal && span.rows > 1 && (params.window == 0 || span.first_place + span.rows - span.first_key <= params.window);
  std::optional<mx::array> mask;
  if (!plain_causal) mask = Mask(span, params.window, causal);
  std::optional<mx::array> sinks;
  if (params.sinks) sinks = mx::astype(Get(params.sinks, heads), q.dtype());
  const mx::array out = mx::fast::scaled_dot_product_attention(ByHead(mx::reshape(q, {Int(span.rows), heads, dim})),
                                                               ByHead(k), ByHead(v), params.scale,
                                                               plain_causal ? "causal"
                                                               : mask       ? "array"
                                                                            : "",
                                                               mask, sinks);
  return mx::reshape(mx::transpose(out, {0, 2, 1, 3}), {Int(span.rows), cols});
}

template <typename Fn>
void MlxBackend::ForSequences(Matrix out, Fn attend) {
  std::vector<mx::array> parts;
  int64_t at = 0;
  for (size_t i = 0; i < step_.sequences.size(); ++i) {
    const SequenceRows& sequence = step_.sequences[i];
    if (sequence.num_rows == 0) continue;
    PENSIEVE_CHECK(sequence.first_row == at);
    parts.push_back(attend(i));
    at += sequence.num_rows;
  }
  if (parts.empty()) return;
  Put(out.Rows(0, at), parts.size() == 1 ? parts.front() : mx::concatenate(std::move(parts), 0));
}

void MlxBackend::PagedAttention(const KvCache& cache, int64_t layer, const AttentionParams& params, Matrix q,
                                Matrix out) {
  CheckPagedAttention(cache.shape(), layer, step_, q, out);
  if (q.rows == 0) return;
  const auto& own = static_cast<const MlxKvCache&>(cache);
  Issue("attention with MLX", [&] {
    const bool in_half = own.shape().dtype == KvDType::kF16 && options_.activations == InputPrecision::kInt8 &&
                         params.precision == RowPrecision::kOfStep && params.softcap == 0.0f;
    const mx::array all = in_half ? mx::astype(Get(q), mx::float16) : Get(q);
    ForSequences(out, [&](size_t i) {
      const SequenceRows& sequence = step_.sequences[i];
      const int64_t end = sequence.cached_len + sequence.num_rows;
      const int64_t first_key = params.window > 0 ? std::max<int64_t>(0, sequence.cached_len - params.window + 1) : 0;
      const Span span = {sequence.first_row, sequence.num_rows, sequence.cached_len, first_key, end - first_key};
      std::optional<mx::array>& table = arrays_.tables[i];
      const mx::array k = own.Tokens(2 * layer, sequence.block_table, table, first_key, span.keys);
      const mx::array v = own.Tokens(2 * layer + 1, sequence.block_table, table, first_key, span.keys);
      const mx::array rows = mx::slice(all, {Int(span.first_row), 0}, {Int(span.first_row + span.rows), Int(q.cols)});
      return Attend(rows, k, v, span, params, /*causal=*/true);
    });
  });
}

void MlxBackend::EncoderAttention(int64_t head_dim, const AttentionParams& params, Matrix q, Matrix k, Matrix v,
                                  Matrix out) {
  CheckEncoderAttention(step_, head_dim, q, k, v, out);
  if (q.rows == 0) return;
  Issue("attention with MLX", [&] {
    const mx::array queries = Get(q);
    const mx::array keys = Get(k);
    const mx::array values = Get(v);
    ForSequences(out, [&](size_t i) {
      const SequenceRows& sequence = step_.sequences[i];
      const Span span = {sequence.first_row, sequence.num_rows, 0, 0, sequence.num_rows};
      const auto part = [&](const mx::array& x) {
        return mx::slice(x, {Int(span.first_row), 0}, {Int(span.first_row + span.rows), x.shape(1)});
      };
      const mx::Shape by_head = {Int(span.rows), Int(k.cols / head_dim), Int(head_dim)};
      return Attend(part(queries), mx::reshape(part(keys), by_head), mx::reshape(part(values), by_head), span, params,
                    /*causal=*/false);
    });
  });
}

}  // namespace pensieve::backend::mlx
