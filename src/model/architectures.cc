#include "model/architectures.h"

#include <fmt/format.h>

#include <algorithm>

#include "formats/printable.h"
#include "model/loader.h"

namespace pensieve::model {
namespace {

// Names that all decoders of the Llama shape share.
std::vector<NamePair> DecoderNames(std::initializer_list<NamePair> more) {
  std::vector<NamePair> names = {
      {"model.embed_tokens", "token_embd"},
      {"model.norm", "output_norm"},
      {"lm_head", "output"},
      {"model.layers.*.input_layernorm", "blk.*.attn_norm"},
      {"model.layers.*.self_attn.o_proj", "blk.*.attn_output"},
      {"model.layers.*.post_attention_layernorm", "blk.*.ffn_norm"},
      {"model.layers.*.mlp.down_proj", "blk.*.ffn_down"},
  };
  names.insert(names.end(), more);
  return names;
}

std::vector<NamePair> SeparateProjections(std::initializer_list<NamePair> more) {
  std::vector<NamePair> names = DecoderNames({{"model.layers.*.self_attn.q_proj", "blk.*.attn_q"},
                                              {"model.layers.*.self_attn.k_proj", "blk.*.attn_k"},
                                              {"model.layers.*.self_attn.v_proj", "blk.*.attn_v"},
                                              {"model.layers.*.mlp.gate_proj", "blk.*.ffn_gate"},
                                              {"model.layers.*.mlp.up_proj", "blk.*.ffn_up"}});
  names.insert(names.end(), more);
  return names;
}

// `names`, and those of experts: all of a layer in one tensor, or (the first Mixtral files) one tensor an expert.
std::vector<NamePair> ExpertsOf(std::vector<NamePair> names) {
  const NamePair experts[] = {{"model.layers.*.mlp.gate", "blk.*.ffn_gate_inp"},
                              {"model.layers.*.mlp.switch_mlp.gate_proj", "blk.*.ffn_gate_exps"},
                              {"model.layers.*.mlp.switch_mlp.up_proj", "blk.*.ffn_up_exps"},
                              {"model.layers.*.mlp.switch_mlp.down_proj", "blk.*.ffn_down_exps"},
                              {"model.layers.*.mlp.experts.*.gate_proj", "blk.*.ffn_gate.*"},
                              {"model.layers.*.mlp.experts.*.up_proj", "blk.*.ffn_up.*"},
                              {"model.layers.*.mlp.experts.*.down_proj", "blk.*.ffn_down.*"},
                              {"model.layers.*.mlp.shared_expert_gate", "blk.*.ffn_gate_inp_shexp"},
                              {"model.layers.*.mlp.shared_expert.gate_proj", "blk.*.ffn_gate_shexp"},
                              {"model.layers.*.mlp.shared_expert.up_proj", "blk.*.ffn_up_shexp"},
                              {"model.layers.*.mlp.shared_expert.down_proj", "blk.*.ffn_down_shexp"}};
  names.insert(names.end(), std::begin(experts), std::end(experts));
  return names;
}

std::vector<NamePair> GptOssNames() {
  return {{"model.embed_tokens", "token_embd"},
          {"model.norm", "output_norm"},
          {"lm_head", "output"},
          {"model.layers.*.input_layernorm", "blk.*.attn_norm"},
          {"model.layers.*.self_attn.q_proj", "blk.*.attn_q"},
          {"model.layers.*.self_attn.k_proj", "blk.*.attn_k"},
          {"model.layers.*.self_attn.v_proj", "blk.*.attn_v"},
          {"model.layers.*.self_attn.o_proj", "blk.*.attn_output"},
          {"model.layers.*.self_attn.sinks", "blk.*.attn_sinks"},
          {"model.layers.*.post_attention_layernorm", "blk.*.post_attention_norm"},
          {"model.layers.*.mlp.router", "blk.*.ffn_gate_inp"},
          {"model.layers.*.mlp.experts.gate_proj", "blk.*.ffn_gate_exps"},
          {"model.layers.*.mlp.experts.up_proj", "blk.*.ffn_up_exps"},
          {"model.layers.*.mlp.experts.down_proj", "blk.*.ffn_down_exps"}};
}

// Gemma calls its four norms otherwise: the first row that fits a name wins.
std::vector<NamePair> GemmaNames() {
  std::vector<NamePair> names = {{"model.layers.*.post_attention_layernorm", "blk.*.post_attention_norm"},
                                 {"model.layers.*.pre_feedforward_layernorm", "blk.*.ffn_norm"},
                                 {"model.layers.*.post_feedforward_layernorm", "blk.*.post_ffw_norm"},
                                 {"dense.0", "dense_2"},
                                 {"dense.1", "dense_3"}};
  const std::vector<NamePair> common = SeparateProjections({{"model.layers.*.self_attn.q_norm", "blk.*.attn_q_norm"},
                                                            {"model.layers.*.self_attn.k_norm", "blk.*.attn_k_norm"}});
  names.insert(names.end(), common.begin(), common.end());
  return names;
}

std::vector<NamePair> BertNames() {
  return {{"embeddings.word_embeddings", "token_embd"},
          {"embeddings.position_embeddings", "position_embd"},
          {"embeddings.token_type_embeddings", "token_types"},
          {"embeddings.LayerNorm", "token_embd_norm"},
          {"encoder.layer.*.attention.self.query", "blk.*.attn_q"},
          {"encoder.layer.*.attention.self.key", "blk.*.attn_k"},
          {"encoder.layer.*.attention.self.value", "blk.*.attn_v"},
          {"encoder.layer.*.attention.output.dense", "blk.*.attn_output"},
          {"encoder.layer.*.attention.output.LayerNorm", "blk.*.attn_output_norm"},
          {"encoder.layer.*.intermediate.dense", "blk.*.ffn_up"},
          {"encoder.layer.*.output.dense", "blk.*.ffn_down"},
          {"encoder.layer.*.output.LayerNorm", "blk.*.layer_output_norm"}};
}

}  // namespace

const std::vector<Architecture>& Architectures() {
  static const std::vector<Architecture> kTable = {
      {.name = "llama",
       .hf_types = {"llama", "mistral", "mistral3", "ministral3", "smollm3"},
       .gguf_types = {"llama", "mistral3", "smollm3"},
       .hf_defaults = R"({"llama": {"max_position_embeddings": 2048},
                          "mistral": {"num_key_value_heads": 8, "max_position_embeddings": 131072,
                                      "sliding_window": 4096},
                          "ministral3": {"num_key_value_heads": 8, "head_dim": 128, "max_position_embeddings": 262144,
                                         "rms_norm_eps": 1e-5,
                                         "rope_scaling": {"rope_type": "yarn", "rope_theta": 1e6, "factor": 16.0,
                                                          "original_max_position_embeddings": 16384, "mscale": 1.0,
                                                          "mscale_all_dim": 1.0, "llama_4_scaling_beta": 0.1}},
                          "smollm3": {"num_key_value_heads": 4, "max_position_embeddings": 32768, "rope_theta": 2e6,
                                      "use_sliding_window": false, "tie_word_embeddings": true}})",
       .rotary_rows_permuted = true,
       .gguf_names = ExpertsOf(SeparateProjections({})),
       .create = NewLlama,
       .adjust_hf = AdjustLlamaHf,
       .adjust_gguf = AdjustLlamaGguf},
      {.name = "qwen2",
       .hf_types = {"qwen2"},
       .gguf_types = {"qwen2"},
       .hf_defaults = R"({"*": {"num_key_value_heads": 32, "max_position_embeddings": 32768,
                                "use_sliding_window": false, "sliding_window": 4096, "max_window_layers": 28}})",
       .gguf_names = SeparateProjections({}),
       .create = NewQwen2},
      {.name = "qwen3",
       .hf_types = {"qwen3"},
       .gguf_types = {"qwen3"},
       .hf_defaults = R"({"*": {"num_key_value_heads": 32, "max_position_embeddings": 32768, "head_dim": 128,
                                "use_sliding_window": false, "sliding_window": 4096, "max_window_layers": 28}})",
       .gguf_names = SeparateProjections({{"model.layers.*.self_attn.q_norm", "blk.*.attn_q_norm"},
                                          {"model.layers.*.self_attn.k_norm", "blk.*.attn_k_norm"}}),
       .create = NewQwen3},
      {.name = "qwen3_moe",
       .hf_types = {"qwen3_moe"},
       .gguf_types = {"qwen3moe"},
       .hf_defaults = R"({"*": {"num_key_value_heads": 4, "max_position_embeddings": 32768, "use_sliding_window": false,
                                "sliding_window": 4096, "num_experts_per_tok": 8}})",
       .gguf_names = ExpertsOf(SeparateProjections({{"model.layers.*.self_attn.q_norm", "blk.*.attn_q_norm"},
                                                    {"model.layers.*.self_attn.k_norm", "blk.*.attn_k_norm"}})),
       .create = NewQwen3Moe,
       .adjust_hf = AdjustQwenMoeHf,
       .adjust_gguf = AdjustQwenMoeGguf},
      {.name = "qwen2_moe",
       .hf_types = {"qwen2_moe"},
       .gguf_types = {"qwen2moe"},
       .hf_defaults = R"({"*": {"num_key_value_heads": 16, "max_position_embeddings": 32768,
                                "use_sliding_window": false, "sliding_window": 4096, "max_window_layers": 28,
                                "num_experts_per_tok": 4}})",
       .gguf_names = ExpertsOf(SeparateProjections({})),
       .create = NewQwen2Moe,
       .adjust_hf = AdjustQwenMoeHf,
       .adjust_gguf = AdjustQwenMoeGguf},
      {.name = "mixtral",
       .hf_types = {"mixtral"},
       .hf_defaults = R"({"*": {"num_key_value_heads": 8, "max_position_embeddings": 131072, "rms_norm_eps": 1e-5,
                                "rope_theta": 1e6, "num_experts_per_tok": 2, "num_local_experts": 8}})",
       .create = NewMixtral,
       .adjust_hf = AdjustMixtralHf},
      {.name = "gpt_oss",
       .hf_types = {"gpt_oss"},
       .gguf_types = {"gpt-oss"},
       .hf_defaults = R"({"*": {"num_key_value_heads": 8, "max_position_embeddings": 131072, "rms_norm_eps": 1e-5,
                                "rope_theta": 150000, "head_dim": 64, "num_experts_per_tok": 4,
                                "rope_scaling": {"rope_type": "yarn", "factor": 32.0, "truncate": false,
                                                 "original_max_position_embeddings": 4096}}})",
       .gguf_names = GptOssNames(),
       .create = NewGptOss,
       .adjust_hf = AdjustGptOssHf,
       .adjust_gguf = AdjustGptOssGguf},
      {.name = "phi3",
       .hf_types = {"phi3"},
       .gguf_types = {"phi3"},
       .hf_defaults = R"({"*": {"max_position_embeddings": 4096, "original_max_position_embeddings": 4096,
                                "rms_norm_eps": 1e-5}})",
       .reads_partial_rotary_factor = true,
       .gguf_names = DecoderNames({{"model.layers.*.self_attn.qkv_proj", "blk.*.attn_qkv"},
                                   {"model.layers.*.mlp.gate_up_proj", "blk.*.ffn_up"}}),
       .create = NewPhi3,
       .adjust_hf = AdjustPhi3Hf},
      {.name = "gemma2",
       .hf_types = {"gemma2"},
       .gguf_types = {"gemma2"},
       .hf_defaults = R"({"*": {"num_attention_heads": 8, "num_key_value_heads": 4, "max_position_embeddings": 8192,
                                "head_dim": 256, "query_pre_attn_scalar": 256,
                                "attn_logit_softcapping": 50.0, "final_logit_softcapping": 30.0,
                                "sliding_window": 4096, "tie_word_embeddings": true}})",
       .gguf_names = GemmaNames(),
       .create = NewGemma2,
       .adjust_hf = AdjustGemmaHf,
       .adjust_gguf = AdjustGemmaGguf},
      {.name = "gemma3",
       .hf_types = {"gemma3_text", "gemma3"},
       .gguf_types = {"gemma3", "gemma-embedding"},
       .hf_defaults = R"({"*": {"num_attention_heads": 8, "num_key_value_heads": 4, "head_dim": 256,
                                "vocab_size": 262208, "max_position_embeddings": 131072, "rope_theta": 1e6,
                                "sliding_window": 4096, "tie_word_embeddings": true}})",
       .gguf_names = GemmaNames(),
       .create = NewGemma3,
       .adjust_hf = AdjustGemmaHf,
       .adjust_gguf = AdjustGemmaGguf},
      {.name = "bert",
       .hf_types = {"bert", "roberta", "xlm-roberta", "camembert"},
       .gguf_types = {"bert"},
       .is_encoder = true,
       .gguf_names = BertNames(),
       .create = NewBert},
      {.name = "nomic_bert",
       .hf_types = {"nomic_bert"},
       .hf_defaults = R"({"*": {"max_position_embeddings": 2048, "vocab_size": 30528}})",
       .hf_renames = {{"n_embd", "hidden_size"},
                      {"n_inner", "intermediate_size"},
                      {"n_layer", "num_hidden_layers"},
                      {"n_head", "num_attention_heads"},
                      {"n_positions", "max_position_embeddings"}},
       .is_encoder = true,
       .create = NewNomicBert,
       .adjust_hf = AdjustNomicHf},
      {.name = "modernbert",
       .hf_types = {"modernbert"},
       .hf_defaults = R"({"*": {"vocab_size": 50368, "max_position_embeddings": 8192}})",
       .is_encoder = true,
       .create = NewModernBert,
       .adjust_hf = AdjustModernHf},
  };
  return kTable;
}

