// What an architecture needs to know, read from config.json or from GGUF metadata alike.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "backend/backend.h"

namespace pensieve::model {

enum class RopeScaling : uint8_t { kNone, kLinear, kDynamic, kLlama3, kYarn, kLongrope };

// Which of longrope's two lists of factors a sequence rotates with. Keys cached with one are useless with the other,
// so the choice holds for a sequence's whole life.
enum class LongropeChoice : uint8_t {
  kAuto,   // short when prompt and answer together fit the original context, else long
  kShort,  // always
  kLong,   // always: what mlx-lm does
};

struct RopeConfig {
  float base = 10000.0f;
  int64_t rotated = 0;  // leading dims of a head that rotate
  RopeScaling scaling = RopeScaling::kNone;
  double factor = 1.0;
  double low_freq_factor = 1.0;   // llama3
  double high_freq_factor = 4.0;  // llama3
  int64_t original_context = 0;   // llama3, yarn, longrope
  double beta_fast = 32.0;        // yarn
  double beta_slow = 1.0;         // yarn
  bool truncate = true;           // yarn
  std::optional<double> attention_factor = {};
  std::optional<double> mscale = {};
  std::optional<double> mscale_all_dim = {};
  std::vector<float> short_factors = {};  // longrope, [rotated / 2]
  std::vector<float> long_factors = {};
  std::vector<float> divisors = {};  // GGUF rope_freqs: frequency_i is divided by divisors[i]
  LongropeChoice longrope = LongropeChoice::kAuto;
  // Ministral: q at position p is multiplied by 1 + query_growth * ln(1 + floor(p / original_context)).
  double query_growth = 0.0;
};

// A linear layer that an embedding model puts behind its pooling (sentence-transformers' Dense).
struct DenseLayer {
  std::string folder;  // of the model's directory, whose model.safetensors holds it as "linear"; "": in the main files
  int64_t inputs = 0;
  int64_t outputs = 0;
  bool tanh = false;  // of every output
};

// Feed-forward layers made of many small networks, of which every token uses a few.
struct ExpertsConfig {
  int64_t count = 0;                     // in a layer; 0: the model has none
  int64_t active = 0;                    // used by a token, 1..count
  int64_t intermediate_size = 0;         // of one expert
  int64_t shared_intermediate_size = 0;  // of the one that every token uses besides; 0: none
  backend::Routing routing = backend::Routing::kSoftmaxOfChosen;
  float limit = 0.0f;              // backend::ExpertLayer::limit
  std::vector<bool> dense_layers;  // layers that have one ordinary network instead; empty: none
};

struct ModelConfig {
  std::string architecture;  // table key: "llama", "bert", ...
  std::string name;          // for people: directory or general.name
  std::string quantization;  // for people: "Q4_1", "affine 4-bit group 64", "f32", ...

  int64_t hidden_size = 0;
  int64_t intermediate_size = 0;
  int64_t layers = 0;
  int64_t heads = 0;
  int64_t kv_heads = 0;
  int64_t head_dim = 0;
  int64_t vocab_size = 0;   // rows of the embedding
  int64_t context_max = 0;  // positions the model was made for
  float norm_eps = 1e-5f;
  bool tied_embeddings = false;
  bool lacks_head = false;  // neither tied nor in the files: embedders may leave the output layer out
  bool attention_bias = false;
  bool mlp_bias = false;
  backend::Activation activation = backend::Activation::kSilu;
  RopeConfig rope;
  std::optional<RopeConfig> sliding_rope;  // of sliding layers where they rotate in another way
  float norm_offset = 0.0f;                // added to the weight of every RMS norm: Gemma's files hold w - 1
  float embedding_scale = 1.0f;
  float attention_scale = 0.0f;      // of q . k; 0: head_dim^-1/2
  float attention_softcap = 0.0f;    // 0: none
  float logit_softcap = 0.0f;        // 0: none
  int64_t sliding_window = 0;        // 0: none; of bidirectional models the distance seen to either side
  std::vector<bool> sliding_layers;  // empty: all layers slide if sliding_window > 0
  std::vector<bool> nope_layers;     // layers that skip rope; empty: none
  ExpertsConfig experts;

  // Embedding models.
  bool is_encoder = false;    // bidirectional, no KV cache
  bool is_embedding = false;  // serves embed requests (encoders; decoders with a pooling recipe)
  backend::Pooling pooling = backend::Pooling::kMean;
  bool normalize = true;
  int64_t embed_context_max = 0;  // tokens after which the model's makers truncate a text; 0: they do not say
  int64_t type_vocab_size = 0;    // BERT token types
  int64_t position_offset = 0;    // RoBERTa: first position is pad_id + 1
  std::vector<DenseLayer> dense;  // after pooling, in order
  int32_t closing_id = -1;        // token that ends every text to embed; -1: whatever the tokenizer puts there
  // What the makers put in front of texts, by name ("query", "document"), and the name of the one that is always put.
  std::map<std::string, std::string> prompts;
  std::string default_prompt;
  std::string recipe_source;  // for people, of embedders: where pooling and normalization come from

  bool has_experts(int64_t layer) const {
    return experts.count > 0 && (experts.dense_layers.empty() || !experts.dense_layers[static_cast<size_t>(layer)]);
  }
  bool can_generate() const { return !is_encoder && !(lacks_head && is_embedding); }
  int64_t embedding_size() const { return dense.empty() ? hidden_size : dense.back().outputs; }
};

// "mean", "cls", "last" or "max".
inline const char* PoolingName(backend::Pooling pooling) {
  switch (pooling) {
    case backend::Pooling::kMean: return "mean";
    case backend::Pooling::kCls: return "cls";
    case backend::Pooling::kLast: return "last";
    case backend::Pooling::kMax: return "max";
  }
  return "";
}

}  // namespace pensieve::model
