#include <fmt/format.h>

#include <algorithm>
#include <cstring>

#include "base/half.h"
#include "model/weight_source.h"

namespace pensieve::model {
namespace {

using formats::SafeTensor;
using formats::SafetensorsSet;

std::string ShapeText(const std::vector<int64_t>& shape) { return fmt::format("[{}]", fmt::join(shape, ", ")); }

// Parts of multimodal models that text never touches.
bool IsOfAnotherTower(std::string_view name) {
  constexpr std::string_view kModel = "model.";
  if (name.starts_with(kModel)) name.remove_prefix(kModel.size());
  return name.starts_with("vision_tower.") || name.starts_with("vision_model.") || name.starts_with("visual.") ||
         name.starts_with("multi_modal_projector.") || name.starts_with("audio_tower.");
}

// The spellings under which a file may hold a tensor, most usual first.
const SafeTensor* FindSpelled(const SafetensorsSet& files, const std::string& name) {
  if (const SafeTensor* tensor = files.Find(name)) return tensor;
  for (const std::string_view prefix : {"language_model.", "bert.", "roberta.", "model.language_model.", "model."}) {
    if (const SafeTensor* tensor = files.Find(std::string(prefix) + name)) return tensor;
  }
  if (name.starts_with("dense.")) {  // of sentence-transformers, in a folder of its own
    const size_t dot = name.rfind('.');
    return files.Find(name.substr(0, dot) + ".linear" + name.substr(dot));
  }
  constexpr std::string_view kModel = "model.";
  if (!name.starts_with(kModel)) return nullptr;
  const std::string bare = name.substr(kModel.size());
  if (const SafeTensor* tensor = files.Find(bare)) return tensor;
  return files.Find("model.language_model." + bare);
}

std::optional<float> FloatAt(const SafeTensor& tensor, size_t index) {
  const std::byte* at = tensor.bytes.data() + index * tensor::DTypeBytes(tensor.dtype);
  const auto load = [at](auto value) {
    std::memcpy(&value, at, sizeof(value));
    return value;
  };
  switch (tensor.dtype) {
    case tensor::DType::kF32: return load(float{});
    case tensor::DType::kF16: return F16ToF32(load(uint16_t{}));
    case tensor::DType::kBF16: return Bf16ToF32(load(uint16_t{}));
    case tensor::DType::kF64: return static_cast<float>(load(double{}));
    default: return std::nullopt;
  }
}

bool IsScaleType(tensor::DType dtype) {
  return dtype == tensor::DType::kF32 || dtype == tensor::DType::kF16 || dtype == tensor::DType::kBF16;
}

// The parameters that apply to a module, or nothing when it is dense. `has_scales`: the file holds module.scales.
std::optional<QuantizationParams> ParamsOf(const QuantizationConfig& quantization, const std::string& module,
                                           bool has_scales) {
  const auto it = quantization.modules.find(ModuleKey(module));
  if (it != quantization.modules.end()) return it->second;
  return has_scales ? quantization.global : std::nullopt;
}

// to[c][r] = from[r][c], in squares that fit the cache.
void TransposeElements(const std::byte* from, size_t rows, size_t cols, size_t bytes, std::byte* to) {
  constexpr size_t kSquare = 64;
  for (size_t r0 = 0; r0 < rows; r0 += kSquare) {
    for (size_t c0 = 0; c0 < cols; c0 += kSquare) {
      for (size_t c = c0; c < std::min(cols, c0 + kSquare); ++c) {
        for (size_t r = r0; r < std::min(rows, r0 + kSquare); ++r) {
          std::memcpy(to + (c * rows + r) * bytes, from + (r * cols + c) * bytes, bytes);
        }
      }
    }
  }
}

// The shape of a weight: [rows, cols], or [count, rows, cols] of matrices behind one another.
struct Extents {
  int64_t count = 0;  // 0: one matrix, no leading extent
  int64_t rows = 0;
  int64_t cols = 0;

  int64_t all_rows() const { return count == 0 ? rows : count * rows; }
  // The shape of a tensor with `last` values a row.
  std::vector<int64_t> Shape(int64_t last) const {
    return count == 0 ? std::vector<int64_t>{rows, last} : std::vector<int64_t>{count, rows, last};
  }
};

class SafetensorsSource : public WeightSource {
 public:
  SafetensorsSource(WeightStore& store, QuantizationConfig quantization)
      : store_(store), files_(*store.safetensors()), quantization_(std::move(quantization)) {}

  bool HasModule(const std::string& module) const override {
    return Find(module + ".weight") != nullptr || Find(module + "_blocks") != nullptr || Find(module) != nullptr;
  }

