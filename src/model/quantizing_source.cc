#include "model/quantizing_source.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <deque>

namespace pensieve::model {
namespace {

constexpr int64_t kRowsMin = 32;

bool IsRouter(std::string_view name) {
  constexpr std::array<std::string_view, 7> kRouters = {".mlp.gate",           ".mlp.router",  ".block_sparse_moe.gate",
                                                        ".shared_expert_gate", ".router.proj", ".ffn_gate_inp",
                                                        ".ffn_gate_inp_shexp"};
  return std::any_of(kRouters.begin(), kRouters.end(), [name](std::string_view end) { return name.ends_with(end); });
}

class QuantizingSource : public WeightSource {
 public:
  QuantizingSource(std::unique_ptr<WeightSource> source, WeightStore& store, const formats::AffineFormat& format)
      : source_(std::move(source)), store_(store), format_(format) {}

  bool HasModule(const std::string& module) const override { return source_->HasModule(module); }

  Result<tensor::Weight> Matrix(const std::string& module, int64_t rows, int64_t cols) override {
    const WeightStore::Mark mark = store_.mark();
    PENSIEVE_TRY(const tensor::Weight weight, source_->Matrix(module, rows, cols));
    return Quantize(module, weight, mark);
  }

  Result<tensor::Weight> Stack(const std::string& module, int64_t count, int64_t rows, int64_t cols) override {
    const WeightStore::Mark mark = store_.mark();
    PENSIEVE_TRY(const tensor::Weight weight, source_->Stack(module, count, rows, cols));
    return Quantize(module, weight, mark);
  }

  Result<std::vector<float>> Vector(const std::string& module, std::string_view kind, int64_t length) override {
    return source_->Vector(module, kind, length);
  }
  Result<std::vector<float>> OptionalVector(const std::string& module, std::string_view kind, int64_t length) override {
    return source_->OptionalVector(module, kind, length);
  }
  Result<std::vector<float>> OptionalStackBias(const std::string& module, int64_t count, int64_t rows) override {
    return source_->OptionalStackBias(module, count, rows);
  }

 private:
  // `mark`: the store before the weight was read.
  Result<tensor::Weight> Quantize(const std::string& module, const tensor::Weight& weight,
                                  const WeightStore::Mark& mark) {
    const auto* dense = std::get_if<tensor::DenseWeight>(&weight);
    if (dense == nullptr || !IsQuantizedAtLoad(format_, module, dense->rows, dense->cols)) return weight;
    auto quantized = store_.IsMapped(dense->data) ? QuantizeMapped(*dense) : QuantizeCopy(*dense, mark);
    if (!quantized) return quantized.error().WithContext(fmt::format("tensor \"{}.weight\"", module));
    return quantized;
  }

  Result<tensor::Weight> QuantizeMapped(const tensor::DenseWeight& dense) {
    auto quantized =
        formats::QuantizeAffine(dense, {}, format_, [this](size_t bytes) { return store_.Allocate(bytes); });
    store_.ReleaseMapped({static_cast<const std::byte*>(dense.data), tensor::WeightBytes(dense)});
    return quantized;
  }

  // The floats were copied into the store (in another order of rows): the copy makes room for its quantized form.
  Result<tensor::Weight> QuantizeCopy(const tensor::DenseWeight& dense, const WeightStore::Mark& mark) {
    std::deque<std::vector<std::byte>> parts;
    const auto allocate = [&parts](size_t bytes) -> Result<std::byte*> { return parts.emplace_back(bytes).data(); };
    PENSIEVE_TRY(tensor::Weight weight, formats::QuantizeAffine(dense, {}, format_, allocate));
    store_.Rewind(mark);
    std::array<const std::byte*, 3> moved{};  // codes, scales, biases: in the order of their allocation
    for (size_t i = 0; i < moved.size(); ++i) {
      PENSIEVE_TRY(std::byte* const memory, store_.Allocate(parts[i].size()));
      std::memcpy(memory, parts[i].data(), parts[i].size());
      moved[i] = memory;
    }
    auto& affine = std::get<tensor::AffineWeight>(weight);
    affine.codes = reinterpret_cast<const uint8_t*>(moved[0]);
    affine.scales = moved[1];
    affine.biases = moved[2];
    return weight;
  }

