#include "model/loader.h"

#include <fmt/format.h>

#include <algorithm>
#include <cctype>
#include <filesystem>
#include <variant>

#include "base/system_memory.h"
#include "model/architectures.h"
#include "model/config_gguf.h"
#include "model/config_hf.h"
#include "model/decoder.h"
#include "model/embedding_recipe.h"
#include "model/model_files.h"
#include "model/quantizing_source.h"
#include "model/text_loader.h"
#include "model/weight_source.h"
#include "model/weight_store.h"

namespace pensieve::model {
namespace {

namespace fs = std::filesystem;

// A model found on disk: its files opened and checked, its configuration read; nothing large allocated.
struct OpenedModel {
  std::shared_ptr<WeightStore> store;
  HfModel hf;             // of directories; of GGUF files only `config` is set
  std::string directory;  // of directories
  WeightCensus census;
  std::string format;
  std::optional<formats::AffineFormat> quantize;  // only when there is something to quantize
};

Result<OpenedModel> OpenGguf(const std::string& path) {
  OpenedModel opened;
  PENSIEVE_TRY(formats::GgufFile file, formats::GgufFile::Open(path));
  PENSIEVE_RETURN_IF_ERROR(CheckIsModel(file));
  PENSIEVE_TRY(opened.hf.config, ReadGgufConfig(file));
  opened.census = CountGguf(file);
  opened.format = fmt::format("gguf v{}", file.version());
  opened.store = std::make_shared<WeightStore>(std::move(file));
  return opened;
}

// The layers behind the pooling: in folders of their own (sentence-transformers) or in the main files (MLX).
Status FindDense(const std::string& directory, formats::SafetensorsSet& files, HfModel& hf) {
  for (size_t i = 0; i < hf.config.dense.size(); ++i) {
    const fs::path folder = fs::path(directory) / hf.config.dense[i].folder;
    std::error_code ignored;
    if (!fs::exists(folder / "model.safetensors", ignored)) continue;
    PENSIEVE_TRY(auto own, formats::SafetensorsSet::OpenFile((folder / "model.safetensors").string()));
    PENSIEVE_RETURN_IF_ERROR(files.Include(std::move(own), fmt::format("dense.{}.", i)));
  }
  if (!hf.config.is_encoder || hf.config.architecture != "gemma3" || hf.has_modules) return OkStatus();
  if (files.Find("dense.0.weight") == nullptr) {
    return Unimplemented(
        fmt::format("{}: use_bidirectional_attention asks for EmbeddingGemma, but there are neither modules.json nor "
                    "tensors \"dense.0.weight\" and \"dense.1.weight\" to say what follows the pooling",
                    directory));
  }
  const int64_t width = hf.config.hidden_size;
  hf.config.recipe_source = "the rule of EmbeddingGemma";
  hf.config.dense = {{"", width, 4 * width}, {"", 4 * width, width}};
  return OkStatus();
}

// All weights of the directory; of one whose index or usual names do not include the file that was asked for, that one.
Result<formats::SafetensorsSet> OpenSafetensors(const ModelPlace& place) {
  if (place.safetensors.empty()) return formats::SafetensorsSet::OpenDirectory(place.directory);
  auto all = formats::SafetensorsSet::OpenDirectory(place.directory);
  std::error_code ignored;
  const auto is_wanted = [&](const MappedFile& file) {
    return fs::equivalent(file.path(), place.safetensors, ignored);
  };
  if (all && std::any_of(all->files().begin(), all->files().end(), is_wanted)) return all;
  return formats::SafetensorsSet::OpenFile(place.safetensors);
}

// Whether the output layer is the embedding. A file that says so may hold an output layer of its own all the same: it
// counts where it differs.
void SettleHead(const formats::SafetensorsSet& files, const std::string& directory, HfModel& hf) {
  const bool has_head = HasSafetensor(files, "lm_head.weight");
  ModelConfig& config = hf.config;
  config.tied_embeddings = hf.tied.value_or(!has_head);
  config.lacks_head = !has_head && !config.tied_embeddings;
  if (!has_head || !config.tied_embeddings || HaveEqualWeights(files, "lm_head", "model.embed_tokens")) return;
  config.tied_embeddings = false;
  hf.warnings.push_back(
      fmt::format("{}: tie_word_embeddings is true, but the files hold an output layer (lm_head) that "
                  "differs from the embedding; it is used",
                  (fs::path(directory) / "config.json").string()));
}

Result<OpenedModel> OpenDirectory(const ModelPlace& place) {
  OpenedModel opened;
  const std::string& directory = opened.directory = place.directory;
  PENSIEVE_TRY(opened.hf, ReadHfModel(directory));
  PENSIEVE_TRY(formats::SafetensorsSet files, OpenSafetensors(place));
  PENSIEVE_RETURN_IF_ERROR(FindDense(directory, files, opened.hf));
  SettleHead(files, directory, opened.hf);
  opened.census = CountSafetensors(files, opened.hf.quantization);
  opened.format = opened.hf.quantization.global ? fmt::format("safetensors (MLX {})", opened.hf.config.quantization)
                                                : "safetensors";
  opened.store = std::make_shared<WeightStore>(std::move(files));
  return opened;
}

Result<OpenedModel> OpenModel(const std::string& path, const std::optional<formats::AffineFormat>& quantize) {
  PENSIEVE_TRY(const ModelPlace place, FindModelFiles(path));
  PENSIEVE_TRY(OpenedModel opened, place.is_gguf() ? OpenGguf(place.gguf) : OpenDirectory(place));
  if (!quantize || opened.hf.quantization.global) return opened;
  if (CountQuantizedAtLoad(*opened.store, *quantize, opened.census)) {
    opened.quantize = quantize;
    opened.hf.config.quantization =
        fmt::format("affine {}-bit group {}, from {}", quantize->bits, quantize->group, opened.hf.config.quantization);
  }
  return opened;
}

Result<ModelText> ReadText(const OpenedModel& opened, const std::string& template_file) {
  return opened.store->gguf() != nullptr ? ReadGgufText(*opened.store->gguf(), template_file)
                                         : ReadHfText(opened.directory, opened.hf, template_file);
}

// A tokenizer that gives ids without a row in the embedding would crash the first prompt that uses them.
Status CheckVocabulary(const std::string& path, const ModelConfig& config, const ModelText& text) {
  const int64_t ids = text.tokenizer->vocab_size();
  if (ids > config.vocab_size) {
    return DataLoss(
        fmt::format("{}: the tokenizer has ids up to {}, but the model's vocab_size is {}; the tokenizer of "
                    "another model?",
                    path, ids - 1, config.vocab_size));
  }
  for (const int32_t id : text.stop_ids) {
    if (id < 0 || id >= config.vocab_size) {
      return DataLoss(
          fmt::format("{}: eos_token_id {} is outside the model's vocab_size {}", path, id, config.vocab_size));
    }
  }
  return OkStatus();
}

bool Mentions(std::string name, std::string_view word) {
  std::transform(name.begin(), name.end(), name.begin(), [](unsigned char c) { return std::tolower(c); });
  return name.find(word) != std::string::npos;
}

// Decoders that embed although nothing says how: conversions of Qwen3-Embedding lose their modules.json. Their name is
// left, or a tokenizer that closes every text, which no generator's does. `wanted`: the user says so.
void RecognizeEmbedder(const OpenedModel& opened, const ModelText& text, bool wanted, ModelConfig& config) {
  const bool is_qwen = config.architecture == "qwen3";
  if (!config.is_embedding) {
    const bool recognized = is_qwen && !Mentions(config.name, "rerank") &&
                            (Mentions(config.name, "embed") || text.tokenizer->special().add_eos);
    if (!recognized && !wanted) return;
    config.is_embedding = true;
    config.pooling = backend::Pooling::kLast;
    config.normalize = true;
    config.recipe_source = recognized ? "the rule of Qwen3-Embedding" : "the last token of a decoder, as was asked for";
  }
  // The first uploads' tokenizers did not add the token that the vector is taken from.
  if (!is_qwen || config.pooling != backend::Pooling::kLast || !text.tokenizer->Encode("").empty()) return;
  if (!opened.hf.eos_ids.empty()) {
    config.closing_id = static_cast<int32_t>(opened.hf.eos_ids.front());
  } else if (const auto& eos = text.tokenizer->special().eos) {
    config.closing_id = eos->id;
  }
}

const std::vector<MappedFile>& Files(const WeightStore& store) {
  return store.gguf() != nullptr ? store.gguf()->files() : store.safetensors()->files();
}

// All that was noticed while loading: of the configuration and of the tokenizer.
std::vector<std::string> Warnings(const OpenedModel& opened, const ModelText& text) {
  std::vector<std::string> warnings = opened.hf.warnings;
  const std::string path = opened.store->gguf() != nullptr ? Files(*opened.store).front().path() : opened.directory;
  for (const std::string& warning : text.tokenizer->warnings())
    warnings.push_back(fmt::format("{}: {}", path, warning));
  return warnings;
}

// How many rows a step of the network may have, and how many of them may want logits.
struct StepSize {
  int64_t rows_max;
  int64_t outputs_max;
};

Status CheckMemory(const std::string& path, const OpenedModel& opened, int64_t available, const StepSize& size) {
  const int64_t needed =
      opened.census.weight_bytes + ActivationBytes(opened.hf.config, size.rows_max, size.outputs_max);
  if (available == 0 || needed <= available) return OkStatus();
  return ResourceExhausted(fmt::format("{}: the model needs {} of memory, but only {} are available", path,
                                       FormatBytes(needed), FormatBytes(available)));
}

std::unique_ptr<WeightSource> NewFileSource(const OpenedModel& opened) {
  if (opened.store->gguf() == nullptr) return NewSafetensorsSource(*opened.store, opened.hf.quantization);
  const ModelConfig& config = opened.hf.config;
  const Architecture& architecture = *FindArchitecture(config.architecture);
  return NewGgufSource(*opened.store, {.names = architecture.gguf_names,
                                       .rotary_rows_permuted = architecture.rotary_rows_permuted,
                                       .heads = config.heads,
                                       .kv_heads = config.kv_heads});
}

std::unique_ptr<WeightSource> NewSource(const OpenedModel& opened) {
  auto source = NewFileSource(opened);
  return opened.quantize ? NewQuantizingSource(std::move(source), *opened.store, *opened.quantize) : std::move(source);
}

}  // namespace

Result<ModelHeader> ReadHeader(const std::string& path, const std::optional<formats::AffineFormat>& quantize) {
  PENSIEVE_TRY(const OpenedModel opened, OpenModel(path, quantize));
  ModelHeader header;
  header.config = opened.hf.config;
  PENSIEVE_TRY(header.text, ReadText(opened, ""));
  PENSIEVE_RETURN_IF_ERROR(CheckVocabulary(path, header.config, header.text));
  RecognizeEmbedder(opened, header.text, /*wanted=*/false, header.config);
  header.warnings = Warnings(opened, header.text);
  ApplyFamilyRule(header.config, header.warnings);
  header.fingerprint = opened.store->Fingerprint();
  header.weight_bytes = opened.census.weight_bytes;
  header.parameters = opened.census.parameters;
  header.format = opened.format;
  for (const MappedFile& file : Files(*opened.store)) header.files.push_back(file.path());
  for (const auto& [type, count] : opened.census.types) header.types.push_back({type, count.first, count.second});
  std::sort(header.types.begin(), header.types.end(), [](const auto& a, const auto& b) { return a.bytes > b.bytes; });
  return header;
}

Status LoadedModel::CheckWeights(bool quick) const { return weights ? weights->Check(quick) : OkStatus(); }

std::string CanonicalPath(const std::string& path) {
  const auto place = FindModelFiles(path);
  std::error_code error;
  std::string found = path;
  if (place.has_value()) {
    // One of several weight files of a directory is a model of its own.
    const bool part = !place->safetensors.empty() && fs::path(place->safetensors).filename() != "model.safetensors";
    found = place->is_gguf() ? place->gguf : part ? place->safetensors : place->directory;
  }
  const auto canonical = fs::canonical(found, error);
  return error ? found : canonical.string();
}

Result<std::unique_ptr<LoadedModel>> Load(const std::string& path, const LoadOptions& options) {
  PENSIEVE_TRY(OpenedModel opened, OpenModel(path, options.quantize));
  ModelConfig& config = opened.hf.config;
  config.rope.longrope = options.longrope;
  const int64_t context_max =
      options.context_max > 0 ? std::min(options.context_max, config.context_max) : config.context_max;
  // An encoder's text runs in one pass.
  const int64_t rows_max = std::max<int64_t>({options.rows_max, config.is_encoder ? context_max : 0, 1});
  const StepSize size = {rows_max, options.outputs_max > 0 ? std::min(options.outputs_max, rows_max) : rows_max};

  auto loaded = std::make_unique<LoadedModel>();
  loaded->path = path;
  loaded->device = options.device;
  if (loaded->device == nullptr) { PENSIEVE_TRY(loaded->device, backend::NewCpuDevice({})); }
  const int64_t available = options.memory_bytes_max > 0 ? options.memory_bytes_max : loaded->device->AvailableBytes();
  PENSIEVE_RETURN_IF_ERROR(CheckMemory(path, opened, available, size));
  PENSIEVE_TRY(loaded->text, ReadText(opened, options.chat_template_file));
  PENSIEVE_RETURN_IF_ERROR(CheckVocabulary(path, config, loaded->text));
  RecognizeEmbedder(opened, loaded->text, options.embeds, config);
  loaded->warnings = Warnings(opened, loaded->text);
  ApplyFamilyRule(config, loaded->warnings);
  loaded->config = config;
  loaded->fingerprint = opened.store->Fingerprint();
  loaded->weights = opened.store;
  PENSIEVE_TRY(loaded->backend, loaded->device->NewBackend(options.compute));
  for (const MappedFile& file : Files(*opened.store)) file.AdviseWillNeed();
  const std::unique_ptr<WeightSource> source = NewSource(opened);
  auto network = FindArchitecture(config.architecture)
                     ->create({.config = config,
                               .weights = *source,
                               .backend = *loaded->backend,
                               .rows_max = size.rows_max,
                               .outputs_max = size.outputs_max,
                               .context_max = context_max});
  if (!network) {
    const Status& error = network.error();
    const bool names_a_file = error.message().find(path) != std::string::npos;
    return names_a_file ? error : error.WithContext(path);
  }
  loaded->network = *std::move(network);
  loaded->weight_bytes = opened.census.weight_bytes;
  PENSIEVE_RETURN_IF_ERROR(loaded->CheckWeights(/*quick=*/false));
  return loaded;
}

}  // namespace pensieve::model
