// Encoders that rotate queries and keys: nomic-embed (norms behind both halves of a block, types of tokens, SwiGLU) and
// ModernBERT (norms in front, GeGLU, two of three layers with a window and a rotation of their own, no biases).
//
//   nomic:      x = norm(word[id] + type[0]); x = norm1(x + o(attention(x))); x = norm2(x + down(silu(gate x) * up x))
//   ModernBERT: x = norm(word[id]); x += o(attention(norm x)); x += down(gelu(gate norm x) * up norm x); final norm.
//               The first layer's attention has no norm in front.
#include <fmt/format.h>

#include <cmath>

#include "model/config_limits.h"
#include "model/dense_stack.h"
#include "model/rope.h"

namespace pensieve::model {
namespace {

using backend::Matrix;
using backend::Product;

// What a file calls the parts. Of layers: behind "encoder.layers.3." or "layers.3.".
struct Names {
  const char* words;
  const char* types;  // null: the network has none
  const char* embedding_norm;
  const char* layer;
  const char* attention_norm;
  const char* qkv;
  const char* o;
  const char* ffn_norm;
  const char* gate_up;  // fused, gate first; null: apart
  const char* gate;
  const char* up;
  const char* down;
  const char* final_norm;  // null: none
};

constexpr Names kNomic{.words = "embeddings.word_embeddings",
                       .types = "embeddings.token_type_embeddings",
                       .embedding_norm = "emb_ln",
                       .layer = "encoder.layers.{}.",
                       .attention_norm = "norm1",
                       .qkv = "attn.Wqkv",
                       .o = "attn.out_proj",
                       .ffn_norm = "norm2",
                       .gate_up = nullptr,
                       .gate = "mlp.fc12",
                       .up = "mlp.fc11",
                       .down = "mlp.fc2",
                       .final_norm = nullptr};
constexpr Names kModern{.words = "embeddings.tok_embeddings",
                        .types = nullptr,
                        .embedding_norm = "embeddings.norm",
                        .layer = "layers.{}.",
                        .attention_norm = "attn_norm",
                        .qkv = "attn.Wqkv",
                        .o = "attn.Wo",
                        .ffn_norm = "mlp_norm",
                        .gate_up = "mlp.Wi",
                        .gate = nullptr,
                        .up = nullptr,
                        .down = "mlp.Wo",
                        .final_norm = "final_norm"};

struct Norm {
  backend::Vector weight, bias;
  explicit operator bool() const { return static_cast<bool>(weight); }
};

struct LayerWeights {
  Norm attention_norm, ffn_norm;
  Linear q, k, v, o;
  Linear gate, up, down;
  backend::Rope rope;
  int64_t window = 0;
};

class RotaryEncoder final : public Model {
 public:
  RotaryEncoder(const NetworkInputs& inputs, const Names& names, bool norms_first)
      : config_(inputs.config),
        backend_(inputs.backend),
        names_(names),
        norms_first_(norms_first),
        rows_max_(inputs.rows_max) {}

  Status Build(const NetworkInputs& inputs);

  const ModelConfig& config() const override { return config_; }
  int64_t rows_max() const override { return rows_max_; }
  int64_t weight_bytes_per_step() const override { return weight_bytes_per_step_; }

  Matrix Forward(const Batch&, backend::KvCache&) override { PENSIEVE_UNREACHABLE(); }  // encoders have no logits

  Matrix Hidden(const Batch& batch, backend::KvCache*) override {
    PENSIEVE_CHECK(batch.rows <= rows_max_ && static_cast<int64_t>(batch.positions.size()) == batch.rows);
    const Matrix x = x_.Rows(0, batch.rows);
    backend_.BeginStep(batch);
    backend_.EmbedRows(words_, backend::EmbedBy::kId, 1.0f, x, /*add=*/false);
    // Texts are never pairs: all of the first type.
    if (types_.storage != nullptr) backend_.EmbedRows(types_, backend::EmbedBy::kFirst, 1.0f, x, /*add=*/true);
    Normalize(embedding_norm_, x, x);
    for (const LayerWeights& layer : layers_) RunLayer(layer, x);
    if (final_norm_) Normalize(final_norm_, x, x);
    return x;
  }

  Matrix ProjectPooled(Matrix pooled) override { return dense_.Run(backend_, pooled); }

 private:
  Result<Norm> BuildNorm(NetworkBuilder& builder, const std::string& module) const;
  Result<backend::Rope> BuildRope(NetworkBuilder& builder, const RopeConfig& rope, int64_t context_max) const;
  Status BuildLayer(NetworkBuilder& builder, int64_t index);
  Status BuildFfn(NetworkBuilder& builder, const std::string& prefix, LayerWeights& w) const;

