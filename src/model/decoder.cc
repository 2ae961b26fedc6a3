#include "model/decoder.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "model/dense_stack.h"
#include "model/network_builder.h"
#include "model/rope.h"

namespace pensieve::model {
namespace {

using backend::Matrix;
using backend::MatMulInput;
using backend::Product;

struct LayerWeights {
  const float* attention_norm = nullptr;  // [hidden]
  const float* post_attention_norm = nullptr;  // [hidden], or null
  Linear q, k, v, o;
  const float* q_norm = nullptr;          // [head_dim], or null
  const float* k_norm = nullptr;
  const float* ffn_norm = nullptr;        // [hidden]
  const float* post_ffn_norm = nullptr;   // [hidden], or null
  Linear gate, up, down;
  std::optional<ExpertFfn> experts;       // runs instead of those
  const float* sinks = nullptr;           // [heads], or null
  int64_t window = 0;                     // > 0: sliding attention
  bool rotates = true;
  bool sliding_rope = false;              // rotates with the sliding layers' own table
};

// Planned activations, [rows_max, ...]; every forward pass uses their first rows.
struct Activations {
  Matrix x;         // [., hidden]: the residual stream
  Matrix normed;    // [., hidden]; also what a half of a block adds, where that is normalized first
  Matrix qkv;       // [., (heads + 2 kv_heads) * head_dim]
  Matrix attended;  // [., heads * head_dim]
  Matrix ffn;       // [., intermediate]
  Matrix routing;   // [., RoutingCols]: logits of the experts
  Matrix gathered;  // [., hidden]: the rows whose logits are wanted
  Matrix logits;    // [., vocab]
};

// The table of short sequences and that of long ones; the same unless the model has longrope.
struct RopeTables {
  backend::RopeTable brief;
  backend::RopeTable lengthy;
};

class Decoder final : public Model {
 public:
  explicit Decoder(const NetworkInputs& inputs)
      : config_(inputs.config), backend_(inputs.backend), rows_max_(inputs.rows_max) {}

  Status Build(const NetworkInputs& inputs, const DecoderTraits& traits);

  const ModelConfig& config() const override { return config_; }
  int64_t rows_max() const override { return rows_max_; }
  int64_t weight_bytes_per_step() const override { return weight_bytes_per_step_; }

  bool UsesLongRope(int64_t planned_len) const override {
    if (config_.rope.scaling != RopeScaling::kLongrope) return false;
    switch (config_.rope.longrope) {
      case LongropeChoice::kAuto: return planned_len > config_.rope.original_context;
      case LongropeChoice::kShort: return false;
      case LongropeChoice::kLong: return true;
    }
    PENSIEVE_UNREACHABLE();
  }

  Matrix Forward(const Batch& batch, backend::KvCache& cache) override {
    PENSIEVE_CHECK(config_.can_generate());
    Run(batch, &cache);
    const auto wanted = static_cast<int64_t>(batch.output_rows.size());
    const Matrix gathered = act_.gathered.Rows(0, wanted);
    const Matrix logits = act_.logits.Rows(0, wanted);
    if (wanted == 0) return logits;
    backend_.GatherRows(act_.x.Rows(0, static_cast<int64_t>(batch.tokens.size())), batch.output_rows, gathered);
    backend_.RmsNorm(gathered, final_norm_, config_.norm_eps, gathered);
    // Sampled rows decide the answer whatever phase they come from: always the finer products.
    const Product head{.weight = &head_, .out = logits};
    backend_.MatMul({gathered, wanted}, {&head, 1});
    if (config_.logit_softcap > 0.0f) backend_.Softcap(logits, config_.logit_softcap);
    return logits;
  }

  Matrix Hidden(const Batch& batch, backend::KvCache* cache) override {
    PENSIEVE_CHECK((cache == nullptr) == config_.is_encoder);
    Run(batch, cache);
    const auto rows = static_cast<int64_t>(batch.tokens.size());
    const Matrix normed = act_.normed.Rows(0, rows);
    backend_.RmsNorm(act_.x.Rows(0, rows), final_norm_, config_.norm_eps, normed);
    return normed;
  }

  Matrix ProjectPooled(Matrix pooled) override { return dense_.Run(backend_, pooled); }

