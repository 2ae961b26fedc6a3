#include "model/decoder.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "model/dense_stack.h"
#include "model/network_builder.h"
#include "model/rope.h"

namespace pensieve::model {
namespace {

using backend::MatMulInput;
using backend::Matrix;
using backend::Product;

struct LayerWeights {
  backend::Vector attention_norm;       // [hidden]
  backend::Vector post_attention_norm;  // [hidden], or null
  Linear q, k, v, o;
  backend::Vector q_norm;  // [head_dim], or null
  backend::Vector k_norm;
  backend::Vector ffn_norm;       // [hidden]
  backend::Vector post_ffn_norm;  // [hidden], or null
  Linear gate, up, down;
  std::optional<ExpertFfn> experts;  // runs instead of those
  backend::Vector sinks;             // [heads], or null
  int64_t window = 0;                // > 0: sliding attention
  backend::Rope rope;                // null: does not rotate
};

// Planned activations, [rows_max, ...]; every forward pass uses their first rows.
struct Activations {
  Matrix x;         // [., hidden]: the residual stream
  Matrix normed;    // [., hidden]; also what a half of a block adds, where that is normalized first
  Matrix qkv;       // [., (heads + 2 kv_heads) * head_dim]
  Matrix attended;  // [., heads * head_dim]
  Matrix ffn;       // [., intermediate]
  Matrix routing;   // [., RoutingCols]: logits of the experts
  Matrix gathered;  // [outputs_max, hidden]: the rows whose logits are wanted
  Matrix logits;    // [outputs_max, vocab]
};

// Of a decoder's layers, the first in so many have precise products for every row: they carry more of the rounding's
// effect than of the arithmetic. docs/exactness.md has the figures.
constexpr int64_t kPreciseLayerShare = 6;

// GPUs hold coarse rows in f16, with too small an error to pay for.
bool HasCoarseInt8Rows(const backend::Backend& backend) { return backend.Describe().device == "cpu"; }

class Decoder final : public Model {
 public:
  explicit Decoder(const NetworkInputs& inputs)
      : config_(inputs.config),
        backend_(inputs.backend),
        rows_max_(inputs.rows_max),
        outputs_max_(inputs.outputs_max) {}

  Status Build(const NetworkInputs& inputs, const DecoderTraits& traits);

  const ModelConfig& config() const override { return config_; }
  int64_t rows_max() const override { return rows_max_; }
  int64_t outputs_max() const override { return outputs_max_; }
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
    const auto wanted = static_cast<int64_t>(batch.output_rows.size());
    PENSIEVE_CHECK(wanted <= outputs_max_);
    Run(batch, &cache, config_.layers - 1);
    const Matrix gathered = act_.gathered.Rows(0, wanted);
    const Matrix logits = act_.logits.Rows(0, wanted);
    FinishOutputs(batch.rows, cache, gathered);
    if (wanted == 0) return logits;
    const Product head{.weight = head_, .out = logits};
    backend_.NormMatMul(gathered, final_norm_, config_.norm_eps, {gathered, backend::RowPrecision::kPrecise},
                        {&head, 1});
    if (config_.logit_softcap > 0.0f) backend_.Softcap(logits, config_.logit_softcap);
    return logits;
  }

