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

namespace {

// Sequences lie inside `rows` rows, and with `block_len` > 0 their block tables cover their tokens with blocks of
// [0, num_blocks).
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

}  // namespace

void CheckStep(const StepInputs& inputs) {
  const auto fits = [&](size_t size) { return size == 0 || static_cast<int64_t>(size) == inputs.rows; };
  PENSIEVE_CHECK(inputs.rows >= 0 && inputs.precise_rows >= 0 && inputs.precise_rows <= inputs.rows);
  PENSIEVE_CHECK(fits(inputs.ids.size()) && fits(inputs.positions.size()) && fits(inputs.query_factors.size()));
  for (const int32_t row : inputs.output_rows) PENSIEVE_CHECK(row >= 0 && row < inputs.rows);
  CheckSequences(inputs.sequences, inputs.rows, 0, 0);
}

void CheckProducts(const MatMulInput& input, std::span<const Product> products) {
  for (const Product& product : products) {
    PENSIEVE_CHECK(product.weight.storage != nullptr);
    PENSIEVE_CHECK(product.weight.cols == input.x.cols);
    PENSIEVE_CHECK(product.weight.rows == product.out.cols);
    PENSIEVE_CHECK(product.out.rows == input.x.rows);
  }
}

void CheckGated(const MatMulInput& input, const GatedProduct& product) {
  for (const Weight& weight : {product.gate, product.up}) {
    PENSIEVE_CHECK(weight.storage != nullptr && weight.cols == input.x.cols && weight.rows == product.out.cols);
  }
  PENSIEVE_CHECK(product.out.rows == input.x.rows);
}

void CheckExpertLayer(const ExpertLayer& layer) {
  PENSIEVE_CHECK(layer.top_k >= 1 && layer.top_k <= static_cast<int64_t>(layer.experts.size()));
  const auto fits = [](std::span<const float> bias, const tensor::Weight& weight) {
    return bias.empty() || static_cast<int64_t>(bias.size()) == tensor::Rows(weight);
  };
  const int64_t width = tensor::Rows(layer.experts.front().down);
  for (const Expert& expert : layer.experts) {
    const int64_t inner = tensor::Cols(expert.down);
    PENSIEVE_CHECK(tensor::Rows(expert.down) == width && tensor::Cols(expert.gate) == width);
    PENSIEVE_CHECK(tensor::Rows(expert.gate) == (layer.alternating ? 2 * inner : inner));
    PENSIEVE_CHECK(fits(expert.gate_bias, expert.gate) && fits(expert.down_bias, expert.down));
    if (layer.alternating) continue;
    PENSIEVE_CHECK(tensor::Rows(expert.up) == inner && tensor::Cols(expert.up) == width);
    PENSIEVE_CHECK(fits(expert.up_bias, expert.up));
  }
}

int64_t ExpertBytes(const Expert& expert, bool alternating) {
  const size_t up = alternating ? 0 : tensor::WeightBytes(expert.up);
  return static_cast<int64_t>(tensor::WeightBytes(expert.gate) + up + tensor::WeightBytes(expert.down));
}

void CheckExperts(const MatMulInput& input, Matrix logits, const ExpertSet& experts, Matrix out) {
  PENSIEVE_CHECK(experts.storage != nullptr);
  PENSIEVE_CHECK(logits.rows == input.x.rows && logits.cols == experts.count);
  CheckSameShape(input.x, out);
}

void CheckRopeTable(const RopeTable& table) {
  PENSIEVE_CHECK(table.rotated % 2 == 0 && static_cast<int64_t>(table.frequencies.size()) == table.rotated / 2);
}

void CheckEmbed(const StepInputs& step, const Weight& table, EmbedBy by, Matrix out) {
  PENSIEVE_CHECK(out.rows == step.rows && table.cols == out.cols);
  if (by == EmbedBy::kFirst) return;
  const std::span<const int32_t> rows = by == EmbedBy::kId ? step.ids : step.positions;
  PENSIEVE_CHECK(static_cast<int64_t>(rows.size()) == step.rows);
  for (const int32_t row : rows) PENSIEVE_CHECK(row >= 0 && row < table.rows);
}

void CheckRotate(const StepInputs& step, Matrix x, int64_t head_dim) {
  PENSIEVE_CHECK(x.rows == step.rows && static_cast<int64_t>(step.positions.size()) == step.rows);
  PENSIEVE_CHECK(head_dim > 0 && x.cols % head_dim == 0);
}

void CheckGather(const StepInputs& step, Matrix x, Matrix out) {
  PENSIEVE_CHECK(static_cast<int64_t>(step.output_rows.size()) == out.rows && x.cols == out.cols);
  PENSIEVE_CHECK(x.rows == step.rows);
}

void CheckDraw(Matrix logits, std::span<const int32_t> rows, std::span<const DrawParams> params) {
  PENSIEVE_CHECK(rows.size() == params.size());
  for (const int32_t row : rows) PENSIEVE_CHECK(row >= 0 && row < logits.rows);
}

void CheckPool(const StepInputs& step, Matrix x, Matrix out) {
  PENSIEVE_CHECK(static_cast<int64_t>(step.sequences.size()) == out.rows && x.cols == out.cols);
  PENSIEVE_CHECK(x.rows == step.rows);
}

void CheckSameShape(Matrix a, Matrix b) { PENSIEVE_CHECK(a.rows == b.rows && a.cols == b.cols); }

void CheckPagedAttention(const KvShape& shape, int64_t layer, const StepInputs& step, Matrix q, Matrix out) {
  PENSIEVE_CHECK(layer >= 0 && layer < shape.layers);
  PENSIEVE_CHECK(q.cols % (shape.kv_heads * shape.head_dim) == 0);
  CheckSameShape(q, out);
  CheckSequences(step.sequences, q.rows, shape.block_len, shape.num_blocks);
}

void CheckStoreKv(const KvShape& shape, int64_t layer, const StepInputs& step, Matrix k, Matrix v) {
  PENSIEVE_CHECK(layer >= 0 && layer < shape.layers);
  PENSIEVE_CHECK(k.cols == shape.kv_heads * shape.head_dim);
  CheckSameShape(k, v);
  CheckSequences(step.sequences, k.rows, shape.block_len, shape.num_blocks);
}

void CheckEncoderAttention(const StepInputs& step, int64_t head_dim, Matrix q, Matrix k, Matrix v, Matrix out) {
  PENSIEVE_CHECK(head_dim > 0 && k.cols > 0 && k.cols % head_dim == 0 && q.cols % k.cols == 0);
  PENSIEVE_CHECK(q.rows == k.rows);
  CheckSameShape(k, v);
  CheckSameShape(q, out);
  CheckSequences(step.sequences, q.rows, 0, 0);
}

}  // namespace pensieve::backend
