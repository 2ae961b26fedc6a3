// How an architecture asks for its weights: by their Hugging Face names, whatever the file format.
//
// Names are full ("model.layers.3.self_attn.q_proj", without ".weight"); a source knows how its files spell them.
// Every shape is checked against what the architecture expects. Errors name the file and the tensor.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "base/status.h"
#include "model/config.h"
#include "model/weight_store.h"
#include "tensor/weight.h"

namespace pensieve::model {

class WeightSource {
 public:
  virtual ~WeightSource() = default;

  // Whether the module has a weight, in whatever form.
  virtual bool HasModule(const std::string& module) const = 0;
  // The module's weight [rows, cols] (a linear layer's or an embedding's).
  virtual Result<tensor::Weight> Matrix(const std::string& module, int64_t rows, int64_t cols) = 0;
  // `count` matrices [rows, cols] that the module holds behind one another (experts): one weight [count * rows, cols].
  virtual Result<tensor::Weight> Stack(const std::string& module, int64_t count, int64_t rows, int64_t cols) = 0;
  // `module`.`kind` of `length` floats, kind "weight" or "bias": a norm's weight, an additive bias.
  virtual Result<std::vector<float>> Vector(const std::string& module, std::string_view kind, int64_t length) = 0;
  // As Vector; empty when the file has no such tensor.
  virtual Result<std::vector<float>> OptionalVector(const std::string& module, std::string_view kind,
                                                    int64_t length) = 0;
  // The biases of a Stack, [count * rows]; empty when the file has none.
  virtual Result<std::vector<float>> OptionalStackBias(const std::string& module, int64_t count, int64_t rows) = 0;
};

// --- Hugging Face and MLX directories
// -----------------------------------------------------------------------------------

enum class QuantizationMode : uint8_t { kAffine, kMxfp4 };

struct QuantizationParams {
  QuantizationMode mode = QuantizationMode::kAffine;
  int bits = 4;
  int group = 64;
};

// config.json's "quantization": parameters for all modules that have scales, and exceptions by module.
struct QuantizationConfig {
  std::optional<QuantizationParams> global;
  // By ModuleKey. No value: the module is dense.
  std::map<std::string, std::optional<QuantizationParams>, std::less<>> modules;
};

// What all spellings of a module have in common: "layers.0.mlp" of "model.layers.0.mlp", of
// "model.language_model.layers.0.mlp" and others. Files need not spell their tensors as config.json does.
std::string ModuleKey(std::string_view module);

// `store` must outlive the source and holds safetensors. Accepts names with a "language_model." prefix, without
// "model.", and with or without "bert." or "roberta.".
std::unique_ptr<WeightSource> NewSafetensorsSource(WeightStore& store, QuantizationConfig quantization);

// Whether the set has a tensor of this name, under any of the spellings that the source accepts.
bool HasSafetensor(const formats::SafetensorsSet& files, const std::string& name);
// Whether two modules hold the same bytes: weights, and scales and biases of quantized ones. Reads both.
bool HaveEqualWeights(const formats::SafetensorsSet& files, const std::string& module, const std::string& other);

// How the weights of a safetensors set are held, for `inspect`.
struct WeightCensus {
  std::map<std::string, std::pair<int64_t, int64_t>> types;  // name of the type -> (tensors, bytes)
  int64_t weight_bytes = 0;                                  // as kernels will read them
  int64_t parameters = 0;
};
WeightCensus CountSafetensors(const formats::SafetensorsSet& files, const QuantizationConfig& quantization);

// --- GGUF
// -----------------------------------------------------------------------------------------------------------------

// Hugging Face module name -> GGUF name; a '*' stands for the number of a layer, a second one for that of an expert.
struct NamePair {
  std::string_view hf;
  std::string_view gguf;
};

struct GgufSourceOptions {
  std::vector<NamePair> names;
  // The file's q and k rows stand in the order of interleaved rotary pairs (converters of the Llama family do that):
  // they are put back into the order of the original model.
  bool rotary_rows_permuted = false;
  int64_t heads = 0;
  int64_t kv_heads = 0;
};

// `store` must outlive the source and holds a GGUF file.
std::unique_ptr<WeightSource> NewGgufSource(WeightStore& store, GgufSourceOptions options);
WeightCensus CountGguf(const formats::GgufFile& file);

// The GGUF name of a module, e.g. "blk.3.attn_q"; empty when `names` has no row for it.
std::string GgufName(const std::vector<NamePair>& names, const std::string& module);

}  // namespace pensieve::model