  Result<tensor::Weight> Matrix(const std::string& module, int64_t rows, int64_t cols) override {
    return Read(module, {0, rows, cols});
  }

  Result<tensor::Weight> Stack(const std::string& module, int64_t count, int64_t rows, int64_t cols) override {
    const Extents extents = {count, rows, cols};
    if (const SafeTensor* blocks = Find(module + "_blocks")) return Mxfp4Blocks(module, *blocks, extents);
    if (const SafeTensor* turned = Find(module)) return Transposed(module, *turned, extents);
    return Read(module, extents);
  }

  Result<std::vector<float>> Vector(const std::string& module, std::string_view kind, int64_t length) override {
    const std::string name = fmt::format("{}.{}", module, kind);
    const SafeTensor* tensor = FindVector(module, kind);
    if (tensor == nullptr) return Missing(name);
    return ReadVector(name, *tensor, length);
  }

  Result<std::vector<float>> OptionalVector(const std::string& module, std::string_view kind, int64_t length) override {
    const SafeTensor* tensor = FindVector(module, kind);
    if (tensor == nullptr) return std::vector<float>();
    return ReadVector(fmt::format("{}.{}", module, kind), *tensor, length);
  }

  Result<std::vector<float>> OptionalStackBias(const std::string& module, int64_t count, int64_t rows) override {
    const SafeTensor* tensor = FindVector(module, "bias");
    if (tensor == nullptr) return std::vector<float>();
    if (tensor->shape != std::vector<int64_t>{count, rows}) {
      return BadShape(module + ".bias", *tensor, ShapeText({count, rows}));
    }
    return ReadFloats(module + ".bias", *tensor, count * rows);
  }

 private:
  const SafeTensor* Find(const std::string& name) const { return FindSpelled(files_, name); }

  // Old BERT files call a norm's weight gamma and its bias beta. Parameters that are no layer's (gpt-oss: attention
  // sinks, biases of stacked experts) have no ".weight" and "_bias".
  const SafeTensor* FindVector(const std::string& module, std::string_view kind) const {
    if (const SafeTensor* tensor = Find(fmt::format("{}.{}", module, kind))) return tensor;
    if (const SafeTensor* tensor = Find(kind == "weight" ? module : fmt::format("{}_{}", module, kind))) return tensor;
    if (!module.ends_with("LayerNorm")) return nullptr;
    return Find(fmt::format("{}.{}", module, kind == "weight" ? "gamma" : "beta"));
  }

  std::string Place() const { return files_.files().front().path(); }
  Status Missing(const std::string& name) const {
    const std::string module = name.substr(0, name.rfind('.'));
    for (const char* packed : {".qweight", ".weight_packed", ".q_weight", ".B_q"}) {  // GPTQ and AWQ; others
      if (Find(module + packed) == nullptr) continue;
      return Unimplemented(
          fmt::format("{}: tensor \"{}{}\" is quantized in a way that is not read (as GPTQ and AWQ do); "
                      "take a GGUF file, an MLX version or the unquantized safetensors of the same model",
                      Place(), module, packed));
    }
    return DataLoss(fmt::format("{}: tensor \"{}\" is missing", Place(), name));
  }
  Status BadShape(const std::string& name, const SafeTensor& tensor, const std::string& wanted) const {
    return DataLoss(fmt::format("{}: tensor \"{}\" is {} {}, but the configuration needs {}",
                                files_.files()[tensor.file].path(), name, tensor.dtype_name, ShapeText(tensor.shape),
                                wanted));
  }
  Result<const SafeTensor*> Require(const std::string& name) const {
    const SafeTensor* tensor = Find(name);
    if (tensor == nullptr) return Missing(name);
    return tensor;
  }

  Result<std::vector<float>> ReadVector(const std::string& name, const SafeTensor& tensor, int64_t length) const {
    if (tensor.shape != std::vector<int64_t>{length}) return BadShape(name, tensor, ShapeText({length}));
    return ReadFloats(name, tensor, length);
  }

  Result<std::vector<float>> ReadFloats(const std::string& name, const SafeTensor& tensor, int64_t length) const {
    std::vector<float> values(static_cast<size_t>(length));
    for (size_t i = 0; i < values.size(); ++i) {
      const auto value = FloatAt(tensor, i);
      if (!value) return BadShape(name, tensor, "floats");
      values[i] = *value;
    }
    return values;
  }

  Result<tensor::Weight> Read(const std::string& module, const Extents& extents) const {
    PENSIEVE_TRY(const SafeTensor* const weight, Require(module + ".weight"));
    const bool has_scales = Find(module + ".scales") != nullptr;
    const auto params = ParamsOf(quantization_, module, has_scales);
    if (!params) return Dense(module, *weight, extents, has_scales);
    return params->mode == QuantizationMode::kMxfp4 ? Mxfp4(module, *weight, extents)
                                                    : Affine(module, *weight, *params, extents);
  }

