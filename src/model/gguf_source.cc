#include <fmt/format.h>

#include <algorithm>

#include "formats/ggml_convert.h"
#include "model/weight_source.h"

namespace pensieve::model {
namespace {

using formats::GgufTensor;

std::string ShapeText(const std::vector<int64_t>& shape) { return fmt::format("[{}]", fmt::join(shape, ", ")); }

// Where row r of the original model's q or k stands in a file whose heads are in interleaved order: rows i and
// i + half of a head became 2i and 2i + 1.
std::vector<int32_t> RotaryRows(int64_t rows, int64_t heads) {
  const int64_t head_dim = rows / heads;
  const int64_t half = head_dim / 2;
  std::vector<int32_t> source(static_cast<size_t>(rows));
  for (int64_t row = 0; row < rows; ++row) {
    const int64_t within = row % head_dim;
    const int64_t moved = within < half ? 2 * within : 2 * (within - half) + 1;
    source[static_cast<size_t>(row)] = static_cast<int32_t>(row - within + moved);
  }
  return source;
}

// The numbers that stand in `name` where `pattern` has its stars; nothing when it is another name.
std::optional<std::vector<std::string>> MatchNumbers(std::string_view pattern, std::string_view name) {
  std::vector<std::string> numbers;
  for (const char c : pattern) {
    if (c == '*') {
      const size_t digits = std::min(name.find_first_not_of("0123456789"), name.size());
      if (digits == 0) return std::nullopt;
      numbers.emplace_back(name.substr(0, digits));
      name.remove_prefix(digits);
    } else {
      if (!name.starts_with(c)) return std::nullopt;
      name.remove_prefix(1);
    }
  }
  if (!name.empty()) return std::nullopt;
  return numbers;
}

std::string FillNumbers(std::string_view pattern, const std::vector<std::string>& numbers) {
  std::string name;
  size_t used = 0;
  for (const char c : pattern) {
    if (c == '*') {
      name += numbers[used++];
    } else {
      name += c;
    }
  }
  return name;
}

class GgufSource : public WeightSource {
 public:
  GgufSource(WeightStore& store, GgufSourceOptions options)
      : store_(store), file_(*store.gguf()), options_(std::move(options)) {}

  bool HasModule(const std::string& module) const override { return Find(module, "weight") != nullptr; }

  Result<tensor::Weight> Matrix(const std::string& module, int64_t rows, int64_t cols) override {
    const GgufTensor* tensor = Find(module, "weight");
    if (tensor == nullptr) return Missing(module, "weight");
    const bool one_row = rows == 1 && tensor->shape == std::vector<int64_t>{cols};
    if (!one_row && tensor->shape != std::vector<int64_t>{rows, cols}) return BadShape(*tensor, {rows, cols});
    return Convert(module, *tensor, rows, cols);
  }

  Result<tensor::Weight> Stack(const std::string& module, int64_t count, int64_t rows, int64_t cols) override {
    const GgufTensor* tensor = Find(module, "weight");
    if (tensor == nullptr) return Missing(module, "weight");
    const std::vector<int64_t> wanted = {count, rows, cols};
    if (tensor->shape != wanted) return BadShape(*tensor, wanted);
    return Convert(module, *tensor, count * rows, cols);
  }

  Result<std::vector<float>> OptionalStackBias(const std::string& module, int64_t count, int64_t rows) override {
    const GgufTensor* tensor = Find(module, "bias");
    if (tensor == nullptr) return std::vector<float>();
    if (tensor->shape != std::vector<int64_t>{count, rows}) return BadShape(*tensor, {count, rows});
    return Decode(*tensor, count * rows);
  }

  Result<std::vector<float>> Vector(const std::string& module, std::string_view kind, int64_t length) override {
    const GgufTensor* tensor = Find(module, kind);
    if (tensor == nullptr) return Missing(module, kind);
    return ReadVector(module, *tensor, length);
  }

  Result<std::vector<float>> OptionalVector(const std::string& module, std::string_view kind, int64_t length) override {
    const GgufTensor* tensor = Find(module, kind);
    if (tensor == nullptr) return std::vector<float>();
    return ReadVector(module, *tensor, length);
  }