namespace {

template <typename Matches>
const Architecture* FindIf(const Matches& matches) {
  const auto& table = Architectures();
  const auto it = std::find_if(table.begin(), table.end(), matches);
  return it == table.end() ? nullptr : &*it;
}

bool Contains(const std::vector<std::string_view>& names, std::string_view name) {
  return std::find(names.begin(), names.end(), name) != names.end();
}

}  // namespace

const Architecture* FindHfArchitecture(std::string_view model_type) {
  return FindIf([&](const Architecture& row) { return Contains(row.hf_types, model_type); });
}

const Architecture* FindGgufArchitecture(std::string_view name) {
  return FindIf([&](const Architecture& row) { return Contains(row.gguf_types, name); });
}

const Architecture* FindArchitecture(std::string_view name) {
  return FindIf([&](const Architecture& row) { return row.name == name; });
}

std::vector<std::string> KnownArchitectures() {
  std::vector<std::string> names;
  for (const Architecture& row : Architectures()) {
    for (const std::string_view type : row.hf_types) names.emplace_back(type);
  }
  std::sort(names.begin(), names.end());
  return names;
}

Status UnknownArchitecture(const std::string& path, std::string_view field, std::string_view name) {
  return Unimplemented(
      fmt::format("{}: field \"{}\" names the architecture \"{}\", which is not supported (supported: {})", path, field,
                  formats::Printable(name, 60), fmt::join(KnownArchitectures(), ", ")));
}

}  // namespace pensieve::model