  const std::unique_ptr<WeightSource> source_;
  WeightStore& store_;
  const formats::AffineFormat format_;
};

// A tensor of either file format, as far as the census cares.
struct CountedTensor {
  std::string_view name;
  std::string type;
  std::optional<tensor::DType> dtype;  // of floats
  const std::vector<int64_t>* shape;
  int64_t bytes = 0;         // in the file
  int64_t kernel_bytes = 0;  // as kernels read it
};

// A matrix, or the matrices of a stack behind one another, as the network asks for it.
struct CountedMatrix {
  std::string_view module;
  int64_t rows = 0;
  int64_t cols = 0;
};

// Nothing when the tensor is no matrix of floats. Stacks without ".weight" lie as [count, cols, rows] (gpt-oss).
std::optional<CountedMatrix> AsMatrix(const CountedTensor& counted) {
  constexpr std::string_view kWeight = ".weight";
  const std::vector<int64_t>& shape = *counted.shape;
  if (!counted.dtype || shape.size() < 2 || shape.size() > 3) return std::nullopt;
  if (counted.name.ends_with(kWeight)) {
    int64_t rows = 1;
    for (size_t i = 0; i + 1 < shape.size(); ++i) rows *= shape[i];
    return CountedMatrix{counted.name.substr(0, counted.name.size() - kWeight.size()), rows, shape.back()};
  }
  if (shape.size() == 3) return CountedMatrix{counted.name, shape[0] * shape[2], shape[1]};
  return std::nullopt;
}

// Moves a tensor that will be quantized from its type to the new one.
bool CountOne(const CountedTensor& counted, const formats::AffineFormat& format, WeightCensus& census) {
  const auto matrix = AsMatrix(counted);
  if (!matrix || !IsQuantizedAtLoad(format, matrix->module, matrix->rows, matrix->cols)) return false;
  const auto it = census.types.find(counted.type);
  if (it == census.types.end() || it->second.second < counted.bytes) return false;  // not counted: of no use to text
  it->second.first -= 1;
  it->second.second -= counted.bytes;
  if (it->second.first == 0) census.types.erase(it);
  const auto bytes = static_cast<int64_t>(formats::AffineBytes(matrix->rows, matrix->cols, *counted.dtype, format));
  auto& [count, total] = census.types[fmt::format("affine {}-bit group {}", format.bits, format.group)];
  ++count;
  total += bytes;
  census.weight_bytes += bytes - counted.kernel_bytes;
  return true;
}

}  // namespace

bool IsQuantizedAtLoad(const formats::AffineFormat& format, std::string_view name, int64_t rows, int64_t cols) {
  return rows >= kRowsMin && cols > 0 && cols % format.group == 0 && !IsRouter(name);
}

std::unique_ptr<WeightSource> NewQuantizingSource(std::unique_ptr<WeightSource> source, WeightStore& store,
                                                  const formats::AffineFormat& format) {
  return std::make_unique<QuantizingSource>(std::move(source), store, format);
}

bool CountQuantizedAtLoad(const WeightStore& store, const formats::AffineFormat& format, WeightCensus& census) {
  bool any = false;
  if (const formats::SafetensorsSet* files = store.safetensors()) {
    for (const auto& [name, tensor] : files->tensors()) {
      const bool dense = tensor.dtype == tensor::DType::kF32 || tensor.dtype == tensor::DType::kF16 ||
                         tensor.dtype == tensor::DType::kBF16;
      const auto bytes = static_cast<int64_t>(tensor.bytes.size());
      any |= CountOne(
          {name, tensor.dtype_name, dense ? std::optional(tensor.dtype) : std::nullopt, &tensor.shape, bytes, bytes},
          format, census);
    }
    return any;
  }
  for (const formats::GgufTensor& tensor : store.gguf()->tensors()) {
    int64_t elements = 1;
    for (const int64_t extent : tensor.shape) elements *= extent;
    const int64_t cols = tensor.shape.back();
    const auto kernel_bytes = static_cast<int64_t>(formats::ConvertedBytes(tensor.type->type, elements / cols, cols));
    any |= CountOne({tensor.name, tensor.type->name, formats::DenseDType(tensor.type->type), &tensor.shape,
                     static_cast<int64_t>(tensor.bytes.size()), kernel_bytes},
                    format, census);
  }
  return any;
}

}  // namespace pensieve::model