 private:
  Status BuildLayer(NetworkBuilder& builder, const DecoderTraits& traits, int64_t layer);
  Status BuildAttention(NetworkBuilder& builder, const DecoderTraits& traits, const std::string& prefix,
                        LayerWeights& w);
  Status BuildFfn(NetworkBuilder& builder, const DecoderTraits& traits, const std::string& prefix, LayerWeights& w);
  Status BuildRope(NetworkBuilder& builder, const NetworkInputs& inputs);
  Status PlanActivations(NetworkBuilder& builder);

  // All layers; leaves the residual stream in act_.x. `cache` is null for encoders.
  void Run(const Batch& batch, backend::KvCache* cache) {
    const auto rows = static_cast<int64_t>(batch.tokens.size());
    PENSIEVE_CHECK(rows <= rows_max_ && batch.positions.size() == batch.tokens.size());
    backend_.EmbedRows(embedding_, batch.tokens, config_.embedding_scale, act_.x.Rows(0, rows), /*add=*/false);
    for (int64_t layer = 0; layer < config_.layers; ++layer) {
      Attention(batch, layer, cache);
      Ffn(batch, layer);
    }
  }

  void Attention(const Batch& batch, int64_t layer, backend::KvCache* cache) {
    const LayerWeights& w = layers_[static_cast<size_t>(layer)];
    const auto rows = static_cast<int64_t>(batch.tokens.size());
    const Matrix x = act_.x.Rows(0, rows);
    const Matrix normed = act_.normed.Rows(0, rows);
    const Matrix attended = act_.attended.Rows(0, rows);
    const Matrix qkv = act_.qkv.Rows(0, rows);
    const int64_t q_cols = config_.heads * config_.head_dim;
    const int64_t kv_cols = config_.kv_heads * config_.head_dim;
    const Matrix q = qkv.Columns(0, q_cols);
    const Matrix k = qkv.Columns(q_cols, kv_cols);
    const Matrix v = qkv.Columns(q_cols + kv_cols, kv_cols);

    backend_.RmsNorm(x, w.attention_norm, config_.norm_eps, normed);
    const Product projections[] = {{.weight = &w.q.weight, .bias = w.q.bias, .out = q},
                                   {.weight = &w.k.weight, .bias = w.k.bias, .out = k},
                                   {.weight = &w.v.weight, .bias = w.v.bias, .out = v}};
    backend_.MatMul({normed, batch.fine_rows}, projections);
    if (w.q_norm != nullptr) {
      backend_.RmsNormHeads(q, config_.head_dim, w.q_norm, config_.norm_eps);
      backend_.RmsNormHeads(k, config_.head_dim, w.k_norm, config_.norm_eps);
    }
    if (w.rotates) Rotate(batch, w.sliding_rope ? sliding_rope_ : rope_, q, k);
    if (config_.rope.query_growth != 0.0) GrowQueries(batch, q);
    const backend::AttentionParams params{.scale = attention_scale_,
                                          .window = w.window,
                                          .softcap = config_.attention_softcap,
                                          .sinks = w.sinks,
                                          .fine_rows = batch.fine_rows};
    if (cache == nullptr) {
      backend_.EncoderAttention(batch.sequences, config_.head_dim, params, q, k, v, attended);
    } else {
      backend_.StoreKv(*cache, layer, batch.sequences, k, v);
      backend_.PagedAttention(*cache, layer, batch.sequences, params, q, attended);
    }
    AddProduct({attended, batch.fine_rows}, w.o, w.post_attention_norm, x);
  }

  // Rotates q and k, each row by the table of its sequence.
  void Rotate(const Batch& batch, const RopeTables& tables, Matrix q, Matrix k) {
    for (size_t s = 0; s < batch.sequences.size();) {
      const auto is_long = [&](size_t i) { return !batch.long_rope.empty() && batch.long_rope[i] != 0; };
      const bool lengthy = is_long(s);
      const int64_t first = batch.sequences[s].first_row;
      int64_t rows = 0;
      for (; s < batch.sequences.size() && is_long(s) == lengthy; ++s) rows += batch.sequences[s].num_rows;
      const auto positions = batch.positions.subspan(static_cast<size_t>(first), static_cast<size_t>(rows));
      const backend::RopeTable& table = lengthy ? tables.lengthy : tables.brief;
      backend_.Rope(q.Rows(first, rows), config_.head_dim, positions, table);
      backend_.Rope(k.Rows(first, rows), config_.head_dim, positions, table);
    }
  }

