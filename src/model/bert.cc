// BERT encoders (MiniLM, BGE, E5; RoBERTa counts positions from an offset): post-norm blocks, all layers with biases.
//
//   x = norm(word[id] + position[i] + type[0])
//   x = norm(x + dense(attention(q, k, v)));  x = norm(x + out(gelu(inner(x))))
#include <fmt/format.h>

#include <cmath>

#include "model/dense_stack.h"

namespace pensieve::model {
namespace {

using backend::Matrix;
using backend::Product;

struct Norm {
  backend::Vector weight;
  backend::Vector bias;
};

struct LayerWeights {
  Linear q, k, v, dense;
  Norm attention_norm;
  Linear inner, out;
  Norm output_norm;
};

// Encoders whose layers, as f32, are larger are multiplied from where they lie: a second copy would cost more than the
// little that it saves beside reading them.
constexpr int64_t kMostCopiedBytes = int64_t{512} << 20;

int64_t LayerBytes(const ModelConfig& config) {
  return config.layers * config.hidden_size * (4 * config.hidden_size + 2 * config.intermediate_size) * 4;
}

class Bert final : public Model {
 public:
  explicit Bert(const NetworkInputs& inputs)
      : config_(inputs.config), backend_(inputs.backend), rows_max_(inputs.rows_max) {}

  Status Build(const NetworkInputs& inputs);

  const ModelConfig& config() const override { return config_; }
  int64_t rows_max() const override { return rows_max_; }
  int64_t weight_bytes_per_step() const override { return weight_bytes_per_step_; }

  Matrix Forward(const Batch&, backend::KvCache&) override { PENSIEVE_UNREACHABLE(); }  // encoders have no logits

  Matrix Hidden(const Batch& batch, backend::KvCache*) override {
    const Matrix x = Embed(batch);
    for (const LayerWeights& layer : layers_) RunLayer(layer, x);
    return x;
  }

  Matrix ProjectPooled(Matrix pooled) override { return dense_.Run(backend_, pooled); }

 private:
  Status BuildLayer(NetworkBuilder& builder, int64_t layer);
  Result<Norm> BuildNorm(NetworkBuilder& builder, const std::string& module) const {
    Norm norm;
    PENSIEVE_TRY(norm.weight, builder.Vector(module, "weight", config_.hidden_size));
    PENSIEVE_TRY(norm.bias, builder.Vector(module, "bias", config_.hidden_size));
    return norm;
  }

  void Normalize(const Norm& norm, Matrix x) { backend_.LayerNorm(x, norm.weight, norm.bias, config_.norm_eps, x); }

  Matrix Embed(const Batch& batch) {
    PENSIEVE_CHECK(batch.rows <= rows_max_ && static_cast<int64_t>(batch.positions.size()) == batch.rows);
    const Matrix x = x_.Rows(0, batch.rows);
    backend_.BeginStep(batch);
    backend_.EmbedRows(words_, backend::EmbedBy::kId, 1.0f, x, /*add=*/false);
    backend_.EmbedRows(positions_, backend::EmbedBy::kPosition, 1.0f, x, /*add=*/true);
    // Texts are never pairs: all of the first type.
    if (config_.type_vocab_size > 0) backend_.EmbedRows(types_, backend::EmbedBy::kFirst, 1.0f, x, /*add=*/true);
    Normalize(embedding_norm_, x);
    return x;
  }

  void RunLayer(const LayerWeights& w, Matrix x) {
    const Matrix qkv = qkv_.Rows(0, x.rows);
    const Matrix attended = attended_.Rows(0, x.rows);
    const Matrix inner = inner_.Rows(0, x.rows);
    const int64_t hidden = config_.hidden_size;
    const Matrix q = qkv.Columns(0, hidden);
    const Matrix k = qkv.Columns(hidden, hidden);
    const Matrix v = qkv.Columns(2 * hidden, hidden);
    const Product projections[] = {{.weight = w.q.weight, .bias = w.q.bias, .out = q},
                                   {.weight = w.k.weight, .bias = w.k.bias, .out = k},
                                   {.weight = w.v.weight, .bias = w.v.bias, .out = v}};
    backend_.MatMul({x}, projections);
    backend_.EncoderAttention(
        config_.head_dim, {.scale = attention_scale_, .precision = backend::RowPrecision::kPrecise}, q, k, v, attended);
    const Product dense{.weight = w.dense.weight, .bias = w.dense.bias, .out = x, .accumulate = true};
    backend_.MatMul({attended}, {&dense, 1});
    Normalize(w.attention_norm, x);

    const Product to_inner{
        .weight = w.inner.weight, .bias = w.inner.bias, .out = inner, .activation = config_.activation};
    backend_.MatMul({x}, {&to_inner, 1});
    const Product to_out{.weight = w.out.weight, .bias = w.out.bias, .out = x, .accumulate = true};
    backend_.MatMul({inner}, {&to_out, 1});
    Normalize(w.output_norm, x);
  }

