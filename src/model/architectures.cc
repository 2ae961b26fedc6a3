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

const std::vector<Architecture>& Table() {
  static const std::vector<Architecture> kTable = {
      {.name = "llama",
       .hf_types = {"llama", "mistral", "smollm3"},
       .gguf_types = {"llama", "smollm3"},
       .rotary_rows_permuted = true,
       .gguf_names = SeparateProjections({}),
       .create = NewLlama,
       .adjust_hf = AdjustLlamaHf,
       .adjust_gguf = AdjustLlamaGguf},
      {.name = "qwen2",
       .hf_types = {"qwen2"},
       .gguf_types = {"qwen2"},
       .gguf_names = SeparateProjections({}),
       .create = NewQwen2,
       .adjust_hf = AdjustQwen2Hf},
      {.name = "qwen3",
       .hf_types = {"qwen3"},
       .gguf_types = {"qwen3"},
       .gguf_names = SeparateProjections({{"model.layers.*.self_attn.q_norm", "blk.*.attn_q_norm"},
                                          {"model.layers.*.self_attn.k_norm", "blk.*.attn_k_norm"}}),
       .create = NewQwen3},
      {.name = "phi3",
       .hf_types = {"phi3"},
       .gguf_types = {"phi3"},
       .gguf_names = DecoderNames({{"model.layers.*.self_attn.qkv_proj", "blk.*.attn_qkv"},
                                   {"model.layers.*.mlp.gate_up_proj", "blk.*.ffn_up"}}),
       .create = NewPhi3,
       .adjust_hf = AdjustPhi3Hf},
      {.name = "bert",
       .hf_types = {"bert", "roberta", "xlm-roberta", "camembert"},
       .gguf_types = {"bert"},
       .is_encoder = true,
       .gguf_names = BertNames(),
       .create = NewBert},
  };
  return kTable;
}

template <typename Matches>
const Architecture* FindIf(const Matches& matches) {
  const auto& table = Table();
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
  for (const Architecture& row : Table()) {
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