  Result<tensor::Weight> Dense(const std::string& module, const SafeTensor& weight, const Extents& extents,
                               bool has_scales) const {
    const std::string name = module + ".weight";
    if (has_scales && weight.dtype == tensor::DType::kU32) {
      return DataLoss(fmt::format("{}: tensor \"{}\" is quantized, but config.json has no \"quantization\" for it",
                                  files_.files()[weight.file].path(), name));
    }
    const std::vector<int64_t> shape = extents.Shape(extents.cols);
    if (weight.dtype_name.starts_with("F8_") || weight.dtype == tensor::DType::kI8) {
      return Unimplemented(
          fmt::format("{}: tensor \"{}\" is {}: weights of 8 bits are read from GGUF files and MLX versions "
                      "only; take one of those or the unquantized safetensors of the same model",
                      files_.files()[weight.file].path(), name, weight.dtype_name));
    }
    if (!IsScaleType(weight.dtype) || weight.shape != shape) {
      return BadShape(name, weight, fmt::format("floats {}", ShapeText(shape)));
    }
    return tensor::Weight(tensor::DenseWeight{extents.all_rows(), extents.cols, weight.dtype, weight.bytes.data()});
  }

  Result<tensor::Weight> Affine(const std::string& module, const SafeTensor& weight, const QuantizationParams& params,
                                const Extents& extents) const {
    const int64_t cols = extents.cols;
    if (cols % params.group != 0) {
      return DataLoss(fmt::format("{}: tensor \"{}.weight\": {} columns are no multiple of the group size {}", Place(),
                                  module, cols, params.group));
    }
    const std::vector<int64_t> packed = extents.Shape(cols * params.bits / 32);
    if (weight.dtype != tensor::DType::kU32 || weight.shape != packed) {
      return BadShape(module + ".weight", weight, fmt::format("U32 {} ({}-bit)", ShapeText(packed), params.bits));
    }
    PENSIEVE_TRY(const SafeTensor* const scales, Require(module + ".scales"));
    PENSIEVE_TRY(const SafeTensor* const biases, Require(module + ".biases"));
    const std::vector<int64_t> groups = extents.Shape(cols / params.group);
    for (const auto& [kind, tensor] : {std::pair{".scales", scales}, std::pair{".biases", biases}}) {
      if (!IsScaleType(tensor->dtype) || tensor->shape != groups || tensor->dtype != scales->dtype) {
        return BadShape(module + kind, *tensor, fmt::format("floats {} (group {})", ShapeText(groups), params.group));
      }
    }
    return tensor::Weight(tensor::AffineWeight{.rows = extents.all_rows(),
                                               .cols = cols,
                                               .bits = params.bits,
                                               .group = params.group,
                                               .codes = reinterpret_cast<const uint8_t*>(weight.bytes.data()),
                                               .scale_dtype = scales->dtype,
                                               .scales = scales->bytes.data(),
                                               .biases = biases->bytes.data()});
  }

  Result<tensor::Weight> Mxfp4(const std::string& module, const SafeTensor& weight, const Extents& extents) const {
    const std::vector<int64_t> packed = extents.Shape(extents.cols / 8);
    if (extents.cols % 32 != 0 || weight.dtype != tensor::DType::kU32 || weight.shape != packed) {
      return BadShape(module + ".weight", weight, fmt::format("U32 {} (mxfp4)", ShapeText(packed)));
    }
    return WithScales(module + ".scales", weight, extents);
  }

  // Hugging Face's form of the same: the 16 bytes of every 32 values as an extent of their own.
  Result<tensor::Weight> Mxfp4Blocks(const std::string& module, const SafeTensor& blocks,
                                     const Extents& extents) const {
    std::vector<int64_t> shape = extents.Shape(extents.cols / 32);
    shape.push_back(16);
    if (extents.cols % 32 != 0 || blocks.dtype != tensor::DType::kU8 || blocks.shape != shape) {
      return BadShape(module + "_blocks", blocks, fmt::format("U8 {} (mxfp4)", ShapeText(shape)));
    }
    return WithScales(module + "_scales", blocks, extents);
  }

  Result<tensor::Weight> WithScales(const std::string& name, const SafeTensor& codes, const Extents& extents) const {
    PENSIEVE_TRY(const SafeTensor* const scales, Require(name));
    const std::vector<int64_t> groups = extents.Shape(extents.cols / 32);
    if (scales->dtype != tensor::DType::kU8 || scales->shape != groups) {
      return BadShape(name, *scales, fmt::format("U8 {}", ShapeText(groups)));
    }
    return tensor::Weight(tensor::Mxfp4Weight{extents.all_rows(), extents.cols,
                                              reinterpret_cast<const uint8_t*>(codes.bytes.data()),
                                              reinterpret_cast<const uint8_t*>(scales->bytes.data())});
  }

