// From a path (GGUF file, MLX or Hugging Face directory) to everything a model needs to be served.
//
// All checks come first: an unknown architecture, a missing key, tensors that do not fit their shapes or a model larger
// than memory are one clear Status naming file and field, before anything large is allocated.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "backend/backend.h"
#include "base/json.h"
#include "base/status.h"
#include "formats/affine_quantize.h"
#include "model/config.h"
#include "model/model.h"
#include "tokenizer/tokenizer.h"

namespace pensieve::model {

// Sampling defaults that the model's makers recommend (generation_config.json).
struct GenerationDefaults {
  std::optional<float> temperature;
  std::optional<float> top_p;
  std::optional<int32_t> top_k;
  std::optional<float> min_p;
  std::optional<float> repetition_penalty;
};

// Text-side facts of a model: cheap to load, no weights.
struct ModelText {
  std::unique_ptr<tokenizer::Tokenizer> tokenizer;
  std::string chat_template;      // "" when the model has none
  std::string tool_template;      // the "tool_use" variant when there is one
  std::vector<int32_t> stop_ids;  // end-of-generation ids of config, generation_config and tokenizer together
  GenerationDefaults defaults;
};

// Keeps mapped files and repacked buffers alive for the network's weights. Opaque.
class WeightStore;

struct LoadedModel {
  // DataLoss when a file of the weights was truncated or could not be read: what was computed since may be wrong.
  // `quick` as of MappedFile::Check. Thread-safe.
  Status CheckWeights(bool quick) const;

  std::string path;
  int64_t weight_bytes = 0;  // of all tensors as kernels read them, mapped or converted
  ModelConfig config;
  ModelText text;
  std::vector<std::string> warnings;  // sentences for people about what was guessed or ignored; usually none
  std::string fingerprint;            // of the weights, 16 hexadecimal digits: other weights have another one
  // Declared in this order so that destruction runs backwards: network, backend, device, then the weights' memory.
  std::shared_ptr<const WeightStore> weights;
  std::shared_ptr<backend::Device> device;
  std::unique_ptr<backend::Backend> backend;
  std::unique_ptr<Model> network;
};

struct LoadOptions {
  std::shared_ptr<backend::Device> device;  // shared by the models of a process; null: a CPU device of its own
  backend::BackendOptions compute;
  int64_t rows_max = 512;   // rows of one forward pass
  int64_t outputs_max = 0;  // of them, rows whose logits may be wanted; 0: all
  int64_t context_max = 0;  // 0: the model's own
  LongropeChoice longrope = LongropeChoice::kAuto;
  bool embeds = false;             // a decoder whose files do not say so is to embed too (last token, normalized)
  std::string chat_template_file;  // overrides the model's
  // Float matrices are quantized while loading; nothing: they stay as they are. Quantized MLX models are left alone.
  std::optional<formats::AffineFormat> quantize;
  int64_t memory_bytes_max = 0;  // weights and activations may take this much; 0: what the device has available
};

// Only the tokenizer: of a GGUF file, of a model directory, or a tokenizer.json by itself (with the tokenizer_config.json
// and config.json beside it, when there are any).
Result<std::unique_ptr<tokenizer::Tokenizer>> ReadTokenizer(const std::string& path);

// Reads config, tokenizer and template only. Sizes are those that Load has with the same `quantize`.
struct ModelHeader {
  ModelConfig config;
  ModelText text;
  std::vector<std::string> warnings;  // as LoadedModel's
  std::string fingerprint;
  int64_t weight_bytes = 0;  // of all tensors as kernels will read them
  int64_t parameters = 0;
  std::vector<std::string> files;
  std::string format;  // "gguf v3", "safetensors (MLX affine)", "safetensors"
  // (tensor type, number of tensors, bytes), for `inspect`.
  struct TypeCount {
    std::string type;
    int64_t tensors = 0;
    int64_t bytes = 0;
  };
  std::vector<TypeCount> types;
};
Result<ModelHeader> ReadHeader(const std::string& path,
                               const std::optional<formats::AffineFormat>& quantize = std::nullopt);

// One text for all paths that lead to the same model: links resolved, a folder's only GGUF file and a safetensors file's
// directory in its place. `path` itself where there is nothing.
std::string CanonicalPath(const std::string& path);

// DataLoss also when a file shrinks while it is read.
Result<std::unique_ptr<LoadedModel>> Load(const std::string& path, const LoadOptions& options);

// Names of the architectures in the table, for error messages and `inspect`.
std::vector<std::string> KnownArchitectures();

}  // namespace pensieve::model
