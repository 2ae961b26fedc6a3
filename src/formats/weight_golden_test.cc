// Every quantized form against the packages that define it, bit for bit: what mlx.core.quantize, mlx.core.dequantize
// and gguf.quants.dequantize answered (tools/golden_weights.py).
#include <gtest/gtest.h>

#include <fmt/format.h>

#include <array>
#include <bit>
#include <cstring>
#include <deque>
#include <limits>
#include <vector>

#include "base/half.h"
#include "formats/affine_quantize.h"
#include "formats/ggml_blocks.h"
#include "formats/ggml_convert.h"
#include "formats/safetensors.h"

namespace pensieve::formats {
namespace {

using tensor::DType;

constexpr int64_t kRows = 2;
constexpr int64_t kCols = 256;

class Memory {
 public:
  AllocateBytes allocate() {
    return [this](size_t bytes) -> Result<std::byte*> { return blocks_.emplace_back(bytes).data(); };
  }

 private:
  std::deque<std::vector<std::byte>> blocks_;
};

const SafetensorsSet& Goldens(const std::string& name) {
  static std::map<std::string, SafetensorsSet> files;
  const auto found = files.find(name);
  if (found != files.end()) return found->second;
  auto set = SafetensorsSet::OpenFile(std::string(PENSIEVE_SOURCE_DIR) + "/tests/data/weights/" + name);
  PENSIEVE_CHECK(set.has_value());
  return files.emplace(name, *std::move(set)).first->second;
}

std::span<const std::byte> Bytes(const SafetensorsSet& files, const std::string& name) {
  const SafeTensor* tensor = files.Find(name);
  EXPECT_NE(tensor, nullptr) << name;
  return tensor == nullptr ? std::span<const std::byte>() : tensor->bytes;
}

template <typename T>
std::vector<T> Values(const SafetensorsSet& files, const std::string& name) {
  const auto bytes = Bytes(files, name);
  std::vector<T> values(bytes.size() / sizeof(T));
  std::memcpy(values.data(), bytes.data(), bytes.size());
  return values;
}

// The floats' bits: -0 and 0 differ, equal NaNs do not.
std::vector<uint32_t> Bits(const std::vector<float>& values) {
  std::vector<uint32_t> bits(values.size());
  std::memcpy(bits.data(), values.data(), 4 * values.size());
  return bits;
}

std::vector<float> Dequantize(const tensor::Weight& weight) {
  std::vector<float> values(static_cast<size_t>(Rows(weight) * Cols(weight)));
  for (int64_t r = 0; r < Rows(weight); ++r) tensor::DequantizeRow(weight, r, values.data() + r * Cols(weight));
  return values;
}

struct MlxForm {
  int bits;
  int group;
  std::string dtype_name;
  DType dtype;
  std::string key() const { return fmt::format("affine{}.g{}.{}", bits, group, dtype_name); }
};

std::vector<MlxForm> MlxForms() {
  std::vector<MlxForm> forms;
  for (const int bits : {2, 3, 4, 5, 6, 8}) {
    for (const int group : {32, 64, 128}) {
      forms.push_back({bits, group, "f32", DType::kF32});
      forms.push_back({bits, group, "f16", DType::kF16});
      forms.push_back({bits, group, "bf16", DType::kBF16});
    }
  }
  return forms;
}

tensor::AffineWeight Golden(const MlxForm& form) {
  const SafetensorsSet& files = Goldens("mlx.safetensors");
  return {.rows = kRows,
          .cols = kCols,
          .bits = form.bits,
          .group = form.group,
          .codes = reinterpret_cast<const uint8_t*>(Bytes(files, form.key() + ".codes").data()),
          .scale_dtype = form.dtype,
          .scales = Bytes(files, form.key() + ".scales").data(),
          .biases = Bytes(files, form.key() + ".biases").data()};
}

TEST(MlxGoldens, AffineValuesInF32) {
  for (const MlxForm& form : MlxForms()) {
    const auto expected = Values<float>(Goldens("mlx.safetensors"), form.key() + ".f32");
    EXPECT_EQ(Bits(Dequantize(Golden(form))), Bits(expected)) << form.key();
  }
}

// mlx rounds the product and the sum to the type of the scales; done to our parts, that gives its values.
TEST(MlxGoldens, AffineValuesInTheTypeOfTheScales) {
  for (const MlxForm& form : MlxForms()) {
    if (form.dtype == DType::kF32) continue;
    const auto round = [&form](float value) { return form.dtype == DType::kF16 ? F32ToF16(value) : F32ToBf16(value); };
    const auto widen = [&form](uint16_t bits) { return form.dtype == DType::kF16 ? F16ToF32(bits) : Bf16ToF32(bits); };
    tensor::AffineWeight products = Golden(form);
    const std::vector<std::byte> zeros(static_cast<size_t>(kRows * products.groups() * 2));
    const auto* biases = static_cast<const std::byte*>(products.biases);
    products.biases = zeros.data();
    std::vector<uint16_t> values;
    for (const float product : Dequantize(products)) {
      uint16_t bias;
      std::memcpy(&bias, biases + 2 * (values.size() / static_cast<size_t>(form.group)), 2);
      values.push_back(round(widen(round(product)) + widen(bias)));
    }
    EXPECT_EQ(values, Values<uint16_t>(Goldens("mlx.safetensors"), form.key() + ".values")) << form.key();
  }
}

TEST(MlxGoldens, Mxfp4Values) {
  const SafetensorsSet& files = Goldens("mlx.safetensors");
  const tensor::Mxfp4Weight weight{kRows, kCols, reinterpret_cast<const uint8_t*>(Bytes(files, "mxfp4.codes").data()),
                                   reinterpret_cast<const uint8_t*>(Bytes(files, "mxfp4.scales").data())};
  EXPECT_EQ(Bits(Dequantize(weight)), Bits(Values<float>(files, "mxfp4.f32")));
}

TEST(MlxGoldens, TheQuantizerGivesTheSameCodesScalesAndBiases) {
  const SafetensorsSet& files = Goldens("mlx.safetensors");
  for (const MlxForm& form : MlxForms()) {
    const tensor::DenseWeight source{kRows, kCols, form.dtype, Bytes(files, "w." + form.dtype_name).data()};
    Memory memory;
    const auto weight = QuantizeAffine(source, {}, {form.bits, form.group}, memory.allocate(), 2);
    ASSERT_TRUE(weight.has_value()) << form.key();
    const auto& affine = std::get<tensor::AffineWeight>(*weight);
    const auto equal = [&](const void* got, const std::string& part) {
      const auto bytes = Bytes(files, form.key() + part);
      return std::memcmp(got, bytes.data(), bytes.size()) == 0;
    };
    EXPECT_TRUE(equal(affine.codes, ".codes")) << form.key();
    EXPECT_TRUE(equal(affine.scales, ".scales")) << form.key();
    EXPECT_TRUE(equal(affine.biases, ".biases")) << form.key();
    EXPECT_EQ(tensor::WeightBytes(*weight), AffineBytes(kRows, kCols, form.dtype, {form.bits, form.group}));
  }
}

TEST(Quantizer, TakesRowsInTheOrderGiven) {
  constexpr int64_t kCount = 700;  // enough for several threads
  std::vector<float> values(kCount * 64);
  for (size_t i = 0; i < values.size(); ++i) values[i] = static_cast<float>(i % 977) / 100 - 4;
  std::vector<int32_t> order(kCount);
  for (int32_t r = 0; r < kCount; ++r) order[static_cast<size_t>(r)] = r * 11 % kCount;
  Memory memory;
  const tensor::DenseWeight source{kCount, 64, DType::kF32, values.data()};
  const auto plain = QuantizeAffine(source, {}, {4, 64}, memory.allocate(), 1);
  const auto ordered = QuantizeAffine(source, order, {4, 64}, memory.allocate(), 3);
  ASSERT_TRUE(plain.has_value() && ordered.has_value());
  std::vector<float> expected(64), got(64);
  for (int64_t r = 0; r < kCount; ++r) {
    tensor::DequantizeRow(*plain, order[static_cast<size_t>(r)], expected.data());
    tensor::DequantizeRow(*ordered, r, got.data());
    ASSERT_EQ(got, expected) << r;
  }
}

TEST(Quantizer, RefusesWhatIsNoFiniteNumber) {
  const float infinity = std::numeric_limits<float>::infinity();
  const float largest = std::numeric_limits<float>::max();
  for (const std::array<float, 2> bad : {std::array{infinity, 0.0f}, std::array{0.0f, -infinity},
                                         std::array{std::nanf(""), 1.0f}, std::array{largest, -largest}}) {
    std::vector<float> values(64, 0.5f);
    values[40] = bad[0];
    values[41] = bad[1];
    Memory memory;
    const auto weight = QuantizeAffine({1, 64, DType::kF32, values.data()}, {}, {4, 64}, memory.allocate());
    ASSERT_FALSE(weight.has_value());
    EXPECT_EQ(weight.error().code(), StatusCode::kDataLoss);
  }
}

class GgufGoldens : public testing::TestWithParam<GgmlType> {};

TEST_P(GgufGoldens, DecodedAndConvertedBlocks) {
  const GgmlTypeTraits& traits = *FindGgmlType(static_cast<uint32_t>(GetParam()));
  const SafetensorsSet& files = Goldens("gguf.safetensors");
  const auto expected = Values<float>(files, std::string(traits.name) + ".f32");
  const auto blocks = Bytes(files, std::string(traits.name) + ".blocks");
  const auto count = static_cast<int64_t>(expected.size());
  ASSERT_EQ(blocks.size(), static_cast<size_t>(count / traits.block_elements * traits.block_bytes));
  std::vector<float> decoded(expected.size());
  ASSERT_TRUE(DecodeGgmlRow(traits.type, blocks.data(), count, decoded.data()).ok());
  EXPECT_EQ(Bits(decoded), Bits(expected));
  Memory memory;
  const auto weight = ConvertGgmlMatrix({traits.type, 1, count, blocks, {}}, memory.allocate());
  ASSERT_TRUE(weight.has_value());
  EXPECT_EQ(Dequantize(*weight), expected);  // as floats: a bias of -0 may turn the sign of a zero
}

INSTANTIATE_TEST_SUITE_P(AllTypes, GgufGoldens,
                         testing::Values(GgmlType::kF16, GgmlType::kBF16, GgmlType::kQ4_0, GgmlType::kQ4_1,
                                         GgmlType::kQ5_0, GgmlType::kQ5_1, GgmlType::kQ8_0, GgmlType::kIQ4_NL,
                                         GgmlType::kIQ4_XS, GgmlType::kQ2_K, GgmlType::kQ3_K, GgmlType::kQ4_K,
                                         GgmlType::kQ5_K, GgmlType::kQ6_K, GgmlType::kMXFP4),
                         [](const auto& type) { return FindGgmlType(static_cast<uint32_t>(type.param))->name; });

}  // namespace
}  // namespace pensieve::formats
