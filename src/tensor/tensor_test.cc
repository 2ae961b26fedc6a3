#include <gtest/gtest.h>

#include <cstring>
#include <vector>

#include "base/half.h"
#include "tensor/buffer.h"
#include "tensor/weight.h"

namespace pensieve::tensor {
namespace {

// The specification's packing vectors: q_i = (7i + 3) mod 2^bits, i = 0..31.
struct PackingVector {
  int bits;
  std::vector<uint32_t> words;
};
const std::vector<PackingVector> kPacking = {
    {2, {0x1b1b1b1b, 0x1b1b1b1b}},
    {3, {0x53977053, 0x70539770, 0x97705397}},
    {4, {0x4d6f81a3, 0xc5e7092b, 0x4d6f81a3, 0xc5e7092b}},
    {5, {0x4dfc4543, 0x78245ba3, 0x0753617d, 0x4b276cf4, 0xe55c7066}},
    {6, {0x9f611283, 0x90bbd2d9, 0xb2579740, 0x8f201eb3, 0x9cab91d5, 0x71538703}},
    {8, {0x18110a03, 0x342d261f, 0x5049423b, 0x6c655e57, 0x88817a73, 0xa49d968f, 0xc0b9b2ab, 0xdcd5cec7}},
};

TEST(Weight, UnpacksEveryWidthAsTheFormatSays) {
  const float scale = 0.5f;
  const float bias = -1.25f;
  for (const auto& [bits, words] : kPacking) {
    AffineWeight w{.rows = 1,
                   .cols = 32,
                   .bits = bits,
                   .group = 32,
                   .codes = reinterpret_cast<const uint8_t*>(words.data()),
                   .scale_dtype = DType::kF32,
                   .scales = &scale,
                   .biases = &bias};
    std::vector<float> row(32);
    DequantizeRow(w, 0, row.data());
    for (int i = 0; i < 32; ++i)
      EXPECT_EQ(row[i], 0.5f * static_cast<float>((7 * i + 3) % (1 << bits)) - 1.25f) << bits;
    w.biases = nullptr;
    DequantizeRow(w, 0, row.data());
    for (int i = 0; i < 32; ++i)
      EXPECT_EQ(row[i], 0.5f * static_cast<float>((7 * i + 3) % (1 << bits) - (1 << (bits - 1))));
  }
}

TEST(Weight, DecodesMxfp4) {
  const std::vector<uint32_t> words = {0x76543210, 0xfedcba98, 0, 0};
  const uint8_t scale = 0x7d;
  const Mxfp4Weight w{.rows = 1, .cols = 32, .codes = reinterpret_cast<const uint8_t*>(words.data()), .scales = &scale};
  std::vector<float> row(32);
  DequantizeRow(w, 0, row.data());
  const std::vector<float> expected = {0, .125f,  .25f,  .375f,  .5f,  .75f,  1,  1.5f,
                                       0, -.125f, -.25f, -.375f, -.5f, -.75f, -1, -1.5f};
  for (size_t i = 0; i < expected.size(); ++i) EXPECT_EQ(row[i], expected[i]);
}

TEST(Weight, SlicedRowsKeepTheirScales) {
  const std::vector<uint8_t> codes = {0x10, 0x32, 0x54, 0x76, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
                                      0xff, 0xee, 0,    0,    0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0};
  const std::vector<uint16_t> scales = {F32ToF16(1), F32ToF16(2)};
  const AffineWeight w{.rows = 2,
                       .cols = 32,
                       .bits = 4,
                       .group = 32,
                       .codes = codes.data(),
                       .scale_dtype = DType::kF16,
                       .scales = scales.data()};
  std::vector<float> row(32);
  DequantizeRow(SliceRows(w, 1, 1), 0, row.data());
  EXPECT_EQ(row[0], 14.0f);
  EXPECT_EQ(row[2], 12.0f);
  EXPECT_EQ(WeightBytes(SliceRows(w, 1, 1)), 16u + 2u);
}

TEST(Buffer, IsAlignedZeroedAndRefusesTheImpossible) {
  for (const size_t size : {size_t{1}, size_t{4097}, (size_t{2} << 20) + 5}) {
    auto buffer = Buffer::Allocate(size);
    ASSERT_TRUE(buffer.has_value());
    EXPECT_EQ(reinterpret_cast<uintptr_t>(buffer->data()) % 64, 0u);
    EXPECT_EQ(buffer->size(), size);
    EXPECT_EQ(buffer->as<char>()[size - 1], 0);
    std::memset(buffer->data(), 1, size);
  }
  EXPECT_EQ(Buffer::Allocate(SIZE_MAX / 2).error().code(), StatusCode::kResourceExhausted);
}

}  // namespace
}  // namespace pensieve::tensor