  // Ministral: queries grow with every stretch of the original context, so that attention stays as sharp.
  void GrowQueries(const Batch& batch, Matrix q) {
    const auto stretch = [&](size_t row) { return batch.positions[row] / config_.rope.original_context; };
    for (size_t row = 0; row < batch.positions.size();) {
      const size_t first = row;
      while (row < batch.positions.size() && stretch(row) == stretch(first)) ++row;
      if (stretch(first) == 0) continue;
      const double factor = 1.0 + config_.rope.query_growth * std::log1p(static_cast<double>(stretch(first)));
      backend_.Scale(q.Rows(static_cast<int64_t>(first), static_cast<int64_t>(row - first)),
                     static_cast<float>(factor));
    }
  }

  // x += input . W^T + bias, normalized on the way where the block has a norm there.
  void AddProduct(const MatMulInput& input, const Linear& linear, const float* norm, Matrix x) {
    const Matrix branch = act_.normed.Rows(0, x.rows);
    const Product product{.weight = &linear.weight, .bias = linear.bias, .out = norm == nullptr ? x : branch,
                          .accumulate = norm == nullptr};
    backend_.MatMul(input, {&product, 1});
    if (norm == nullptr) return;
    backend_.RmsNorm(branch, norm, config_.norm_eps, branch);
    backend_.Add(branch, x);
  }

  void Ffn(const Batch& batch, int64_t layer) {
    const LayerWeights& w = layers_[static_cast<size_t>(layer)];
    const auto rows = static_cast<int64_t>(batch.tokens.size());
    const Matrix x = act_.x.Rows(0, rows);
    const Matrix normed = act_.normed.Rows(0, rows);
    const Matrix ffn = act_.ffn.Rows(0, rows);
    backend_.RmsNorm(x, w.ffn_norm, config_.norm_eps, normed);
    if (w.experts) {
      w.experts->Run(backend_, {normed, batch.fine_rows}, act_.routing.Rows(0, rows), x);
      return;
    }
    backend_.GatedMatMul({normed, batch.fine_rows}, w.gate.weight, w.up.weight, config_.activation, ffn);
    AddProduct({ffn, batch.fine_rows}, w.down, w.post_ffn_norm, x);
  }

