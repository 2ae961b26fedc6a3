#include "model/model_files.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cctype>
#include <filesystem>
#include <optional>
#include <vector>

#include "base/mapped_file.h"
#include "formats/config_fields.h"
#include "formats/printable.h"

namespace pensieve::model {
namespace {

namespace fs = std::filesystem;
using formats::Printable;

constexpr size_t kJsonBytesMax = 4 << 20;
constexpr size_t kEntriesMax = 100'000;  // of a directory; models have a few hundred at most
constexpr std::string_view kTakeOthers =
    "only safetensors and GGUF weights are read: download or convert to one of them";

std::string Lower(std::string text) {
  std::transform(text.begin(), text.end(), text.begin(), [](unsigned char c) { return std::tolower(c); });
  return text;
}

std::vector<std::string> FileNames(const fs::path& directory) {
  std::vector<std::string> names;
  std::error_code ignored;
  for (fs::directory_iterator it(directory, ignored), end; it != end && names.size() < kEntriesMax;
       it.increment(ignored)) {
    names.push_back(it->path().filename().string());
  }
  std::sort(names.begin(), names.end());
  return names;
}

// The names in a directory, and questions about them.
class Listing {
 public:
  explicit Listing(const fs::path& directory) : directory_(directory), names_(FileNames(directory)) {}

  bool Has(std::string_view name) const { return std::binary_search(names_.begin(), names_.end(), name); }
  // The first name with this beginning and this end, or "".
  std::string Find(std::string_view begin, std::string_view end) const {
    const auto fits = [&](const std::string& name) {
      const std::string lower = Lower(name);
      return lower.starts_with(begin) && lower.ends_with(end);
    };
    const auto it = std::find_if(names_.begin(), names_.end(), fits);
    return it == names_.end() ? "" : *it;
  }
  std::string Path(const std::string& name) const { return (directory_ / name).string(); }
  std::string directory() const { return directory_.string(); }
  const std::vector<std::string>& names() const { return names_; }