 private:
  Result<tensor::Weight> Convert(const std::string& module, const GgufTensor& tensor, int64_t rows, int64_t cols) {
    formats::GgmlMatrix matrix{tensor.type->type, rows, cols, tensor.bytes, {}};
    const std::vector<int32_t> order = RowOrder(module, rows);
    matrix.source_rows = order;
    auto weight = formats::ConvertGgmlMatrix(matrix, [this](size_t bytes) { return store_.Allocate(bytes); });
    if (!weight) return weight.error().WithContext(fmt::format("{}: tensor \"{}\"", Place(tensor), tensor.name));
    if (!formats::UsedInPlace(matrix)) file_.files()[tensor.file].AdviseDone(tensor.bytes);
    return weight;
  }

  const GgufTensor* Find(const std::string& module, std::string_view kind) const {
    const std::string name = GgufName(options_.names, module);
    return name.empty() ? nullptr : file_.FindTensor(fmt::format("{}.{}", name, kind));
  }
  std::string Place(const GgufTensor& tensor) const { return file_.files()[tensor.file].path(); }
  Status Missing(const std::string& module, std::string_view kind) const {
    return DataLoss(fmt::format("{}: tensor \"{}.{}\" is missing", file_.files().front().path(),
                                GgufName(options_.names, module), kind));
  }
  Status BadShape(const GgufTensor& tensor, const std::vector<int64_t>& wanted) const {
    return DataLoss(fmt::format("{}: tensor \"{}\" is {} {}, but the metadata needs {}", Place(tensor), tensor.name,
                                tensor.type->name, ShapeText(tensor.shape), ShapeText(wanted)));
  }

  std::vector<int32_t> RowOrder(const std::string& module, int64_t rows) const {
    if (!options_.rotary_rows_permuted) return {};
    if (module.ends_with(".q_proj")) return RotaryRows(rows, options_.heads);
    if (module.ends_with(".k_proj")) return RotaryRows(rows, options_.kv_heads);
    return {};
  }

  Result<std::vector<float>> Decode(const GgufTensor& tensor, int64_t length) const {
    std::vector<float> values(static_cast<size_t>(length));
    const Status decoded = formats::DecodeGgmlRow(tensor.type->type, tensor.bytes.data(), length, values.data());
    if (!decoded.ok()) return decoded.WithContext(fmt::format("{}: tensor \"{}\"", Place(tensor), tensor.name));
    return values;
  }

  Result<std::vector<float>> ReadVector(const std::string& module, const GgufTensor& tensor, int64_t length) const {
    if (tensor.shape != std::vector<int64_t>{length}) return BadShape(tensor, {length});
    PENSIEVE_TRY(const std::vector<float> stored, Decode(tensor, length));
    const std::vector<int32_t> order = RowOrder(module, length);
    if (order.empty()) return stored;
    std::vector<float> values(stored.size());
    for (size_t i = 0; i < values.size(); ++i) values[i] = stored[static_cast<size_t>(order[i])];
    return values;
  }

  WeightStore& store_;
  const formats::GgufFile& file_;
  const GgufSourceOptions options_;
};

}  // namespace

std::string GgufName(const std::vector<NamePair>& names, const std::string& module) {
  for (const NamePair& pair : names) {
    if (const auto numbers = MatchNumbers(pair.hf, module)) return FillNumbers(pair.gguf, *numbers);
  }
  return "";
}

std::unique_ptr<WeightSource> NewGgufSource(WeightStore& store, GgufSourceOptions options) {
  return std::make_unique<GgufSource>(store, std::move(options));
}

WeightCensus CountGguf(const formats::GgufFile& file) {
  WeightCensus census;
  for (const GgufTensor& tensor : file.tensors()) {
    int64_t elements = 1;
    for (const int64_t extent : tensor.shape) elements *= extent;
    auto& [count, bytes] = census.types[tensor.type->name];
    ++count;
    bytes += static_cast<int64_t>(tensor.bytes.size());
    census.parameters += elements;
    const int64_t cols = tensor.shape.back();
    census.weight_bytes += static_cast<int64_t>(formats::ConvertedBytes(tensor.type->type, elements / cols, cols));
  }
  return census;
}

}  // namespace pensieve::model
