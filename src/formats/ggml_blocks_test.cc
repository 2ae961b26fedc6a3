#include "formats/ggml_blocks.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <map>
#include <random>
#include <vector>

#include "base/half.h"
#include "formats/ggml_convert.h"

namespace pensieve::formats {
namespace {

constexpr uint16_t kHalf = 0x3800;     // 0.5
constexpr uint16_t kQuarter = 0x3400;  // 0.25
constexpr uint16_t kEighth = 0x3000;   // 0.125

template <typename Block>
std::vector<float> DecodeOne(GgmlType type, const Block& block) {
  const int64_t elements = FindGgmlType(static_cast<uint32_t>(type))->block_elements;
  std::vector<float> out(static_cast<size_t>(elements));
  EXPECT_TRUE(DecodeGgmlRow(type, reinterpret_cast<const std::byte*>(&block), elements, out.data()).ok());
  return out;
}

void ExpectValues(const std::vector<float>& y, const std::map<int, float>& expected, double sum) {
  for (const auto& [index, value] : expected) EXPECT_EQ(y[static_cast<size_t>(index)], value) << index;
  double total = 0;
  for (const float value : y) total += value;
  EXPECT_EQ(total, sum);
}

constexpr uint8_t kKScales[12] = {0x41, 0x82, 0xC3, 0x04, 0x45, 0x86, 0xC7, 0x08, 0x21, 0x43, 0x65, 0x87};

// The specification's vectors.
TEST(GgmlBlocks, DecodesQ4K) {
  BlockQ4_K block{.d = kHalf, .dmin = kQuarter, .scales = {}, .qs = {}};
  std::memcpy(block.scales, kKScales, 12);
  for (int i = 0; i < 128; ++i) block.qs[i] = static_cast<uint8_t>(16 * ((i + 3) % 16) + i % 16);
  ExpectValues(DecodeOne(GgmlType::kQ4_K, block),
               {{0, -1.25f},
                {1, -.75f},
                {2, -.25f},
                {31, 6.25f},
                {32, 1.5f},
                {33, 2.5f},
                {64, -1.75f},
                {65, -.25f},
                {96, 4},
                {128, -4.5f},
                {160, 43.5f},
                {192, -13.5f},
                {224, 8.5f},
                {255, 5}},
               13504);
}

TEST(GgmlBlocks, DecodesQ5K) {
  BlockQ5_K block{.d = kHalf, .dmin = kQuarter, .scales = {}, .qh = {}, .qs = {}};
  std::memcpy(block.scales, kKScales, 12);
  for (int i = 0; i < 128; ++i) block.qs[i] = static_cast<uint8_t>(13 * i + 7);
  for (int i = 0; i < 32; ++i) block.qh[i] = static_cast<uint8_t>(5 * i + 3);
  ExpectValues(DecodeOne(GgmlType::kQ5_K, block),
               {{0, 10.25f},
                {1, .75f},
                {16, 10.25f},
                {32, 14.5f},
                {64, 8.75f},
                {96, 18},
                {127, 36},
                {128, 55},
                {200, 384},
                {255, 78.5f}},
               26264);
}

TEST(GgmlBlocks, DecodesQ6K) {
  BlockQ6_K block{};
  block.d = kEighth;
  for (int i = 0; i < 128; ++i) block.ql[i] = static_cast<uint8_t>(7 * i + 1);
  for (int i = 0; i < 64; ++i) block.qh[i] = static_cast<uint8_t>(11 * i + 2);
  for (int i = 0; i < 16; ++i) block.scales[i] = static_cast<int8_t>(i - 8);
  ExpectValues(DecodeOne(GgmlType::kQ6_K, block),
               {{0, -1},
                {1, 8},
                {16, -.875f},
                {32, 23.25f},
                {64, 16},
                {96, 4.5f},
                {127, .625f},
                {128, 0},
                {200, 15.5f},
                {255, 6.125f}},
               97);
}

TEST(GgmlBlocks, DecodesQ3K) {
  BlockQ3_K block{};
  block.d = kHalf;
  for (int i = 0; i < 32; ++i) block.hmask[i] = static_cast<uint8_t>(5 * i + 3);
  for (int i = 0; i < 64; ++i) block.qs[i] = static_cast<uint8_t>(13 * i + 7);
  for (int i = 0; i < 12; ++i) block.scales[i] = static_cast<uint8_t>(29 * i + 17);
  const int scales[16] = {-15, 14, 27, -24, 5, -14, -17, -20, 17, -14, 20, -10, 24, -22, -21, -3};
  for (int k = 0; k < 16; ++k) EXPECT_EQ(UnpackQ3Scale(block.scales, k), scales[k]) << k;
  ExpectValues(DecodeOne(GgmlType::kQ3_K, block),
               {{0, -22.5f},
                {1, 30},
                {16, 21},
                {32, 13.5f},
                {64, -10},
                {96, 34},
                {127, -20},
                {128, -8.5f},
                {200, -48},
                {255, 0}},
               235);
}

TEST(GgmlBlocks, DecodesQ2K) {
  BlockQ2_K block{};
  block.d = kHalf;
  block.dmin = kQuarter;
  for (int i = 0; i < 16; ++i) block.scales[i] = static_cast<uint8_t>(37 * i + 5);
  for (int i = 0; i < 64; ++i) block.qs[i] = static_cast<uint8_t>(13 * i + 7);
  ExpectValues(DecodeOne(GgmlType::kQ2_K, block),
               {{0, 7.5f},
                {1, 0},
                {16, 14.5f},
                {32, 6.5f},
                {64, -2.25f},
                {96, -3.5f},
                {127, 8},
                {128, 19},
                {200, -3},
                {255, -.75f}},
               1034.5);
}

TEST(GgmlBlocks, DecodesTheBlocksOf32) {
  BlockQ4_0 q4_0{.d = kHalf, .qs = {}};
  q4_0.qs[3] = 0xf2;
  EXPECT_EQ(DecodeOne(GgmlType::kQ4_0, q4_0)[3], -3.0f);  // (2 - 8) / 2
  EXPECT_EQ(DecodeOne(GgmlType::kQ4_0, q4_0)[19], 3.5f);  // (15 - 8) / 2
  BlockQ4_1 q4_1{.d = kHalf, .m = kQuarter, .qs = {}};
  q4_1.qs[15] = 0x1c;
  EXPECT_EQ(DecodeOne(GgmlType::kQ4_1, q4_1)[15], 6.25f);
  EXPECT_EQ(DecodeOne(GgmlType::kQ4_1, q4_1)[31], 0.75f);
  BlockQ5_0 q5_0{.d = kHalf, .qh = {0x02, 0, 0, 0x80}, .qs = {}};
  q5_0.qs[1] = 0x03;
  EXPECT_EQ(DecodeOne(GgmlType::kQ5_0, q5_0)[1], 1.5f);   // 3 + 16 - 16
  EXPECT_EQ(DecodeOne(GgmlType::kQ5_0, q5_0)[31], 0.0f);  // 0 + 16 - 16
  EXPECT_EQ(DecodeOne(GgmlType::kQ5_0, q5_0)[0], -8.0f);
  BlockQ5_1 q5_1{.d = kHalf, .m = kQuarter, .qh = {0x02, 0, 0, 0x80}, .qs = {}};
  EXPECT_EQ(DecodeOne(GgmlType::kQ5_1, q5_1)[1], 8.25f);
  EXPECT_EQ(DecodeOne(GgmlType::kQ5_1, q5_1)[31], 8.25f);
  BlockQ8_0 q8_0{.d = kHalf, .qs = {}};
  q8_0.qs[31] = -128;
  EXPECT_EQ(DecodeOne(GgmlType::kQ8_0, q8_0)[31], -64.0f);
  BlockIQ4_NL iq4{.d = kHalf, .qs = {}};
  iq4.qs[0] = 0xf8;
  EXPECT_EQ(DecodeOne(GgmlType::kIQ4_NL, iq4)[0], 0.5f);
  EXPECT_EQ(DecodeOne(GgmlType::kIQ4_NL, iq4)[16], 56.5f);
  BlockMXFP4 mx{.e = 125, .qs = {}};
  mx.qs[2] = 0xa7;
  EXPECT_EQ(DecodeOne(GgmlType::kMXFP4, mx)[2], 1.5f);     // 6 / 4
  EXPECT_EQ(DecodeOne(GgmlType::kMXFP4, mx)[18], -0.25f);  // -1 / 4
  mx.e = 0;
  EXPECT_EQ(DecodeOne(GgmlType::kMXFP4, mx)[2], std::ldexp(6.0f, -127));
}

TEST(GgmlBlocks, RefusesTypesWithoutADecoder) {
  std::byte block[66] = {};
  float out[256];
  const Status status = DecodeGgmlRow(GgmlType::kIQ2_XXS, block, 256, out);
  EXPECT_EQ(status.code(), StatusCode::kUnimplemented);
  EXPECT_NE(status.message().find("IQ2_XXS"), std::string::npos);
  EXPECT_EQ(FindGgmlType(4), nullptr);
  EXPECT_EQ(FindGgmlType(4000), nullptr);
}

// --- conversion
// -------------------------------------------------------------------------------------------------------

// Random bytes, with f16 fields made finite where the block's scale could be NaN.
std::vector<std::byte> RandomBlocks(const GgmlTypeTraits& traits, int64_t blocks, std::mt19937& random) {
  std::vector<std::byte> bytes(static_cast<size_t>(blocks * traits.block_bytes));
  for (std::byte& byte : bytes) byte = static_cast<std::byte>(random());
  const auto finite = [&](int64_t offset) {
    if (offset + 2 > traits.block_bytes) return;
    for (int64_t i = 0; i < blocks; ++i) {
      const uint16_t half = F32ToF16(static_cast<float>(random() % 2001) / 1000.0f - 1.0f);
      std::memcpy(bytes.data() + i * traits.block_bytes + offset, &half, 2);
    }
  };
  switch (traits.type) {
    case GgmlType::kQ2_K: finite(80), finite(82); break;
    case GgmlType::kQ3_K: finite(108); break;
    case GgmlType::kQ6_K: finite(208); break;
    case GgmlType::kMXFP4:
      for (int64_t i = 0; i < blocks; ++i) bytes[static_cast<size_t>(i * 17)] = static_cast<std::byte>(random() % 255);
      break;
    default: finite(0), finite(2); break;
  }
  if (traits.type == GgmlType::kF32) {
    for (int64_t i = 0; i < blocks; ++i) bytes[static_cast<size_t>(4 * i + 3)] = std::byte{0x3f};
  }
  return bytes;
}

class Memory {
 public:
  AllocateBytes allocate() {
    return [this](size_t bytes) -> Result<std::byte*> {
      blocks_.emplace_back(bytes);
      return blocks_.back().data();
    };
  }