  const ModelConfig config_;
  backend::Backend& backend_;
  const int64_t rows_max_;
  int64_t weight_bytes_per_step_ = 0;
  float attention_scale_ = 1.0f;
  backend::Weight words_, positions_, types_;  // [vocab | positions | types, hidden]
  Norm embedding_norm_;
  std::vector<LayerWeights> layers_;
  DenseStack dense_;
  Matrix x_, qkv_, attended_, inner_;  // planned activations, [rows_max, ...]
};

Status Bert::Build(const NetworkInputs& inputs) {
  NetworkBuilder builder(inputs);
  const int64_t hidden = config_.hidden_size;
  attention_scale_ = 1.0f / std::sqrt(static_cast<float>(config_.head_dim));
  PENSIEVE_TRY(words_, builder.Matrix("embeddings.word_embeddings", config_.vocab_size, hidden));
  PENSIEVE_TRY(positions_, builder.MatrixFrom("embeddings.position_embeddings", config_.position_offset,
                                              config_.context_max + config_.position_offset, hidden));
  if (config_.type_vocab_size > 0) {
    PENSIEVE_TRY(types_, builder.Matrix("embeddings.token_type_embeddings", config_.type_vocab_size, hidden));
  }
  const int64_t embedding_bytes = builder.weight_bytes();
  PENSIEVE_TRY(embedding_norm_, BuildNorm(builder, "embeddings.LayerNorm"));
  if (LayerBytes(config_) <= kMostCopiedBytes) builder.BeginEncoderLayers();
  for (int64_t layer = 0; layer < config_.layers; ++layer) PENSIEVE_RETURN_IF_ERROR(BuildLayer(builder, layer));
  weight_bytes_per_step_ = builder.weight_bytes() - embedding_bytes;
  PENSIEVE_RETURN_IF_ERROR(dense_.Build(builder, config_));

  PENSIEVE_TRY(x_, builder.Plan(hidden));
  PENSIEVE_TRY(qkv_, builder.Plan(3 * hidden));
  PENSIEVE_TRY(attended_, builder.Plan(hidden));
  PENSIEVE_TRY(inner_, builder.Plan(config_.intermediate_size));
  return OkStatus();
}

Status Bert::BuildLayer(NetworkBuilder& builder, int64_t layer) {
  const std::string prefix = fmt::format("encoder.layer.{}.", layer);
  const int64_t hidden = config_.hidden_size;
  const int64_t inner = config_.intermediate_size;
  LayerWeights w;
  PENSIEVE_TRY(w.q, builder.LinearLayer(prefix + "attention.self.query", hidden, hidden, /*bias_required=*/true));
  PENSIEVE_TRY(w.k, builder.LinearLayer(prefix + "attention.self.key", hidden, hidden, /*bias_required=*/true));
  PENSIEVE_TRY(w.v, builder.LinearLayer(prefix + "attention.self.value", hidden, hidden, /*bias_required=*/true));
  PENSIEVE_TRY(w.dense, builder.LinearLayer(prefix + "attention.output.dense", hidden, hidden, /*bias_required=*/true));
  PENSIEVE_TRY(w.attention_norm, BuildNorm(builder, prefix + "attention.output.LayerNorm"));
  PENSIEVE_TRY(w.inner, builder.LinearLayer(prefix + "intermediate.dense", inner, hidden, /*bias_required=*/true));
  PENSIEVE_TRY(w.out, builder.LinearLayer(prefix + "output.dense", hidden, inner, /*bias_required=*/true));
  PENSIEVE_TRY(w.output_norm, BuildNorm(builder, prefix + "output.LayerNorm"));
  layers_.push_back(std::move(w));
  return OkStatus();
}

}  // namespace

Result<std::unique_ptr<Model>> NewBert(const NetworkInputs& inputs) {
  if (inputs.config.head_dim * inputs.config.heads != inputs.config.hidden_size ||
      inputs.config.kv_heads != inputs.config.heads) {
    return InvalidArgument("an encoder's heads must make up its hidden size");
  }
  auto bert = std::make_unique<Bert>(inputs);
  PENSIEVE_RETURN_IF_ERROR(bert->Build(inputs));
  return std::unique_ptr<Model>(std::move(bert));
}

}  // namespace pensieve::model
