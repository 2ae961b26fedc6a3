#include "backend/checks.h"

#include <fmt/format.h>

#include "base/check.h"

namespace pensieve::backend {
namespace {

constexpr int64_t kMostElements = int64_t{1} << 46;

// a * b, or nothing beyond kMostElements.
bool Fits(int64_t a, int64_t b, int64_t* product) {
  if (a < 0 || b < 0 || (b != 0 && a > kMostElements / b)) return false;
  *product = a * b;
  return true;
}

}  // namespace

Result<size_t> MatrixBytes(int64_t rows, int64_t cols) {
  int64_t elements = 0;
  if (!Fits(rows, cols, &elements)) return ResourceExhausted(fmt::format("cannot hold a {} x {} matrix", rows, cols));
  return static_cast<size_t>(elements) * sizeof(float);
}

Status CheckKvShape(const KvShape& shape) {
  if (shape.layers < 1 || shape.kv_heads < 1 || shape.head_dim < 1 || shape.block_len < 1 || shape.num_blocks < 1) {
    return InvalidArgument("a KV cache needs at least one layer, head, dimension, token and block");
  }
  int64_t values = shape.layers;
  for (const int64_t factor : {shape.kv_heads, shape.head_dim, shape.block_len, shape.num_blocks}) {
    if (!Fits(values, factor, &values)) return ResourceExhausted("the KV cache does not fit the address space");
  }
  return OkStatus();
}

void CheckProducts(const MatMulInput& input, std::span<const Product> products) {
  PENSIEVE_CHECK(input.fine_rows >= 0 && input.fine_rows <= input.x.rows);
  for (const Product& product : products) {
    PENSIEVE_CHECK(product.weight != nullptr);
    PENSIEVE_CHECK(tensor::Cols(*product.weight) == input.x.cols);
    PENSIEVE_CHECK(tensor::Rows(*product.weight) == product.out.cols);
    PENSIEVE_CHECK(product.out.rows == input.x.rows);
  }
}

void CheckGated(const MatMulInput& input, const tensor::Weight& gate, const tensor::Weight& up, Matrix out) {
  PENSIEVE_CHECK(input.fine_rows >= 0 && input.fine_rows <= input.x.rows);
  PENSIEVE_CHECK(tensor::Cols(gate) == input.x.cols && tensor::Cols(up) == input.x.cols);
  PENSIEVE_CHECK(tensor::Rows(gate) == out.cols && tensor::Rows(up) == out.cols && out.rows == input.x.rows);
}

void CheckExperts(const MatMulInput& input, Matrix logits, const ExpertLayer& layer, Matrix out) {
  const auto experts = static_cast<int64_t>(layer.experts.size());
  PENSIEVE_CHECK(input.fine_rows >= 0 && input.fine_rows <= input.x.rows);
  PENSIEVE_CHECK(layer.top_k >= 1 && layer.top_k <= experts);
  PENSIEVE_CHECK(logits.rows == input.x.rows && logits.cols == experts);
  CheckSameShape(input.x, out);
  for (const Expert& expert : layer.experts) {
    const int64_t inner = tensor::Cols(expert.down);
    PENSIEVE_CHECK(tensor::Rows(expert.down) == out.cols && tensor::Cols(expert.gate) == out.cols);
    PENSIEVE_CHECK(tensor::Rows(expert.gate) == (layer.interleaved ? 2 * inner : inner));
    if (layer.interleaved) continue;
    PENSIEVE_CHECK(tensor::Rows(expert.up) == inner && tensor::Cols(expert.up) == out.cols);
  }
}

void CheckSameShape(Matrix a, Matrix b) { PENSIEVE_CHECK(a.rows == b.rows && a.cols == b.cols); }

void CheckSequences(std::span<const SequenceRows> sequences, int64_t rows, int64_t block_len, int64_t num_blocks) {
  for (const SequenceRows& sequence : sequences) {
    PENSIEVE_CHECK(sequence.first_row >= 0 && sequence.num_rows >= 0);
    PENSIEVE_CHECK(sequence.first_row + sequence.num_rows <= rows);
    if (block_len == 0) continue;
    PENSIEVE_CHECK(sequence.cached_len >= 0);
    const int64_t blocks = (sequence.cached_len + sequence.num_rows + block_len - 1) / block_len;
    PENSIEVE_CHECK(static_cast<int64_t>(sequence.block_table.size()) >= blocks);
    for (int64_t b = 0; b < blocks; ++b) {
      const int32_t id = sequence.block_table[static_cast<size_t>(b)];
      PENSIEVE_CHECK(id >= 0 && id < num_blocks);
    }
  }
}

void CheckPagedAttention(const KvShape& shape, int64_t layer, std::span<const SequenceRows> sequences, Matrix q,
                         Matrix out) {
  PENSIEVE_CHECK(layer >= 0 && layer < shape.layers);
  PENSIEVE_CHECK(q.cols % (shape.kv_heads * shape.head_dim) == 0);
  CheckSameShape(q, out);
  CheckSequences(sequences, q.rows, shape.block_len, shape.num_blocks);
}

void CheckStoreKv(const KvShape& shape, int64_t layer, std::span<const SequenceRows> sequences, Matrix k, Matrix v) {
  PENSIEVE_CHECK(layer >= 0 && layer < shape.layers);
  PENSIEVE_CHECK(k.cols == shape.kv_heads * shape.head_dim);
  CheckSameShape(k, v);
  CheckSequences(sequences, k.rows, shape.block_len, shape.num_blocks);
}

void CheckEncoderAttention(std::span<const SequenceRows> sequences, int64_t head_dim, Matrix q, Matrix k, Matrix v,
                           Matrix out) {
  PENSIEVE_CHECK(head_dim > 0 && k.cols > 0 && k.cols % head_dim == 0 && q.cols % k.cols == 0);
  PENSIEVE_CHECK(q.rows == k.rows);
  CheckSameShape(k, v);
  CheckSameShape(q, out);
  CheckSequences(sequences, q.rows, 0, 0);
}

}  // namespace pensieve::backend