 private:
  std::vector<std::vector<std::byte>> blocks_;
};

class Conversion : public testing::TestWithParam<GgmlType> {};

TEST_P(Conversion, GivesTheDecodersValuesBitForBit) {
  const GgmlTypeTraits& traits = *FindGgmlType(static_cast<uint32_t>(GetParam()));
  std::mt19937 random(7);
  for (const int64_t blocks_per_row : {1, 3}) {
    constexpr int64_t kRows = 37;
    const int64_t cols = blocks_per_row * traits.block_elements;
    const auto bytes = RandomBlocks(traits, kRows * blocks_per_row, random);
    std::vector<int32_t> order(kRows);
    for (int32_t r = 0; r < kRows; ++r) order[static_cast<size_t>(r)] = (r * 5 + 3) % kRows;
    for (const bool permuted : {false, true}) {
      Memory memory;
      const GgmlMatrix matrix{traits.type, kRows, cols, bytes,
                              permuted ? std::span<const int32_t>(order) : std::span<const int32_t>()};
      const auto weight = ConvertGgmlMatrix(matrix, memory.allocate(), 3);
      ASSERT_TRUE(weight.has_value());
      EXPECT_EQ(tensor::WeightBytes(*weight), ConvertedBytes(traits.type, kRows, cols));
      std::vector<float> expected(static_cast<size_t>(cols)), got(static_cast<size_t>(cols));
      for (int64_t r = 0; r < kRows; ++r) {
        const int64_t source = permuted ? order[static_cast<size_t>(r)] : r;
        ASSERT_TRUE(DecodeGgmlRow(traits.type, bytes.data() + source * blocks_per_row * traits.block_bytes, cols,
                                  expected.data())
                        .ok());
        tensor::DequantizeRow(*weight, r, got.data());
        ASSERT_EQ(got, expected) << traits.name << " row " << r;  // == on floats: the two zeros are equal
      }
    }
  }
}

INSTANTIATE_TEST_SUITE_P(AllTypes, Conversion,
                         testing::Values(GgmlType::kF32, GgmlType::kF16, GgmlType::kBF16, GgmlType::kQ4_0,
                                         GgmlType::kQ4_1, GgmlType::kQ5_0, GgmlType::kQ5_1, GgmlType::kQ8_0,
                                         GgmlType::kIQ4_NL, GgmlType::kIQ4_XS, GgmlType::kQ2_K, GgmlType::kQ3_K,
                                         GgmlType::kQ4_K, GgmlType::kQ5_K, GgmlType::kQ6_K, GgmlType::kMXFP4),
                         [](const auto& type) { return FindGgmlType(static_cast<uint32_t>(type.param))->name; });

TEST(GgmlConversion, LeavesDenseTensorsWhereTheyAre) {
  const std::vector<float> values(12, 1.5f);
  const GgmlMatrix matrix{GgmlType::kF32, 3, 4, std::as_bytes(std::span(values)), {}};
  ASSERT_TRUE(UsedInPlace(matrix));
  const auto weight = ConvertGgmlMatrix(matrix, [](size_t) -> Result<std::byte*> { return Internal("not needed"); });
  ASSERT_TRUE(weight.has_value());
  EXPECT_EQ(std::get<tensor::DenseWeight>(*weight).data, values.data());
}

TEST(GgmlConversion, NamesTheTypeItCannotConvert) {
  const std::vector<std::byte> bytes(66);
  const auto weight = ConvertGgmlMatrix({GgmlType::kIQ2_XXS, 1, 256, bytes, {}}, nullptr);
  ASSERT_FALSE(weight.has_value());
  EXPECT_EQ(weight.error().code(), StatusCode::kUnimplemented);
  EXPECT_NE(weight.error().message().find("IQ2_XXS"), std::string::npos);
}

}  // namespace
}  // namespace pensieve::formats