  const ModelConfig config_;
  backend::Backend& backend_;
  const int64_t rows_max_;
  int64_t weight_bytes_per_step_ = 0;
  float attention_scale_ = 1.0f;
  tensor::Weight embedding_;  // [vocab, hidden]
  tensor::Weight head_;       // [vocab, hidden]; the embedding when tied; unset when the model cannot generate
  const float* final_norm_ = nullptr;
  RopeTables rope_;
  RopeTables sliding_rope_;  // of layers with LayerWeights::sliding_rope
  std::vector<LayerWeights> layers_;
  DenseStack dense_;
  Activations act_;
};

Status Decoder::Build(const NetworkInputs& inputs, const DecoderTraits& traits) {
  NetworkBuilder builder(inputs);
  attention_scale_ = config_.attention_scale > 0.0f ? config_.attention_scale
                                                    : 1.0f / std::sqrt(static_cast<float>(config_.head_dim));
  PENSIEVE_RETURN_IF_ERROR(BuildRope(builder, inputs));
  PENSIEVE_TRY(embedding_, builder.Matrix("model.embed_tokens", config_.vocab_size, config_.hidden_size));
  const int64_t embedding_bytes = builder.weight_bytes();
  for (int64_t layer = 0; layer < config_.layers; ++layer) {
    PENSIEVE_RETURN_IF_ERROR(BuildLayer(builder, traits, layer));
  }
  PENSIEVE_TRY(final_norm_, builder.Norm("model.norm", config_.hidden_size));
  const bool tied = config_.can_generate() && config_.tied_embeddings;
  if (tied) {
    head_ = embedding_;
  } else if (config_.can_generate()) {
    PENSIEVE_TRY(head_, builder.Matrix("lm_head", config_.vocab_size, config_.hidden_size));
  }
  // A step reads the whole head, tied or not, and only some rows of an embedding that is not the head.
  weight_bytes_per_step_ = builder.weight_bytes() - (tied ? 0 : embedding_bytes);
  for (const LayerWeights& layer : layers_) weight_bytes_per_step_ -= layer.experts ? layer.experts->idle_bytes() : 0;
  PENSIEVE_RETURN_IF_ERROR(dense_.Build(builder, config_));
  return PlanActivations(builder);
}

Status Decoder::BuildRope(NetworkBuilder& builder, const NetworkInputs& inputs) {
  const auto build = [&](const RopeConfig& rope, int64_t context_max) -> Result<backend::RopeTable> {
    PENSIEVE_TRY(const RopeFrequencies computed, ComputeRope(rope, context_max, config_.context_max));
    backend::RopeTable table;
    PENSIEVE_TRY(table.frequencies, builder.Upload(computed.frequencies));
    table.rotated = rope.rotated;
    table.magnitude = computed.magnitude;
    return table;
  };
  if (config_.rope.scaling == RopeScaling::kLongrope) {
    // The longer use first: a file with bad lists is told by the one that it is for.
    PENSIEVE_TRY(rope_.lengthy, build(config_.rope, config_.rope.original_context + 1));
    PENSIEVE_TRY(rope_.brief, build(config_.rope, config_.rope.original_context));
  } else {
    PENSIEVE_TRY(rope_.brief, build(config_.rope, inputs.context_max));
    rope_.lengthy = rope_.brief;
  }
  if (!config_.sliding_rope) return OkStatus();
  PENSIEVE_TRY(sliding_rope_.brief, build(*config_.sliding_rope, inputs.context_max));
  sliding_rope_.lengthy = sliding_rope_.brief;
  return OkStatus();
}

Status Decoder::BuildLayer(NetworkBuilder& builder, const DecoderTraits& traits, int64_t layer) {
  const std::string prefix = fmt::format("model.layers.{}.", layer);
  LayerWeights w;
  PENSIEVE_TRY(w.attention_norm, builder.Norm(prefix + "input_layernorm", config_.hidden_size));
  if (traits.post_norms) {
    PENSIEVE_TRY(w.post_attention_norm, builder.Norm(prefix + "post_attention_layernorm", config_.hidden_size));
    PENSIEVE_TRY(w.ffn_norm, builder.Norm(prefix + "pre_feedforward_layernorm", config_.hidden_size));
    PENSIEVE_TRY(w.post_ffn_norm, builder.Norm(prefix + "post_feedforward_layernorm", config_.hidden_size));
  } else {
    PENSIEVE_TRY(w.ffn_norm, builder.Norm(prefix + "post_attention_layernorm", config_.hidden_size));
  }
  PENSIEVE_RETURN_IF_ERROR(BuildAttention(builder, traits, prefix + "self_attn.", w));
  if (config_.has_experts(layer)) {
    PENSIEVE_TRY(w.experts, ExpertFfn::Build(builder, config_, traits.experts, prefix));
  } else {
    PENSIEVE_RETURN_IF_ERROR(BuildFfn(builder, traits, prefix + "mlp.", w));
  }
  const auto index = static_cast<size_t>(layer);
  const bool slides = config_.sliding_layers.empty() || config_.sliding_layers[index];
  w.window = slides ? config_.sliding_window : 0;
  w.sliding_rope = slides && config_.sliding_rope.has_value();
  w.rotates = config_.nope_layers.empty() || !config_.nope_layers[index];
  layers_.push_back(std::move(w));
  return OkStatus();
}

Status Decoder::BuildAttention(NetworkBuilder& builder, const DecoderTraits& traits, const std::string& prefix,
                               LayerWeights& w) {
  const int64_t q_rows = config_.heads * config_.head_dim;
  const int64_t kv_rows = config_.kv_heads * config_.head_dim;
  if (traits.fused_projections) {
    PENSIEVE_TRY(std::vector<Linear> parts,
                 builder.SplitLayer(prefix + "qkv_proj", {q_rows, kv_rows, kv_rows}, config_.hidden_size));
    w.q = parts[0];
    w.k = parts[1];
    w.v = parts[2];
  } else {
    const bool bias = traits.requires_qkv_bias;
    PENSIEVE_TRY(w.q, builder.LinearLayer(prefix + "q_proj", q_rows, config_.hidden_size, bias));
    PENSIEVE_TRY(w.k, builder.LinearLayer(prefix + "k_proj", kv_rows, config_.hidden_size, bias));
    PENSIEVE_TRY(w.v, builder.LinearLayer(prefix + "v_proj", kv_rows, config_.hidden_size, bias));
  }
  if (traits.qk_norm) {
    PENSIEVE_TRY(w.q_norm, builder.Norm(prefix + "q_norm", config_.head_dim));
    PENSIEVE_TRY(w.k_norm, builder.Norm(prefix + "k_norm", config_.head_dim));
  }
  if (traits.attention_sinks) {
    PENSIEVE_TRY(w.sinks, builder.Vector(prefix + "sinks", "weight", config_.heads));
  }
  PENSIEVE_TRY(w.o, builder.LinearLayer(prefix + "o_proj", config_.hidden_size, q_rows, /*bias_required=*/false));
  return OkStatus();
}

Status Decoder::BuildFfn(NetworkBuilder& builder, const DecoderTraits& traits, const std::string& prefix,
                         LayerWeights& w) {
  const int64_t inner = config_.intermediate_size;
  if (traits.fused_projections) {
    PENSIEVE_TRY(std::vector<Linear> parts,
                 builder.SplitLayer(prefix + "gate_up_proj", {inner, inner}, config_.hidden_size));
    w.gate = parts[0];
    w.up = parts[1];
  } else {
    PENSIEVE_TRY(w.gate,
                 builder.LinearLayer(prefix + "gate_proj", inner, config_.hidden_size, /*bias_required=*/false));
    PENSIEVE_TRY(w.up, builder.LinearLayer(prefix + "up_proj", inner, config_.hidden_size, /*bias_required=*/false));
  }
  PENSIEVE_TRY(w.down, builder.LinearLayer(prefix + "down_proj", config_.hidden_size, inner, /*bias_required=*/false));
  if (w.gate.bias != nullptr || w.up.bias != nullptr) {
    w.experts = ExpertFfn::OfOne(w.gate, w.up, w.down, config_.activation);
  }
  return OkStatus();
}

Status Decoder::PlanActivations(NetworkBuilder& builder) {
  const int64_t q_cols = config_.heads * config_.head_dim;
  PENSIEVE_TRY(act_.x, builder.Plan(config_.hidden_size));
  PENSIEVE_TRY(act_.normed, builder.Plan(config_.hidden_size));
  PENSIEVE_TRY(act_.qkv, builder.Plan(q_cols + 2 * config_.kv_heads * config_.head_dim));
  PENSIEVE_TRY(act_.attended, builder.Plan(q_cols));
  PENSIEVE_TRY(act_.ffn, builder.Plan(config_.intermediate_size));
  PENSIEVE_TRY(act_.routing, builder.Plan(RoutingCols(config_)));
  if (!config_.can_generate()) return OkStatus();
  PENSIEVE_TRY(act_.gathered, builder.Plan(config_.hidden_size));
  PENSIEVE_TRY(act_.logits, builder.Plan(config_.vocab_size));
  return OkStatus();
}

}  // namespace

Result<std::unique_ptr<Model>> NewDecoder(const NetworkInputs& inputs, const DecoderTraits& traits) {
  auto decoder = std::make_unique<Decoder>(inputs);
  PENSIEVE_RETURN_IF_ERROR(decoder->Build(inputs, traits));
  return std::unique_ptr<Model>(std::move(decoder));
}

int64_t ActivationBytes(const ModelConfig& config, int64_t rows_max) {
  const int64_t attention = (2 * config.heads + 2 * config.kv_heads) * config.head_dim;
  const int64_t logits = config.can_generate() ? config.vocab_size : 0;
  int64_t dense = 0;
  for (const DenseLayer& layer : config.dense) dense += layer.outputs;
  // The backend's own matrices while experts run: their rows before and after, and gate, up and their product between.
  const int64_t inner = std::max(config.experts.intermediate_size, config.experts.shared_intermediate_size);
  const int64_t experts = RoutingCols(config) + (inner > 0 ? 2 * config.hidden_size + 3 * inner : 0);
  return rows_max * (3 * config.hidden_size + attention + config.intermediate_size + experts + logits + dense) * 4;
}

}  // namespace pensieve::model