 private:
  const fs::path directory_;
  const std::vector<std::string> names_;
};

bool HasSafetensorsModel(const Listing& files) {
  return !files.Find("model", ".safetensors").empty() || !files.Find("weights", ".safetensors").empty() ||
         files.Has("model.safetensors.index.json");
}

// --- GGUF
// -----------------------------------------------------------------------------------------------------------------

std::string Text(const formats::GgufFile& file, std::string_view key) {
  const auto* value = file.FindValue(key);
  const auto* text = value == nullptr ? nullptr : std::get_if<std::string_view>(value);
  return text == nullptr ? "" : std::string(*text);
}

// What a file is if it is no model, and what to do; nothing for models.
std::optional<std::string> OtherThanModel(const formats::GgufFile& file) {
  const std::string type = Text(file, "general.type"), architecture = Text(file, "general.architecture");
  if (type == "mmproj" || type == "clip-vision" || architecture == "clip") {
    return "is the image part (mmproj) of a multimodal model; give the GGUF file of the language model beside it";
  }
  if (type == "adapter" || architecture == "adapter") {
    return "is a LoRA adapter, not a model by itself; merge it into its base model and give the merged model";
  }
  if (type == "imatrix" || architecture == "imatrix") return "is an importance matrix for quantizing, not a model";
  return std::nullopt;
}

bool IsLaterPart(const std::string& lower_name) {
  return lower_name.find("-of-") != std::string::npos && lower_name.find("-00001-of-") == std::string::npos;
}

// The one GGUF model among `names`; nothing when there is no GGUF file at all.
Result<std::optional<std::string>> ChooseGguf(const Listing& files) {
  std::vector<std::string> found, later_parts;
  for (const std::string& name : files.names()) {
    const std::string lower = Lower(name);
    if (lower.ends_with(".gguf")) (IsLaterPart(lower) ? later_parts : found).push_back(name);
  }
  if (found.empty() && later_parts.empty()) return std::optional<std::string>();
  if (found.empty()) {
    return NotFound(fmt::format("{}: the first part of the model is not there, only {}; download all parts",
                                files.directory(), Printable(later_parts.front(), 200)));
  }
  if (found.size() == 1) return std::optional(files.Path(found.front()));
  std::vector<std::string> models;
  for (const std::string& name : found) {
    if (Lower(name).find("mmproj") != std::string::npos) continue;
    const auto file = formats::GgufFile::Open(files.Path(name));
    if (!file || !OtherThanModel(*file))
      models.push_back(name);  // one that cannot be read is reported when it is opened
  }
  if (models.size() == 1) return std::optional(files.Path(models.front()));
  if (models.empty()) return std::optional(files.Path(found.front()));
  constexpr size_t kShown = 6;
  std::string list;
  for (size_t i = 0; i < std::min(models.size(), kShown); ++i) list += (i > 0 ? ", " : "") + Printable(models[i], 120);
  return InvalidArgument(fmt::format("{}: holds {} .gguf files; name one of them ({}{})", files.directory(),
                                     models.size(), list, models.size() > kShown ? ", ..." : ""));
}

// --- what is no model
// -----------------------------------------------------------------------------------------------------

Status ExplainAdapter(const Listing& files) {
  std::string base;
  if (const auto json = formats::ReadJsonObject(files.Path("adapter_config.json"), kJsonBytesMax)) {
    for (const char* key : {"base_model_name_or_path", "model"}) {  // peft's key, mlx-lm's key
      const auto it = json->find(key);
      if (base.empty() && it != json->end() && it->is_string()) base = Printable(it->get<std::string>(), 120);
    }
  }
  return Unimplemented(
      fmt::format("{}: is a LoRA adapter{}, not a model by itself; merge it into its base model (peft's "
                  "merge_and_unload, mlx_lm.fuse) and give the merged model",
                  files.directory(), base.empty() ? "" : fmt::format(" of \"{}\"", base)));
}

struct OtherWeights {
  std::string_view begin, end;
  std::string_view what;
};

// Weights of a directory that are not read.
constexpr std::array kOtherWeights = std::to_array<OtherWeights>({
    {"pytorch_model", ".bin", "PyTorch weights"},
    {"consolidated", ".pth", "PyTorch weights"},
    {"model", ".bin", "weights in a .bin file"},
    {"tf_model", ".h5", "TensorFlow weights"},
    {"flax_model", ".msgpack", "Flax weights"},
    {"", ".onnx", "an ONNX model"},
    {"", ".npz", "weights in NumPy's format"},
    {"", ".pt", "PyTorch weights"},
    {"", ".pth", "PyTorch weights"},
    {"", ".ckpt", "PyTorch weights"},
    {"", ".bin", "weights in a .bin file"},
});

Status ExplainWeights(const Listing& files) {
  const std::string directory = files.directory();
  if (const std::string name = files.Find("consolidated", ".safetensors"); !name.empty()) {
    return Unimplemented(
        fmt::format("{}: holds Mistral's own format ({}), which is not read; download the same "
                    "repository's config.json, tokenizer.json and model*.safetensors",
                    directory, Printable(name)));
  }
  for (const OtherWeights& other : kOtherWeights) {
    const std::string name = files.Find(other.begin, other.end);
    if (name.empty()) continue;
    return Unimplemented(fmt::format("{}: no model*.safetensors in this directory, only {} ({}); {}", directory,
                                     other.what, Printable(name), kTakeOthers));
  }
  if (const std::string name = files.Find("", ".safetensors"); !name.empty()) {
    return NotFound(
        fmt::format("{}: no model*.safetensors in this directory; if {} is the model's weights, name that file",
                    directory, Printable(name)));
  }
  return NotFound(
      fmt::format("{}: no model*.safetensors in this directory; the weights are missing, download them", directory));
}

Status ExplainDirectory(const Listing& files) {
  const std::string directory = files.directory();
  if (files.Has("adapter_config.json") && !HasSafetensorsModel(files)) return ExplainAdapter(files);
  if (files.Has("config.json")) return ExplainWeights(files);
  if (files.Has("model_index.json")) {
    return Unimplemented(
        fmt::format("{}: is a diffusers pipeline, which makes images; language models are served here", directory));
  }
  if (!files.Find("consolidated", "").empty()) return ExplainWeights(files);
  if (HasSafetensorsModel(files)) {
    return NotFound(
        fmt::format("{}: holds weights but no config.json; download the model's other files too", directory));
  }
  for (const OtherWeights& other : kOtherWeights) {
    if (!files.Find(other.begin, other.end).empty()) return ExplainWeights(files);
  }
  if (files.Has("tokenizer.json") || files.Has("tokenizer.model") || files.Has("tokenizer_config.json")) {
    return NotFound(
        fmt::format("{}: holds only a tokenizer; download the model's config.json and weights too", directory));
  }
  return NotFound(fmt::format("{}: no model here: neither a config.json nor a .gguf file", directory));
}

// --- paths
// ------------------------------------------------------------------------------------------------------------

// The snapshot that a repository's folder of Hugging Face's cache means: main's, or the only one.
Result<fs::path> SnapshotOf(const Listing& repository) {
  const fs::path snapshots = fs::path(repository.directory()) / "snapshots";
  std::error_code ignored;
  if (const auto commit = ReadFile(repository.Path("refs/main"), 200)) {
    const std::string name = commit->substr(0, commit->find_first_of(" \r\n"));
    const bool is_plain = !name.empty() && name.find_first_of("/.") == std::string::npos;
    if (is_plain && fs::is_directory(snapshots / name, ignored)) return snapshots / name;
  }
  const std::vector<std::string> all = FileNames(snapshots);
  if (all.size() == 1) return snapshots / all.front();
  return InvalidArgument(
      fmt::format("{}: is a repository's folder of Hugging Face's cache with {} snapshots; name the "
                  "folder of one in snapshots/",
                  repository.directory(), all.size()));
}

enum class Wanted { kModel, kTokenizer };

Result<ModelPlace> FindInDirectory(const std::string& path, Wanted wanted) {
  const Listing files{fs::path(path)};
  if (files.Has("snapshots") && files.Has("blobs") && !files.Has("config.json")) {
    PENSIEVE_TRY(const fs::path snapshot, SnapshotOf(files));
    return FindInDirectory(snapshot.string(), wanted);
  }
  const ModelPlace here{.gguf = "", .directory = path, .safetensors = ""};
  if (files.Has("config.json") && HasSafetensorsModel(files)) return here;
  if (wanted == Wanted::kTokenizer && files.Has("tokenizer.json")) return here;
  PENSIEVE_TRY(const std::optional<std::string> gguf, ChooseGguf(files));
  if (gguf) return ModelPlace{.gguf = *gguf, .directory = "", .safetensors = ""};
  if (wanted == Wanted::kTokenizer && files.Has("config.json")) return here;
  return ExplainDirectory(files);
}

Result<ModelPlace> FindByFile(const fs::path& path, Wanted wanted) {
  const std::string lower = Lower(path.filename().string());
  const fs::path parent = fs::absolute(path).parent_path();
  if (lower == "config.json" || lower == "model.safetensors.index.json") {
    return FindInDirectory(parent.string(), wanted);
  }
  if (!lower.ends_with(".safetensors")) return ModelPlace{.gguf = path.string(), .directory = "", .safetensors = ""};
  const Listing files(parent);
  const bool is_adapter = lower.starts_with("adapter") && files.Has("adapter_config.json");
  if (is_adapter) return ExplainAdapter(files);
  if (lower.starts_with("consolidated")) return ExplainWeights(files);
  if (!files.Has("config.json")) {
    return NotFound(
        fmt::format("{}: has no config.json beside it; download the model's other files too", path.string()));
  }
  return ModelPlace{.gguf = "", .directory = parent.string(), .safetensors = path.string()};
}

Result<ModelPlace> Find(const std::string& path, Wanted wanted) {
  std::error_code error;
  const fs::file_status status = fs::status(path, error);
  if (!fs::exists(status)) {
    const fs::path target = fs::read_symlink(path, error);
    if (error) return NotFound(fmt::format("{}: no such file or directory", path));
    return NotFound(
        fmt::format("{}: is a link to {}, which does not exist; download the model again", path, target.string()));
  }
  return fs::is_directory(status) ? FindInDirectory(path, wanted) : FindByFile(path, wanted);
}

}  // namespace

Result<ModelPlace> FindModelFiles(const std::string& path) { return Find(path, Wanted::kModel); }

Result<ModelPlace> FindTokenizerFiles(const std::string& path) { return Find(path, Wanted::kTokenizer); }

Status CheckIsModel(const formats::GgufFile& file) {
  const auto other = OtherThanModel(file);
  if (!other) return OkStatus();
  return Unimplemented(fmt::format("{}: {}", file.files().front().path(), *other));
}

Status MissingTokenizer(const std::string& directory) {
  const Listing files{fs::path(directory)};
  std::string others;
  for (const char* name : {"tokenizer.model", "spiece.model", "sentencepiece.bpe.model", "vocab.json", "vocab.txt",
                           "tekken.json", "tiktoken.model", "qwen.tiktoken"}) {
    if (files.Has(name)) others += fmt::format("{}{}", others.empty() ? "" : ", ", name);
  }
  if (others.empty()) {
    return NotFound(fmt::format("{}: has no tokenizer.json; download the model's tokenizer files too", directory));
  }
  return NotFound(
      fmt::format("{}: has no tokenizer.json, only {}, which cannot be read; make one with Python's "
                  "transformers (AutoTokenizer.from_pretrained(DIRECTORY).save_pretrained(DIRECTORY)) or "
                  "download it from another repository of the same model",
                  directory, others));
}

}  // namespace pensieve::model
