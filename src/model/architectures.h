// The table of architectures. A new one is a source file with a factory and a row here.
#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "backend/backend.h"
#include "formats/config_fields.h"
#include "formats/gguf.h"
#include "model/config.h"
#include "model/model.h"
#include "model/weight_source.h"

namespace pensieve::model {

// What a factory builds a network from. `config` is copied; `weights` is only read during construction; `backend` must
// outlive the network.
struct NetworkInputs {
  const ModelConfig& config;
  WeightSource& weights;
  backend::Backend& backend;
  int64_t rows_max = 0;
  int64_t outputs_max = 0;  // of them, rows whose logits may be wanted
  int64_t context_max = 0;
};

struct Architecture {
  std::string name;
  std::vector<std::string_view> hf_types = {};    // values of config.json's model_type
  std::vector<std::string_view> gguf_types = {};  // values of general.architecture
  // JSON object: by model_type ("*": all), values of keys that config.json may leave out, as transformers has them.
  const char* hf_defaults = "{}";
  // Keys of config.json that have other names in some files: (name in the file, usual name).
  std::vector<std::pair<std::string_view, std::string_view>> hf_renames = {};
  bool is_encoder = false;
  bool rotary_rows_permuted = false;         // in GGUF files: see GgufSourceOptions
  bool reads_partial_rotary_factor = false;  // config.json's; the references of all others ignore it
  std::vector<NamePair> gguf_names = {};
  Result<std::unique_ptr<Model>> (*create)(const NetworkInputs& inputs) = nullptr;
  // Defaults and keys of its own, after the common ones were read; may be null.
  void (*adjust_hf)(std::string_view type, formats::ConfigFields& fields, ModelConfig& config) = nullptr;
  void (*adjust_gguf)(std::string_view type, formats::GgufFields& fields, ModelConfig& config) = nullptr;
};

const std::vector<Architecture>& Architectures();
// Null when the table has no such name.
const Architecture* FindHfArchitecture(std::string_view model_type);
const Architecture* FindGgufArchitecture(std::string_view name);
const Architecture* FindArchitecture(std::string_view name);

// "config.json: field "model_type" names the architecture "x", which is not supported (supported: bert, llama, ...)".
Status UnknownArchitecture(const std::string& path, std::string_view field, std::string_view name);

// --- factories, one file each
// ---------------------------------------------------------------------------------------------
Result<std::unique_ptr<Model>> NewLlama(const NetworkInputs& inputs);
Result<std::unique_ptr<Model>> NewQwen2(const NetworkInputs& inputs);
Result<std::unique_ptr<Model>> NewQwen3(const NetworkInputs& inputs);
Result<std::unique_ptr<Model>> NewPhi3(const NetworkInputs& inputs);
Result<std::unique_ptr<Model>> NewQwen3Moe(const NetworkInputs& inputs);
Result<std::unique_ptr<Model>> NewQwen2Moe(const NetworkInputs& inputs);
Result<std::unique_ptr<Model>> NewMixtral(const NetworkInputs& inputs);
Result<std::unique_ptr<Model>> NewGptOss(const NetworkInputs& inputs);
Result<std::unique_ptr<Model>> NewGemma2(const NetworkInputs& inputs);
Result<std::unique_ptr<Model>> NewGemma3(const NetworkInputs& inputs);
Result<std::unique_ptr<Model>> NewBert(const NetworkInputs& inputs);
Result<std::unique_ptr<Model>> NewNomicBert(const NetworkInputs& inputs);
Result<std::unique_ptr<Model>> NewModernBert(const NetworkInputs& inputs);

void AdjustLlamaHf(std::string_view type, formats::ConfigFields& fields, ModelConfig& config);
void AdjustLlamaGguf(std::string_view type, formats::GgufFields& fields, ModelConfig& config);
void AdjustQwenMoeHf(std::string_view type, formats::ConfigFields& fields, ModelConfig& config);
void AdjustQwenMoeGguf(std::string_view type, formats::GgufFields& fields, ModelConfig& config);
void AdjustMixtralHf(std::string_view type, formats::ConfigFields& fields, ModelConfig& config);
void AdjustGptOssHf(std::string_view type, formats::ConfigFields& fields, ModelConfig& config);
void AdjustGptOssGguf(std::string_view type, formats::GgufFields& fields, ModelConfig& config);
void AdjustGemmaHf(std::string_view type, formats::ConfigFields& fields, ModelConfig& config);
void AdjustGemmaGguf(std::string_view type, formats::GgufFields& fields, ModelConfig& config);
void AdjustNomicHf(std::string_view type, formats::ConfigFields& fields, ModelConfig& config);
void AdjustModernHf(std::string_view type, formats::ConfigFields& fields, ModelConfig& config);
void AdjustPhi3Hf(std::string_view type, formats::ConfigFields& fields, ModelConfig& config);

}  // namespace pensieve::model
