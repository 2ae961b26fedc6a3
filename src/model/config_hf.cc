#include "model/config_hf.h"

#include <fmt/format.h>

#include <filesystem>

#include "formats/config_fields.h"
#include "model/architectures.h"
#include "model/config_limits.h"
#include "model/embedding_recipe.h"

namespace pensieve::model {
namespace {

namespace fs = std::filesystem;
using formats::ConfigFields;
using formats::IntRange;

constexpr size_t kConfigBytesMax = 64 << 20;  // per-module quantization entries of large models take megabytes

// --- rope
// -------------------------------------------------------------------------------------------------------------

void ReadRopeScaling(ConfigFields& rope, ConfigFields& top, int64_t context_max, RopeConfig& out) {
  std::string type = rope.String("rope_type", "");
  if (type.empty()) type = rope.String("type", "default");
  out.factor = rope.Float("factor", 1.0);
  out.attention_factor = rope.OptionalFloat("attention_factor");
  const auto inner_original = rope.OptionalInt("original_max_position_embeddings", kContextRange);
  const auto top_original = top.OptionalInt("original_max_position_embeddings", kContextRange);
  out.original_context = inner_original.value_or(top_original.value_or(context_max));
  out.query_growth = rope.Float("llama_4_scaling_beta", 0.0);
  if (type == "default" || type == "mrope") {
    out.scaling = RopeScaling::kNone;
  } else if (type == "linear") {
    out.scaling = RopeScaling::kLinear;
  } else if (type == "dynamic") {
    out.scaling = RopeScaling::kDynamic;
  } else if (type == "llama3") {
    out.scaling = RopeScaling::kLlama3;
    out.low_freq_factor = rope.Float("low_freq_factor", 1.0);
    out.high_freq_factor = rope.Float("high_freq_factor", 4.0);
    out.original_context = inner_original.value_or(top_original.value_or(8192));
  } else if (type == "longrope" || type == "su" || (type == "yarn" && rope.Has("long_factor"))) {  // the first Phi-3
    out.scaling = RopeScaling::kLongrope;
    for (const double f : rope.Floats("short_factor", 4096)) out.short_factors.push_back(static_cast<float>(f));
    for (const double f : rope.Floats("long_factor", 4096)) out.long_factors.push_back(static_cast<float>(f));
  } else if (type == "yarn" || type == "deepseek_yarn") {
    out.scaling = RopeScaling::kYarn;
    out.beta_fast = rope.Float("beta_fast", 32.0);
    out.beta_slow = rope.Float("beta_slow", 1.0);
    out.truncate = rope.Bool("truncate", true);
    out.mscale = rope.OptionalFloat("mscale");
    out.mscale_all_dim = rope.OptionalFloat("mscale_all_dim");
  } else {
    rope.Fail(
        Unimplemented(rope.Error("type", fmt::format("is \"{}\", an unknown kind of rope scaling", type)).message()));
  }
}

void ReadRopeOf(ConfigFields& rope, ConfigFields& fields, const ModelConfig& config, RopeConfig& out) {
  const double base = rope.Has("rope_theta") ? rope.Float("rope_theta", 1e4) : fields.Float("rope_theta", 1e4);
  out.base = static_cast<float>(base);
  double partial = 1.0;
  if (FindArchitecture(config.architecture)->reads_partial_rotary_factor) {
    partial = rope.Float("partial_rotary_factor", fields.Float("partial_rotary_factor", 1.0));
  }
  if (!(partial > 0.0 && partial <= 1.0)) fields.Fail(fields.Error("partial_rotary_factor", "must be in (0, 1]"));
  out.rotated = static_cast<int64_t>(static_cast<double>(config.head_dim) * partial);
  ReadRopeScaling(rope, fields, config.context_max, out);
  fields.Absorb(rope);
}

void ReadRope(ConfigFields& fields, ModelConfig& config) {
  // Newer writers keep everything in rope_parameters, per kind of layer where kinds differ.
  ConfigFields rope = fields.Object(fields.Has("rope_parameters") ? "rope_parameters" : "rope_scaling");
  if (!rope.Has("full_attention") && !rope.Has("sliding_attention")) {
    return ReadRopeOf(rope, fields, config, config.rope);
  }
  ConfigFields full = rope.Object("full_attention");
  ReadRopeOf(full, fields, config, config.rope);
  if (!rope.Has("sliding_attention")) return;
  ConfigFields sliding = rope.Object("sliding_attention");
  ReadRopeOf(sliding, fields, config, config.sliding_rope.emplace());
}

// --- layers of different kinds
// ----------------------------------------------------------------------------------------

void ReadLayerKinds(ConfigFields& fields, ModelConfig& config) {
  const auto num_layers = static_cast<size_t>(config.layers);
  if (fields.Bool("use_sliding_window", true)) {
    config.sliding_window = fields.Int("sliding_window", 0, {0, INT64_MAX});
  }
  const auto kinds = fields.Strings("layer_types", 4096);
  if (!kinds.empty() && kinds.size() != num_layers) {
    fields.Fail(fields.Error("layer_types", fmt::format("has {} entries for {} layers", kinds.size(), num_layers)));
  }
  for (const std::string& kind : kinds) {
    if (kind != "sliding_attention" && kind != "full_attention") {
      fields.Fail(
          Unimplemented(fields.Error("layer_types", fmt::format("holds the unknown kind \"{}\"", kind)).message()));
    }
    config.sliding_layers.push_back(kind == "sliding_attention");
  }
  // Qwen 2: the first max_window_layers layers see everything.
  if (kinds.empty() && config.sliding_window > 0 && fields.Has("max_window_layers")) {
    const int64_t full = fields.Int("max_window_layers", 0, {0, kLayersRange.max});
    for (int64_t layer = 0; layer < config.layers; ++layer) config.sliding_layers.push_back(layer >= full);
  }
  const auto uses_rope = fields.IntOrInts("no_rope_layers", {0, 1}, 4096);  // in spite of its name, 1 means rope
  if (!uses_rope.empty() && uses_rope.size() != num_layers) {
    fields.Fail(
        fields.Error("no_rope_layers", fmt::format("has {} entries for {} layers", uses_rope.size(), num_layers)));
  }
  for (const int64_t uses : uses_rope) config.nope_layers.push_back(uses == 0);
}

// --- architectures
// ----------------------------------------------------------------------------------------------------

std::optional<backend::Activation> ParseActivation(const std::string& name) {
  using backend::Activation;
  if (name == "silu" || name == "swish") return Activation::kSilu;
  if (name == "gelu") return Activation::kGeluErf;
  if (name == "gelu_new" || name == "gelu_pytorch_tanh" || name == "gelu_fast") return Activation::kGeluTanh;
  if (name == "relu") return Activation::kRelu;
  return std::nullopt;
}

void ReadActivation(ConfigFields& fields, std::string_view fallback, ModelConfig& config) {
  const std::string name = fields.String("hidden_act", fallback);
  const auto activation = ParseActivation(name);
  if (!activation) {
    fields.Fail(
        Unimplemented(fields.Error("hidden_act", fmt::format("is \"{}\", an unknown activation", name)).message()));
  }
  config.activation = activation.value_or(backend::Activation::kSilu);
}

void ReadSizes(ConfigFields& fields, ModelConfig& config) {
  config.hidden_size = fields.RequiredInt("hidden_size", kHiddenRange);
  config.intermediate_size = fields.RequiredInt("intermediate_size", kHiddenRange);
  config.layers = fields.RequiredInt("num_hidden_layers", kLayersRange);
  config.heads = fields.RequiredInt("num_attention_heads", kHeadsRange);
  config.kv_heads = fields.Int("num_key_value_heads", config.heads, kHeadsRange);
  config.vocab_size = fields.RequiredInt("vocab_size", kVocabRange);
  config.context_max = fields.RequiredInt("max_position_embeddings", kContextRange);
  const auto head_dim = fields.OptionalInt("head_dim", kHeadDimRange);
  if (!head_dim && config.hidden_size % config.heads != 0) {
    fields.Fail(fields.Error("num_attention_heads", fmt::format("is {}, which does not divide hidden_size {}",
                                                                config.heads, config.hidden_size)));
  }
  if (config.heads % config.kv_heads != 0) {
    fields.Fail(fields.Error("num_key_value_heads",
                             fmt::format("is {}, which does not divide {} heads", config.kv_heads, config.heads)));
  }
  config.head_dim = head_dim.value_or(config.hidden_size / config.heads);
}

void ReadDecoder(ConfigFields& fields, ModelConfig& config) {
  config.norm_eps = static_cast<float>(fields.Float("rms_norm_eps", 1e-6));
  config.attention_bias = fields.Bool("attention_bias", false);
  config.mlp_bias = fields.Bool("mlp_bias", false);
  ReadActivation(fields, "silu", config);
  ReadRope(fields, config);
  ReadLayerKinds(fields, config);
}

void ReadBert(ConfigFields& fields, const std::string& model_type, ModelConfig& config) {
  config.norm_eps = static_cast<float>(fields.Float("layer_norm_eps", 1e-12));
  config.attention_bias = true;
  config.mlp_bias = true;
  config.type_vocab_size = fields.Int("type_vocab_size", 2, {0, 1024});
  ReadActivation(fields, "gelu", config);
  const std::string positions = fields.String("position_embedding_type", "absolute");
  if (positions != "absolute") {
    fields.Fail(Unimplemented(
        fields.Error("position_embedding_type", fmt::format("is \"{}\"; only \"absolute\" is supported", positions))
            .message()));
  }
  if (model_type != "bert") {  // the RoBERTa family counts positions from behind the padding id
    config.position_offset = fields.Int("pad_token_id", 1, kTokenIdRange) + 1;
    if (config.position_offset >= config.context_max)
      fields.Fail(fields.Error("max_position_embeddings", "is too small"));
    config.context_max -= config.position_offset;
  }
}

// --- quantization
// -----------------------------------------------------------------------------------------------------

QuantizationParams ReadParams(ConfigFields& fields, bool required) {
  QuantizationParams params;
  const std::string mode = fields.String("mode", "affine");
  if (mode == "mxfp4") {
    params = {QuantizationMode::kMxfp4, 4, 32};
  } else if (mode != "affine") {
    fields.Fail(Unimplemented(
        fields.Error("mode", fmt::format("is \"{}\"; \"affine\" and \"mxfp4\" are supported", mode)).message()));
  }
  if (required && !fields.Has("group_size")) fields.Fail(fields.Error("group_size", "is missing"));
  if (required && !fields.Has("bits")) fields.Fail(fields.Error("bits", "is missing"));
  params.group = static_cast<int>(fields.Int("group_size", params.group, {16, 128}));
  params.bits = static_cast<int>(fields.Int("bits", params.bits, {2, 8}));
  const bool group_known = params.group == 16 || params.group == 32 || params.group == 64 || params.group == 128;
  if (!group_known) fields.Fail(fields.Error("group_size", fmt::format("is {}, not 16, 32, 64 or 128", params.group)));
  if (params.bits == 7) fields.Fail(fields.Error("bits", "is 7; 2, 3, 4, 5, 6 and 8 are supported"));
  if (mode == "mxfp4" && (params.bits != 4 || params.group != 32))
    fields.Fail(fields.Error("bits", "must be 4, in groups of 32, for mxfp4"));
  return params;
}

QuantizationConfig ReadQuantization(ConfigFields& top, ConfigFields& text) {
  QuantizationConfig quantization;
  ConfigFields fields = top.Object("quantization");
  if (!top.Has("quantization")) {
    fields = top.Has("quantization_config") ? top.Object("quantization_config") : text.Object("quantization_config");
    const std::string method = fields.String("quant_method", "");
    // Experts as mxfp4 blocks, everything else as floats: the tensors' names say which (gpt-oss).
    if (method == "mxfp4") return quantization;
    const bool is_bitsandbytes = fields.Has("load_in_4bit") || fields.Has("load_in_8bit");
    if (!method.empty() || is_bitsandbytes) {
      const std::string name = method.empty() ? "bitsandbytes" : method;
      const std::string problem = fmt::format(
          "is \"{}\"; such weights are not read: take a GGUF file, an MLX version or "
          "the unquantized safetensors of the same model",
          name);
      top.Fail(Unimplemented(fields.Error("quant_method", problem).message()));
      return quantization;
    }
  }
  if (fields.json().empty()) return quantization;
  quantization.global = ReadParams(fields, /*required=*/true);
  for (const auto& [module, value] : fields.json().items()) {
    if (value.is_boolean()) {
      quantization.modules[ModuleKey(module)] = value.get<bool>() ? quantization.global : std::nullopt;
    } else if (value.is_object()) {
      ConfigFields entry = fields.Object(module);
      quantization.modules[ModuleKey(module)] = ReadParams(entry, /*required=*/false);
      fields.Absorb(entry);
    }
  }
  top.Absorb(fields);
  return quantization;
}

std::string DescribeQuantization(const QuantizationConfig& quantization, ConfigFields& fields) {
  if (fields.Object("quantization_config").String("quant_method", "") == "mxfp4") return "mxfp4";
  if (!quantization.global) {
    const std::string dtype = fields.String(fields.Has("dtype") ? "dtype" : "torch_dtype", "float32");
    return dtype == "bfloat16" ? "bf16" : dtype == "float16" ? "f16" : "f32";
  }
  if (quantization.global->mode == QuantizationMode::kMxfp4) return "mxfp4";
  return fmt::format("affine {}-bit group {}", quantization.global->bits, quantization.global->group);
}

// --- neighbours of config.json
// ----------------------------------------------------------------------------------------

void ReadGenerationConfig(const fs::path& directory, HfModel& model) {
  const std::string path = (directory / "generation_config.json").string();
  const auto json = formats::ReadJsonObject(path, kConfigBytesMax);
  if (!json) return;  // optional, and ignored when it is no JSON, as everywhere
  ConfigFields fields(path, *json);
  for (const int64_t id : fields.IntOrInts("eos_token_id", kTokenIdRange, 1024)) model.eos_ids.push_back(id);
  const auto number = [&](const char* key) {
    const auto value = fields.OptionalFloat(key);
    return value ? std::optional(static_cast<float>(*value)) : std::nullopt;
  };
  model.defaults.temperature = number("temperature");
  model.defaults.top_p = number("top_p");
  model.defaults.min_p = number("min_p");
  model.defaults.repetition_penalty = number("repetition_penalty");
  if (const auto top_k = fields.OptionalInt("top_k", {0, INT32_MAX}))
    model.defaults.top_k = static_cast<int32_t>(*top_k);
  if (!fields.status().ok()) model.defaults = {};
}

Json WithDefaults(const Architecture& architecture, const std::string& model_type, const Json& given) {
  const Json defaults = *ParseJson(architecture.hf_defaults);
  Json complete = Json::object();
  for (const std::string& type : {std::string("*"), model_type}) {
    if (defaults.contains(type)) complete.update(defaults[type]);
  }
  const Json scaling = complete.value("rope_scaling", Json());
  complete.update(given);
  for (const auto& [name, usual] : architecture.hf_renames) {
    const auto it = given.find(std::string(name));
    if (it != given.end() && !given.contains(std::string(usual))) complete[std::string(usual)] = *it;
  }
  // Elsewhere null is a value of its own, but here it is as good as nothing, and so is {}.
  if (complete.contains("rope_scaling") && complete["rope_scaling"].empty()) complete["rope_scaling"] = scaling;
  return complete;
}

// The file's own word, in the model or around it, before the architecture's default.
std::optional<bool> ReadTied(ConfigFields& top, ConfigFields& given, ConfigFields& complete) {
  for (ConfigFields* fields : {&given, &top, &complete}) {
    if (const auto tied = fields->OptionalBool("tie_word_embeddings")) return tied;
  }
  return std::nullopt;
}

}  // namespace

Result<HfModel> ReadHfModel(const std::string& directory) {
  const std::string path = (fs::path(directory) / "config.json").string();
  PENSIEVE_TRY(const Json json, formats::ReadJsonObject(path, kConfigBytesMax));
  ConfigFields top(path, json);
  if (top.Has("model_file")) {
    return Unimplemented(top.Error("model_file", "asks for Python code, which is not supported").message());
  }
  const bool is_wrapped = top.Has("text_config");
  ConfigFields given = is_wrapped ? top.Object("text_config") : top;

  HfModel model;
  ModelConfig& config = model.config;
  std::string model_type = given.String("model_type", "");
  if (model_type.empty()) model_type = top.String("model_type", "");
  top.Absorb(given);
  PENSIEVE_RETURN_IF_ERROR(top.status());
  if (model_type.empty()) return top.Error("model_type", "is missing");
  const Architecture* architecture = FindHfArchitecture(model_type);
  if (architecture == nullptr) return UnknownArchitecture(path, "model_type", model_type);
  const Json complete = WithDefaults(*architecture, model_type, given.json());
  ConfigFields fields(path, complete, is_wrapped ? "text_config." : "");

  config.architecture = architecture->name;
  const fs::path plain = fs::path(directory).lexically_normal();
  config.name = (plain.has_filename() ? plain : plain.parent_path()).filename().string();
  config.is_encoder = architecture->is_encoder;
  config.is_embedding = architecture->is_encoder;
  ReadSizes(fields, config);
  PENSIEVE_RETURN_IF_ERROR(fields.status());  // what follows computes with the sizes
  if (config.architecture == "bert") {
    ReadBert(fields, model_type, config);
  } else if (config.is_encoder) {
    config.type_vocab_size = fields.Int("type_vocab_size", 2, {0, 1024});
  } else {
    ReadDecoder(fields, config);
  }
  if (architecture->adjust_hf != nullptr) architecture->adjust_hf(model_type, fields, config);
  model.tied = ReadTied(top, given, fields);
  model.quantization = ReadQuantization(top, fields);
  config.quantization = DescribeQuantization(model.quantization, fields);
  model.eos_ids = fields.IntOrInts("eos_token_id", kTokenIdRange, 1024);
  if (model.eos_ids.empty()) model.eos_ids = top.IntOrInts("eos_token_id", kTokenIdRange, 1024);
  top.Absorb(fields);
  PENSIEVE_RETURN_IF_ERROR(top.status());
  ReadGenerationConfig(directory, model);
  PENSIEVE_RETURN_IF_ERROR(ReadEmbeddingRecipe(directory, json, model));
  return model;
}

}  // namespace pensieve::model