  void Normalize(const Norm& norm, Matrix x, Matrix out) {
    backend_.LayerNorm(x, norm.weight, norm.bias, config_.norm_eps, out);
  }

  // What a half of a block reads: the normalized rows, or the rows themselves.
  Matrix Input(const Norm& norm, Matrix x) {
    if (!norms_first_ || !norm) return x;
    const Matrix normed = normed_.Rows(0, x.rows);
    Normalize(norm, x, normed);
    return normed;
  }

  // x += input . W^T + bias, and normalized where norms stand behind.
  void AddProduct(Matrix input, const Linear& linear, const Norm& norm, Matrix x) {
    const Product product{.weight = linear.weight, .bias = linear.bias, .out = x, .accumulate = true};
    backend_.MatMul({input}, {&product, 1});
    if (!norms_first_) Normalize(norm, x, x);
  }

  void RunLayer(const LayerWeights& w, Matrix x) {
    const int64_t hidden = config_.hidden_size;
    const Matrix qkv = qkv_.Rows(0, x.rows);
    const Matrix q = qkv.Columns(0, hidden), k = qkv.Columns(hidden, hidden), v = qkv.Columns(2 * hidden, hidden);
    const Matrix attended = attended_.Rows(0, x.rows);
    const Product projections[] = {{.weight = w.q.weight, .bias = w.q.bias, .out = q},
                                   {.weight = w.k.weight, .bias = w.k.bias, .out = k},
                                   {.weight = w.v.weight, .bias = w.v.bias, .out = v}};
    backend_.MatMul({Input(w.attention_norm, x)}, projections);
    backend_.Rotate(q, config_.head_dim, w.rope);
    backend_.Rotate(k, config_.head_dim, w.rope);
    const backend::AttentionParams params{.scale = attention_scale_, .window = w.window};
    backend_.EncoderAttention(config_.head_dim, params, q, k, v, attended);
    AddProduct(attended, w.o, w.attention_norm, x);

    const Matrix inner = inner_.Rows(0, x.rows);
    backend_.GatedMatMul({Input(w.ffn_norm, x)},
                         {.gate = w.gate.weight, .up = w.up.weight, .activation = config_.activation, .out = inner});
    AddProduct(inner, w.down, w.ffn_norm, x);
  }