  // Float experts that lie as x . W reads them, [count, cols, rows] (gpt-oss without mxfp4): turned round in memory.
  Result<tensor::Weight> Transposed(const std::string& module, const SafeTensor& tensor, const Extents& extents) {
    const std::vector<int64_t> shape = {extents.count, extents.cols, extents.rows};
    if (!IsScaleType(tensor.dtype) || tensor.shape != shape) {
      return BadShape(module, tensor, fmt::format("floats {}", ShapeText(shape)));
    }
    PENSIEVE_TRY(std::byte* const memory, store_.Allocate(tensor.bytes.size()));
    const size_t bytes = tensor::DTypeBytes(tensor.dtype);
    const auto rows = static_cast<size_t>(extents.rows);
    const auto cols = static_cast<size_t>(extents.cols);
    for (size_t e = 0; e < static_cast<size_t>(extents.count); ++e) {
      const std::byte* from = tensor.bytes.data() + e * rows * cols * bytes;
      TransposeElements(from, cols, rows, bytes, memory + e * rows * cols * bytes);
    }
    files_.files()[tensor.file].AdviseDone(tensor.bytes);
    return tensor::Weight(tensor::DenseWeight{extents.all_rows(), extents.cols, tensor.dtype, memory});
  }

  WeightStore& store_;
  const SafetensorsSet& files_;
  const QuantizationConfig quantization_;
};

int64_t Elements(const SafeTensor& tensor) {
  int64_t elements = 1;
  for (const int64_t extent : tensor.shape) elements *= extent;
  return elements;
}

}  // namespace

std::string ModuleKey(std::string_view module) {
  const auto strip = [&module](std::string_view prefix) {
    if (!module.starts_with(prefix)) return false;
    module.remove_prefix(prefix.size());
    return true;
  };
  while (strip("model.") || strip("language_model.") || strip("bert.") || strip("roberta.")) {}
  return std::string(module);
}

std::unique_ptr<WeightSource> NewSafetensorsSource(WeightStore& store, QuantizationConfig quantization) {
  return std::make_unique<SafetensorsSource>(store, std::move(quantization));
}

bool HasSafetensor(const SafetensorsSet& files, const std::string& name) { return FindSpelled(files, name) != nullptr; }

bool HaveEqualWeights(const SafetensorsSet& files, const std::string& module, const std::string& other) {
  for (const char* kind : {".weight", ".scales", ".biases"}) {
    const SafeTensor* a = FindSpelled(files, module + kind);
    const SafeTensor* b = FindSpelled(files, other + kind);
    if (a == nullptr && b == nullptr) continue;
    if (a == nullptr || b == nullptr || a->dtype != b->dtype || a->shape != b->shape) return false;
    if (std::memcmp(a->bytes.data(), b->bytes.data(), a->bytes.size()) != 0) return false;
  }
  return true;
}

WeightCensus CountSafetensors(const SafetensorsSet& files, const QuantizationConfig& quantization) {
  WeightCensus census;
  for (const auto& [name, tensor] : files.tensors()) {
    if (IsOfAnotherTower(name)) continue;
    const auto bytes = static_cast<int64_t>(tensor.bytes.size());
    census.weight_bytes += bytes;
    std::string type = tensor.dtype_name;
    int64_t parameters = Elements(tensor);
    if (name.ends_with("_blocks") && tensor.dtype == tensor::DType::kU8) {
      type = "mxfp4";
      parameters *= 2;
    } else if (name.ends_with("_scales") && tensor.dtype == tensor::DType::kU8) {
      parameters = 0;
    }
    const std::string module = name.substr(0, name.rfind('.'));
    const SafeTensor* scales = files.Find(module + ".scales");
    if (scales != nullptr && (name.ends_with(".scales") || name.ends_with(".biases"))) {
      parameters = 0;
    } else if (scales != nullptr && tensor.dtype == tensor::DType::kU32) {
      const auto params = ParamsOf(quantization, module, true).value_or(QuantizationParams{});
      const bool mxfp4 = params.mode == QuantizationMode::kMxfp4;
      type = mxfp4 ? "mxfp4" : fmt::format("affine {}-bit group {}", params.bits, params.group);
      parameters = parameters * 32 / params.bits;
    }
    auto& [count, total] = census.types[type];
    ++count;
    total += bytes;
    census.parameters += parameters;
  }
  return census;
}

}  // namespace pensieve::model