  Matrix Hidden(const Batch& batch, backend::KvCache* cache) override {
    PENSIEVE_CHECK((cache == nullptr) == config_.is_encoder);
    Run(batch, cache, config_.layers);
    const Matrix normed = act_.normed.Rows(0, batch.rows);
    backend_.RmsNorm(act_.x.Rows(0, batch.rows), final_norm_, config_.norm_eps, normed);
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

  // Rounding in the first layers costs most, for all others build upon them: they are precise for every row.
  backend::RowPrecision PrecisionIn(int64_t layer) const {
    return layer < precise_layers_ ? backend::RowPrecision::kPrecise : backend::RowPrecision::kOfStep;
  }

  // The first `layers` layers; leaves the residual stream in act_.x. `cache` is null for encoders.
  void Run(const Batch& batch, backend::KvCache* cache, int64_t layers) {
    PENSIEVE_CHECK(batch.rows <= rows_max_ && static_cast<int64_t>(batch.positions.size()) == batch.rows);
    Batch step = batch;
    if (config_.rope.query_growth != 0.0) step.query_factors = GrowQueries(batch.positions);
    backend_.BeginStep(step);
    backend_.EmbedRows(embedding_, backend::EmbedBy::kId, config_.embedding_scale, act_.x.Rows(0, batch.rows),
                       /*add=*/false);
    const Matrix x = act_.x.Rows(0, batch.rows);
    for (int64_t layer = 0; layer < layers; ++layer) {
      const LayerWeights& w = layers_[static_cast<size_t>(layer)];
      const Matrix attended = Attend(batch.rows, layer, cache);
      AddProduct({attended, PrecisionIn(layer)}, w.o, w.post_attention_norm, x);
      Ffn(w, x, PrecisionIn(layer));
    }
  }

  // The last layer. All rows leave keys and values, but what follows is only for the rows whose logits are wanted, into
  // `x`: of a prompt that is one. They decide the answer: always the finer products.
  void FinishOutputs(int64_t rows, backend::KvCache& cache, Matrix x) {
    const LayerWeights& w = layers_.back();
    const Matrix attended = Attend(rows, config_.layers - 1, &cache);
    if (x.rows == 0) return;
    const Matrix chosen = act_.qkv.Rows(0, x.rows).Columns(0, attended.cols);  // the queries are not needed any more
    backend_.GatherOutputs(attended, chosen);
    backend_.GatherOutputs(act_.x.Rows(0, rows), x);
    AddProduct({chosen, backend::RowPrecision::kPrecise}, w.o, w.post_attention_norm, x);
    Ffn(w, x, backend::RowPrecision::kPrecise);
  }

  // Ministral: queries grow with every stretch of the original context, so that attention stays as sharp.
  std::span<const float> GrowQueries(std::span<const int32_t> positions) {
    query_factors_.clear();
    for (const int32_t position : positions) {
      const int64_t stretch = position / config_.rope.original_context;
      const double factor = 1.0 + config_.rope.query_growth * std::log1p(static_cast<double>(stretch));
      query_factors_.push_back(static_cast<float>(factor));
    }
    return query_factors_;
  }

  // What the heads of all rows gather, before it is projected.
  Matrix Attend(int64_t rows, int64_t layer, backend::KvCache* cache) {
    const LayerWeights& w = layers_[static_cast<size_t>(layer)];
    const Matrix x = act_.x.Rows(0, rows);
    const Matrix normed = act_.normed.Rows(0, rows);
    const Matrix attended = act_.attended.Rows(0, rows);
    const Matrix qkv = act_.qkv.Rows(0, rows);
    const int64_t q_cols = config_.heads * config_.head_dim;
    const int64_t kv_cols = config_.kv_heads * config_.head_dim;
    const Matrix q = qkv.Columns(0, q_cols);
    const Matrix k = qkv.Columns(q_cols, kv_cols);
    const Matrix v = qkv.Columns(q_cols + kv_cols, kv_cols);

    const Product projections[] = {{.weight = w.q.weight, .bias = w.q.bias, .out = q},
                                   {.weight = w.k.weight, .bias = w.k.bias, .out = k},
                                   {.weight = w.v.weight, .bias = w.v.bias, .out = v}};
    backend_.NormMatMul(x, w.attention_norm, config_.norm_eps, {normed, PrecisionIn(layer)}, projections);
    if (w.q_norm) {
      backend_.RmsNormHeads(q, config_.head_dim, w.q_norm, config_.norm_eps);
      backend_.RmsNormHeads(k, config_.head_dim, w.k_norm, config_.norm_eps);
    }
    const backend::AttentionStep step{.layer = layer,
                                      .params = {.scale = attention_scale_,
                                                 .window = w.window,
                                                 .softcap = config_.attention_softcap,
                                                 .sinks = w.sinks},
                                      .rope = w.rope,
                                      .scales_queries = config_.rope.query_growth != 0.0,
                                      .q = q,
                                      .k = k,
                                      .v = v,
                                      .out = attended};
    cache == nullptr ? EncoderAttention(step) : backend_.RotateStoreAttend(*cache, step);
    return attended;
  }

  void EncoderAttention(const backend::AttentionStep& step) {
    if (step.rope.storage != nullptr) {
      backend_.Rotate(step.q, config_.head_dim, step.rope);
      backend_.Rotate(step.k, config_.head_dim, step.rope);
    }
    if (step.scales_queries) backend_.ScaleQueries(step.q);
    backend_.EncoderAttention(config_.head_dim, step.params, step.q, step.k, step.v, step.out);
  }

  // x += input . W^T + bias, normalized on the way where the block has a norm there.
  void AddProduct(const MatMulInput& input, const Linear& linear, backend::Vector norm, Matrix x) {
    const Matrix branch = act_.normed.Rows(0, x.rows);
    const Product product{.weight = linear.weight, .bias = linear.bias, .out = norm ? branch : x, .accumulate = !norm};
    backend_.MatMul(input, {&product, 1});
    if (norm) backend_.AddNormed(branch, norm, config_.norm_eps, x);
  }

  void Ffn(const LayerWeights& w, Matrix x, backend::RowPrecision precision) {
    const Matrix normed = act_.normed.Rows(0, x.rows);
    const Matrix ffn = act_.ffn.Rows(0, x.rows);
    if (w.experts) {
      backend_.RmsNorm(x, w.ffn_norm, config_.norm_eps, normed);
      w.experts->Run(backend_, {normed, precision}, act_.routing.Rows(0, x.rows), x);
      return;
    }
    backend_.NormGatedMatMul(x, w.ffn_norm, config_.norm_eps, {normed, precision},
                             {.gate = w.gate.weight, .up = w.up.weight, .activation = config_.activation, .out = ffn});
    AddProduct({ffn, precision}, w.down, w.post_ffn_norm, x);
  }

  const ModelConfig config_;
  backend::Backend& backend_;
  const int64_t rows_max_;
  const int64_t outputs_max_;
  int64_t precise_layers_ = 0;  // the first ones
  int64_t weight_bytes_per_step_ = 0;
  float attention_scale_ = 1.0f;
  backend::Weight embedding_;  // [vocab, hidden]
  backend::Weight head_;       // [vocab, hidden]; the embedding when tied; unset when the model cannot generate
  backend::Vector final_norm_;
  backend::Rope rope_;
  backend::Rope sliding_rope_;        // of sliding layers, where they rotate in another way; else null
  std::vector<float> query_factors_;  // of the present step
  std::vector<LayerWeights> layers_;
  DenseStack dense_;
  Activations act_;
};

Status Decoder::Build(const NetworkInputs& inputs, const DecoderTraits& traits) {
  NetworkBuilder builder(inputs);
  if (HasCoarseInt8Rows(backend_) && !config_.is_encoder) {
    precise_layers_ = (config_.layers + kPreciseLayerShare - 1) / kPreciseLayerShare;
  }
  attention_scale_ =
      config_.attention_scale > 0.0f ? config_.attention_scale : 1.0f / std::sqrt(static_cast<float>(config_.head_dim));
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
  // The tables of sequences up to `usual` and up to `longest` tokens; the same unless the model has longrope.
  const auto build = [&](const RopeConfig& rope, int64_t usual, int64_t longest) -> Result<backend::Rope> {
    // The longer use first: a file with bad lists is told by the one that it is for.
    PENSIEVE_TRY(const RopeFrequencies for_long, ComputeRope(rope, longest, config_.context_max));
    PENSIEVE_TRY(const RopeFrequencies for_usual, ComputeRope(rope, usual, config_.context_max));
    const auto table = [&](const RopeFrequencies& computed) {
      return backend::RopeTable{
          .frequencies = computed.frequencies, .rotated = rope.rotated, .magnitude = computed.magnitude};
    };
    return builder.Rope(table(for_usual), table(for_long));
  };
  const bool is_longrope = config_.rope.scaling == RopeScaling::kLongrope;
  const int64_t original = config_.rope.original_context;
  PENSIEVE_TRY(rope_, build(config_.rope, is_longrope ? original : inputs.context_max,
                            is_longrope ? original + 1 : inputs.context_max));
  if (!config_.sliding_rope) return OkStatus();
  PENSIEVE_TRY(sliding_rope_, build(*config_.sliding_rope, inputs.context_max, inputs.context_max));
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
  const bool rotates = config_.nope_layers.empty() || !config_.nope_layers[index];
  if (rotates) w.rope = slides && config_.sliding_rope ? sliding_rope_ : rope_;
  layers_.push_back(std::move(w));
  return OkStatus();
}

Status Decoder::BuildAttention(NetworkBuilder& builder, const DecoderTraits& traits, const std::string& prefix,
                               LayerWeights& w) {
  const int64_t q_rows = config_.heads * config_.head_dim;
  const int64_t kv_rows = config_.kv_heads * config_.head_dim;
  if (traits.fused_projections) {
    const std::string module = prefix + "qkv_proj";
    PENSIEVE_TRY(const auto parts, builder.FetchSplit(module, {q_rows, kv_rows, kv_rows}, config_.hidden_size));
    PENSIEVE_TRY(w.q, builder.Import(module, parts[0]));
    PENSIEVE_TRY(w.k, builder.Import(module, parts[1]));
    PENSIEVE_TRY(w.v, builder.Import(module, parts[2]));
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
  if (traits.attention_sinks) { PENSIEVE_TRY(w.sinks, builder.Vector(prefix + "sinks", "weight", config_.heads)); }
  PENSIEVE_TRY(w.o, builder.LinearLayer(prefix + "o_proj", config_.hidden_size, q_rows, /*bias_required=*/false));
  return OkStatus();
}

Status Decoder::BuildFfn(NetworkBuilder& builder, const DecoderTraits& traits, const std::string& prefix,
                         LayerWeights& w) {
  const int64_t inner = config_.intermediate_size;
  const auto fetch = [&](const char* part, int64_t rows, int64_t cols) {
    return builder.FetchLayer(prefix + part, rows, cols, /*bias_required=*/false);
  };
  HostExpert ffn;
  if (traits.fused_projections) {
    PENSIEVE_TRY(auto parts, builder.FetchSplit(prefix + "gate_up_proj", {inner, inner}, config_.hidden_size));
    ffn.gate = std::move(parts[0]);
    ffn.up = std::move(parts[1]);
  } else {
    PENSIEVE_TRY(ffn.gate, fetch("gate_proj", inner, config_.hidden_size));
    PENSIEVE_TRY(ffn.up, fetch("up_proj", inner, config_.hidden_size));
  }
  PENSIEVE_TRY(ffn.down, fetch("down_proj", config_.hidden_size, inner));
  if (!ffn.gate.bias.empty() || !ffn.up.bias.empty()) {
    PENSIEVE_TRY(w.experts, ExpertFfn::OfOne(builder, prefix, ffn, config_.activation));
    return OkStatus();
  }
  PENSIEVE_TRY(w.gate, builder.Import(prefix + "gate_proj", ffn.gate));
  PENSIEVE_TRY(w.up, builder.Import(prefix + "up_proj", ffn.up));
  PENSIEVE_TRY(w.down, builder.Import(prefix + "down_proj", ffn.down));
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
  PENSIEVE_TRY(act_.gathered, builder.PlanOutputs(config_.hidden_size));
  PENSIEVE_TRY(act_.logits, builder.PlanOutputs(config_.vocab_size));
  return OkStatus();
}

}  // namespace

Result<std::unique_ptr<Model>> NewDecoder(const NetworkInputs& inputs, const DecoderTraits& traits) {
  auto decoder = std::make_unique<Decoder>(inputs);
  PENSIEVE_RETURN_IF_ERROR(decoder->Build(inputs, traits));
  return std::unique_ptr<Model>(std::move(decoder));
}

int64_t ActivationBytes(const ModelConfig& config, int64_t rows_max, int64_t outputs_max) {
  const int64_t attention = (2 * config.heads + 2 * config.kv_heads) * config.head_dim;
  int64_t dense = 0;
  for (const DenseLayer& layer : config.dense) dense += layer.outputs;
  // The backend's own matrices while experts run: their rows before and after, and gate, up and their product between.
  const int64_t inner = std::max(config.experts.intermediate_size, config.experts.shared_intermediate_size);
  const int64_t experts = RoutingCols(config) + (inner > 0 ? 2 * config.hidden_size + 3 * inner : 0);
  const int64_t row = 2 * config.hidden_size + attention + config.intermediate_size + experts + dense;
  const int64_t output = config.can_generate() ? config.hidden_size + config.vocab_size : 0;
  return (rows_max * row + outputs_max * output) * 4;
}

}  // namespace pensieve::model