  const ModelConfig config_;
  backend::Backend& backend_;
  const Names& names_;
  const bool norms_first_;
  const int64_t rows_max_;
  int64_t weight_bytes_per_step_ = 0;
  float attention_scale_ = 1.0f;
  backend::Weight words_, types_;  // [vocab | types, hidden]
  Norm embedding_norm_, final_norm_;
  backend::Rope rope_, sliding_rope_;
  std::vector<LayerWeights> layers_;
  DenseStack dense_;
  Matrix x_, normed_, qkv_, attended_, inner_;  // planned activations, [rows_max, ...]
};

// Without a bias in the file (ModernBERT's norms have none) it is zero.
Result<Norm> RotaryEncoder::BuildNorm(NetworkBuilder& builder, const std::string& module) const {
  Norm norm;
  PENSIEVE_TRY(norm.weight, builder.Vector(module, "weight", config_.hidden_size));
  PENSIEVE_TRY(norm.bias, builder.OptionalVector(module, "bias", config_.hidden_size));
  if (!norm.bias) {
    const std::vector<float> zeros(static_cast<size_t>(config_.hidden_size), 0.0f);
    PENSIEVE_TRY(norm.bias, backend_.ImportVector(zeros));
  }
  return norm;
}

Result<backend::Rope> RotaryEncoder::BuildRope(NetworkBuilder& builder, const RopeConfig& rope,
                                               int64_t context_max) const {
  PENSIEVE_TRY(const RopeFrequencies computed, ComputeRope(rope, context_max, config_.context_max));
  const backend::RopeTable table{
      .frequencies = computed.frequencies, .rotated = rope.rotated, .magnitude = computed.magnitude};
  return builder.Rope(table, table);
}

Status RotaryEncoder::Build(const NetworkInputs& inputs) {
  NetworkBuilder builder(inputs);
  const int64_t hidden = config_.hidden_size;
  attention_scale_ = 1.0f / std::sqrt(static_cast<float>(config_.head_dim));
  PENSIEVE_TRY(words_, builder.Matrix(names_.words, config_.vocab_size, hidden));
  if (names_.types != nullptr && config_.type_vocab_size > 0) {
    PENSIEVE_TRY(types_, builder.Matrix(names_.types, config_.type_vocab_size, hidden));
  }
  const int64_t embedding_bytes = builder.weight_bytes();
  PENSIEVE_TRY(embedding_norm_, BuildNorm(builder, names_.embedding_norm));
  PENSIEVE_TRY(rope_, BuildRope(builder, config_.rope, inputs.context_max));
  sliding_rope_ = rope_;
  if (config_.sliding_rope) {
    PENSIEVE_TRY(sliding_rope_, BuildRope(builder, *config_.sliding_rope, inputs.context_max));
  }
  for (int64_t layer = 0; layer < config_.layers; ++layer) PENSIEVE_RETURN_IF_ERROR(BuildLayer(builder, layer));
  if (names_.final_norm != nullptr) { PENSIEVE_TRY(final_norm_, BuildNorm(builder, names_.final_norm)); }
  weight_bytes_per_step_ = builder.weight_bytes() - embedding_bytes;
  PENSIEVE_RETURN_IF_ERROR(dense_.Build(builder, config_));

  PENSIEVE_TRY(x_, builder.Plan(hidden));
  PENSIEVE_TRY(normed_, builder.Plan(hidden));
  PENSIEVE_TRY(qkv_, builder.Plan(3 * hidden));
  PENSIEVE_TRY(attended_, builder.Plan(hidden));
  PENSIEVE_TRY(inner_, builder.Plan(config_.intermediate_size));
  return OkStatus();
}

Status RotaryEncoder::BuildLayer(NetworkBuilder& builder, int64_t index) {
  const std::string prefix = fmt::format(fmt::runtime(names_.layer), index);
  const int64_t hidden = config_.hidden_size;
  LayerWeights w;
  if (!norms_first_ || index > 0) {
    PENSIEVE_TRY(w.attention_norm, BuildNorm(builder, prefix + names_.attention_norm));
  }
  PENSIEVE_TRY(w.ffn_norm, BuildNorm(builder, prefix + names_.ffn_norm));
  PENSIEVE_TRY(const auto qkv, builder.FetchSplit(prefix + names_.qkv, {hidden, hidden, hidden}, hidden));
  PENSIEVE_TRY(w.q, builder.Import(prefix + names_.qkv, qkv[0]));
  PENSIEVE_TRY(w.k, builder.Import(prefix + names_.qkv, qkv[1]));
  PENSIEVE_TRY(w.v, builder.Import(prefix + names_.qkv, qkv[2]));
  PENSIEVE_TRY(w.o, builder.LinearLayer(prefix + names_.o, hidden, hidden, /*bias_required=*/false));
  PENSIEVE_RETURN_IF_ERROR(BuildFfn(builder, prefix, w));
  const auto at = static_cast<size_t>(index);
  const bool slides = config_.sliding_window > 0 && !config_.sliding_layers.empty() && config_.sliding_layers[at];
  w.window = slides ? config_.sliding_window : 0;
  w.rope = slides ? sliding_rope_ : rope_;
  layers_.push_back(std::move(w));
  return OkStatus();
}

Status RotaryEncoder::BuildFfn(NetworkBuilder& builder, const std::string& prefix, LayerWeights& w) const {
  const int64_t hidden = config_.hidden_size, inner = config_.intermediate_size;
  if (names_.gate_up != nullptr) {
    PENSIEVE_TRY(const auto parts, builder.FetchSplit(prefix + names_.gate_up, {inner, inner}, hidden));
    PENSIEVE_TRY(w.gate, builder.Import(prefix + names_.gate_up, parts[0]));
    PENSIEVE_TRY(w.up, builder.Import(prefix + names_.gate_up, parts[1]));
  } else {
    PENSIEVE_TRY(w.gate, builder.LinearLayer(prefix + names_.gate, inner, hidden, /*bias_required=*/false));
    PENSIEVE_TRY(w.up, builder.LinearLayer(prefix + names_.up, inner, hidden, /*bias_required=*/false));
  }
  if (w.gate.bias || w.up.bias) return Unimplemented("biases of gated feed-forward layers are not supported here");
  PENSIEVE_TRY(w.down, builder.LinearLayer(prefix + names_.down, hidden, inner, /*bias_required=*/false));
  return OkStatus();
}

Result<std::unique_ptr<Model>> NewRotaryEncoder(const NetworkInputs& inputs, const Names& names, bool norms_first) {
  if (inputs.config.head_dim * inputs.config.heads != inputs.config.hidden_size ||
      inputs.config.kv_heads != inputs.config.heads) {
    return InvalidArgument("an encoder's heads must make up its hidden size");
  }
  auto encoder = std::make_unique<RotaryEncoder>(inputs, names, norms_first);
  PENSIEVE_RETURN_IF_ERROR(encoder->Build(inputs));
  return std::unique_ptr<Model>(std::move(encoder));
}

RopeConfig PlainRope(double base, const ModelConfig& config) {
  RopeConfig rope;
  rope.base = static_cast<float>(base);
  rope.rotated = config.head_dim;
  return rope;
}

}  // namespace

Result<std::unique_ptr<Model>> NewNomicBert(const NetworkInputs& inputs) {
  return NewRotaryEncoder(inputs, kNomic, /*norms_first=*/false);
}

Result<std::unique_ptr<Model>> NewModernBert(const NetworkInputs& inputs) {
  return NewRotaryEncoder(inputs, kModern, /*norms_first=*/true);
}

// The names of transformers' own class and those of the makers' code, which the published files have.
void AdjustNomicHf(std::string_view, formats::ConfigFields& fields, ModelConfig& config) {
  formats::ConfigFields rope = fields.Object("rope_parameters");
  const double base = fields.Float("rotary_emb_base", rope.Float("rope_theta", 1000.0));
  const std::string kind = rope.String("rope_type", "default");
  const double fraction = fields.Float("rotary_emb_fraction", 1.0);
  fields.Absorb(rope);
  if (kind != "default" || fields.Find("rotary_scaling_factor") != nullptr) {
    fields.Fail(
        Unimplemented(fields.Error("rope_parameters", "asks for a scaled rotation, which is not supported").message()));
  }
  const bool is_plain = fraction == 1.0 && !fields.Bool("prenorm", false) &&
                        !fields.Bool("rotary_emb_interleaved", false) &&
                        fields.Int("num_experts", 0, {0, kExpertsRange.max}) == 0;
  if (!is_plain) {
    fields.Fail(Unimplemented(fields
                                  .Error("model_type",
                                         "is nomic_bert with a fraction of rotation, experts or norms in front; "
                                         "only nomic-embed-text v1 and v1.5 are supported")
                                  .message()));
  }
  const std::string activation = fields.String("activation_function", "swiglu");
  if (activation != "swiglu") {
    fields.Fail(Unimplemented(
        fields.Error("activation_function", fmt::format("is \"{}\"; only \"swiglu\" is supported", activation))
            .message()));
  }
  config.activation = backend::Activation::kSilu;
  config.norm_eps = static_cast<float>(fields.Float("layer_norm_epsilon", fields.Float("layer_norm_eps", 1e-12)));
  config.rope = PlainRope(base, config);
}

void AdjustModernHf(std::string_view, formats::ConfigFields& fields, ModelConfig& config) {
  const std::string activation = fields.String("hidden_activation", "gelu");
  if (activation != "gelu") {
    fields.Fail(Unimplemented(
        fields.Error("hidden_activation", fmt::format("is \"{}\"; only \"gelu\" is supported", activation)).message()));
  }
  config.activation = backend::Activation::kGeluErf;
  config.norm_eps = static_cast<float>(fields.Float("norm_eps", 1e-5));
  config.type_vocab_size = 0;
  config.sliding_window = fields.Int("local_attention", 128, {1, INT64_MAX / 2}) / 2;  // to either side
  formats::ConfigFields rope = fields.Object("rope_parameters");
  formats::ConfigFields full = rope.Object("full_attention"), sliding = rope.Object("sliding_attention");
  config.rope = PlainRope(full.Float("rope_theta", fields.Float("global_rope_theta", 160000.0)), config);
  config.sliding_rope = PlainRope(sliding.Float("rope_theta", fields.Float("local_rope_theta", 10000.0)), config);
  for (formats::ConfigFields* kind : {&full, &sliding}) {
    if (kind->String("rope_type", "default") != "default") {
      fields.Fail(
          Unimplemented(kind->Error("rope_type", "asks for a scaled rotation, which is not supported").message()));
    }
    fields.Absorb(*kind);
  }
  const auto kinds = fields.Strings("layer_types", 4096);
  if (!kinds.empty() && kinds.size() != static_cast<size_t>(config.layers)) {
    fields.Fail(fields.Error("layer_types", fmt::format("has {} entries for {} layers", kinds.size(), config.layers)));
    return;
  }
  const int64_t interval = fields.Int("global_attn_every_n_layers", 3, {1, kLayersRange.max});
  config.sliding_layers.clear();
  for (int64_t layer = 0; layer < config.layers; ++layer) {
    const bool slides =
        kinds.empty() ? layer % interval != 0 : kinds[static_cast<size_t>(layer)] == "sliding_attention";
    config.sliding_layers.push_back(slides);
  }
}

}  // namespace pensieve::model
