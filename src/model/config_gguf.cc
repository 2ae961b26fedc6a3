#include "model/config_gguf.h"

#include <fmt/format.h>

#include <cmath>
#include <map>

#include "model/architectures.h"
#include "model/config_limits.h"
#include "model/rope.h"

namespace pensieve::model {
namespace {

using formats::GgufFields;
using formats::GgufFile;
using formats::GgufTensor;

// The keys of one architecture: "llama.block_count".
class Keys {
 public:
  explicit Keys(std::string architecture) : architecture_(std::move(architecture)) {}
  std::string operator()(std::string_view key) const { return fmt::format("{}.{}", architecture_, key); }

 private:
  const std::string architecture_;
};

// A value that some files give once and some once a layer; layers that differ are not supported.
int64_t UniformInt(GgufFields& fields, const GgufFile& file, const std::string& key, std::optional<int64_t> fallback,
                   formats::IntRange range) {
  const formats::GgufValue* value = file.FindValue(key);
  if (value == nullptr || std::get_if<std::vector<int64_t>>(value) == nullptr) {
    return fallback && value == nullptr ? *fallback : fields.RequiredInt(key, range);
  }
  const auto& list = std::get<std::vector<int64_t>>(*value);
  for (const int64_t entry : list) {
    if (entry != list.front())
      fields.Fail(Unimplemented(fields.Error(key, "differs between layers, which is not supported").message()));
  }
  if (!list.empty() && list.front() >= range.min && list.front() <= range.max) return list.front();
  fields.Fail(fields.Error(key, fmt::format("must hold integers between {} and {}", range.min, range.max)));
  return range.min;
}

// A small f32 tensor of the file as floats; empty when absent.
std::vector<float> ReadFloats(const GgufFile& file, std::string_view name) {
  const GgufTensor* tensor = file.FindTensor(name);
  if (tensor == nullptr || tensor->type->type != formats::GgmlType::kF32 || tensor->shape.size() != 1 ||
      tensor->shape[0] > 4096) {
    return {};
  }
  std::vector<float> values(static_cast<size_t>(tensor->shape[0]));
  const Status decoded =
      formats::DecodeGgmlRow(formats::GgmlType::kF32, tensor->bytes.data(), tensor->shape[0], values.data());
  PENSIEVE_CHECK(decoded.ok());
  return values;
}

// Refuses a key that this program heeds only by being right about the values that it may have.
void RequireFloats(GgufFields& fields, const std::string& key, std::initializer_list<double> supported) {
  const auto value = fields.OptionalFloat(key);
  if (!value) return;
  for (const double fine : supported) {
    if (std::fabs(*value - fine) <= 1e-5 * std::fabs(fine)) return;
  }
  const std::string problem = fmt::format("is {}, which is not supported", *value);
  fields.Fail(Unimplemented(fields.Error(key, problem).message()));
}

void ReadRope(GgufFields& fields, const GgufFile& file, const Keys& key, ModelConfig& config) {
  RopeConfig& rope = config.rope;
  rope.base = static_cast<float>(fields.OptionalFloat(key("rope.freq_base")).value_or(1e4));
  rope.rotated = fields.Int(key("rope.dimension_count"), config.head_dim, {2, config.head_dim});
  rope.original_context = fields.Int(key("rope.scaling.original_context_length"), config.context_max, kContextRange);
  rope.divisors = ReadFloats(file, "rope_freqs.weight");
  rope.long_factors = ReadFloats(file, "rope_factors_long.weight");
  rope.short_factors = ReadFloats(file, "rope_factors_short.weight");
  const auto factor = fields.OptionalFloat(key("rope.scaling.factor"));
  const auto legacy_factor = fields.OptionalFloat(key("rope.scale_linear"));
  rope.factor = factor.value_or(legacy_factor.value_or(1.0));
  if (rope.factor == 0.0) rope.factor = 1.0;
  const auto attention_factor = fields.OptionalFloat(key("rope.scaling.attn_factor"));
  const std::string type = fields.String(key("rope.scaling.type"), rope.factor != 1.0 ? "linear" : "none");
  const bool is_longrope = !rope.long_factors.empty() && !rope.short_factors.empty();
  if (!is_longrope && type != "yarn") RequireFloats(fields, key("rope.scaling.attn_factor"), {1.0});
  RequireFloats(fields, key("rope.scaling.alpha"), {0.0, 1.0});
  // Below zero: not set.
  if (!(fields.OptionalFloat(key("rope.scaling.yarn_ext_factor")).value_or(-1.0) < 0.0)) {
    RequireFloats(fields, key("rope.scaling.yarn_ext_factor"), {type == "yarn" ? 1.0 : 0.0});
  }
  if (is_longrope) {
    rope.scaling = RopeScaling::kLongrope;
    rope.attention_factor = attention_factor;
  } else if (type == "linear") {
    rope.scaling = RopeScaling::kLinear;
  } else if (type == "yarn") {
    rope.scaling = RopeScaling::kYarn;
    rope.beta_fast = fields.OptionalFloat(key("rope.scaling.yarn_beta_fast")).value_or(32.0);
    rope.beta_slow = fields.OptionalFloat(key("rope.scaling.yarn_beta_slow")).value_or(1.0);
    if (const auto all_dim = fields.OptionalFloat(key("rope.scaling.yarn_log_multiplier"))) {
      rope.mscale = 1.0;
      rope.mscale_all_dim = *all_dim;
    }
    // Converters write here what a config.json calls attention_factor (in place of yarn's own) or attn_factor (on top
    // of it), and llama.cpp overwrites it with yarn's own. 1 is how files say that nothing was set.
    RequireFloats(fields, key("rope.scaling.yarn_attn_factor"), {1.0, YarnMagnitude(rope)});
    // This factor comes on top of yarn's own.
    if (attention_factor) rope.attention_factor = *attention_factor * YarnMagnitude(rope);
  } else if (type != "none") {
    fields.Fail(Unimplemented(
        fields.Error(key("rope.scaling.type"), fmt::format("is \"{}\", an unknown kind", type)).message()));
  }
}

void ReadSizes(GgufFields& fields, const GgufFile& file, const Keys& key, ModelConfig& config) {
  config.hidden_size = fields.RequiredInt(key("embedding_length"), kHiddenRange);
  config.layers = fields.RequiredInt(key("block_count"), kLayersRange);
  config.context_max = fields.RequiredInt(key("context_length"), kContextRange);
  config.intermediate_size = UniformInt(fields, file, key("feed_forward_length"), std::nullopt, kHiddenRange);
  config.heads = UniformInt(fields, file, key("attention.head_count"), std::nullopt, kHeadsRange);
  config.kv_heads = UniformInt(fields, file, key("attention.head_count_kv"), config.heads, kHeadsRange);
  const auto head_dim = fields.OptionalInt(key("attention.key_length"), kHeadDimRange);
  if (!head_dim && config.hidden_size % config.heads != 0) {
    fields.Fail(fields.Error(key("attention.head_count"),
                             fmt::format("is {}, which does not divide {}", config.heads, config.hidden_size)));
  }
  if (config.heads % config.kv_heads != 0) {
    fields.Fail(fields.Error(key("attention.head_count_kv"),
                             fmt::format("is {}, which does not divide {} heads", config.kv_heads, config.heads)));
  }
  config.head_dim = head_dim.value_or(config.hidden_size / config.heads);
  if (fields.Int(key("attention.value_length"), config.head_dim, kHeadDimRange) != config.head_dim) {
    fields.Fail(Unimplemented(
        fields.Error(key("attention.value_length"), "differs from key_length, which is not supported").message()));
  }
  const GgufTensor* embedding = file.FindTensor("token_embd.weight");
  if (file.tensors().empty()) {
    const std::string& path = file.files().front().path();
    fields.Fail(
        DataLoss(fmt::format("{}: tensor \"token_embd.weight\" is missing, and so are all others (a vocabulary "
                             "alone?); give the whole model",
                             path)));
  }
  if (embedding == nullptr || embedding->shape.size() != 2 || embedding->shape[0] > kVocabRange.max) {
    fields.Fail(
        DataLoss(fmt::format("{}: tensor \"token_embd.weight\" is missing or no matrix", file.files().front().path())));
    return;
  }
  config.vocab_size = embedding->shape[0];
}

void ReadPooling(GgufFields& fields, const Keys& key, ModelConfig& config) {
  const auto kind = fields.OptionalInt(key("pooling_type"), {0, 4});
  if (!kind || *kind == 0) return;
  if (*kind == 4) {
    fields.Fail(Unimplemented(fields.Error(key("pooling_type"), "is 4 (rank), which is not supported").message()));
    return;
  }
  constexpr backend::Pooling kKinds[] = {backend::Pooling::kMean, backend::Pooling::kCls, backend::Pooling::kLast};
  config.pooling = kKinds[*kind - 1];
  config.is_embedding = true;
  config.recipe_source = "pooling_type";
}

// EmbeddingGemma's layers behind the pooling.
void ReadDense(const GgufFile& file, ModelConfig& config) {
  for (const char* name : {"dense_2.weight", "dense_3.weight"}) {
    const GgufTensor* tensor = file.FindTensor(name);
    if (tensor == nullptr || tensor->shape.size() != 2) return;
    config.dense.push_back({"", tensor->shape[1], tensor->shape[0]});
  }
}

// The type that holds most bytes, as people name the file.
std::string MostUsedType(const GgufFile& file) {
  std::map<std::string, size_t> bytes;
  for (const GgufTensor& tensor : file.tensors()) {
    if (tensor.name.starts_with("blk.")) bytes[tensor.type->name] += tensor.bytes.size();
  }
  std::string most = "F32";
  for (const auto& [name, total] : bytes) {
    if (total > bytes[most]) most = name;
  }
  return most;
}

}  // namespace

Result<ModelConfig> ReadGgufConfig(const GgufFile& file) {
  GgufFields fields(file);
  const std::string path = file.files().front().path();
  const std::string name = fields.String("general.architecture", "");
  PENSIEVE_RETURN_IF_ERROR(fields.status());
  if (name.empty()) return fields.Error("general.architecture", "is missing");
  const Architecture* architecture = FindGgufArchitecture(name);
  if (architecture == nullptr) return UnknownArchitecture(path, "general.architecture", name);

  const Keys key(name);
  ModelConfig config;
  config.architecture = architecture->name;
  config.name = fields.String("general.name", path.substr(path.rfind('/') + 1));
  config.is_encoder = architecture->is_encoder;
  config.is_embedding = architecture->is_encoder;
  config.quantization = MostUsedType(file);
  ReadSizes(fields, file, key, config);
  PENSIEVE_RETURN_IF_ERROR(fields.status());
  if (config.is_encoder) {
    config.norm_eps = static_cast<float>(fields.OptionalFloat(key("attention.layer_norm_epsilon")).value_or(1e-12));
    config.activation = backend::Activation::kGeluErf;
    config.attention_bias = config.mlp_bias = true;
    const GgufTensor* types = file.FindTensor("token_types.weight");
    config.type_vocab_size = types != nullptr && types->shape.size() == 2 ? types->shape[0] : 0;
  } else {
    config.norm_eps = static_cast<float>(fields.OptionalFloat(key("attention.layer_norm_rms_epsilon")).value_or(1e-5));
    config.sliding_window = fields.Int(key("attention.sliding_window"), 0, {0, INT64_MAX});
    config.tied_embeddings = file.FindTensor("output.weight") == nullptr;
    ReadRope(fields, file, key, config);
  }
  ReadPooling(fields, key, config);
  ReadDense(file, config);
  if (architecture->adjust_gguf != nullptr) architecture->adjust_gguf(name, fields, config);
  if (config.experts.count == 0 && fields.Int(key("expert_count"), 0, {0, 1 << 20}) > 0) {
    fields.Fail(Unimplemented(
        fields.Error(key("expert_count"), "names experts, which are not supported in this architecture").message()));
  }
  PENSIEVE_RETURN_IF_ERROR(fields.status());
  return config;
}

}  // namespace pensieve::model
