#include "formats/ggml_blocks.h"

#include <fmt/format.h>

#include <cmath>
#include <cstring>

#include "base/half.h"

namespace pensieve::formats {
namespace {

constexpr GgmlTypeTraits kTypes[] = {
    {GgmlType::kF32, "F32", 1, 4, true},
    {GgmlType::kF16, "F16", 1, 2, true},
    {GgmlType::kQ4_0, "Q4_0", 32, 18, true},
    {GgmlType::kQ4_1, "Q4_1", 32, 20, true},
    {GgmlType::kQ5_0, "Q5_0", 32, 22, true},
    {GgmlType::kQ5_1, "Q5_1", 32, 24, true},
    {GgmlType::kQ8_0, "Q8_0", 32, 34, true},
    {GgmlType::kQ8_1, "Q8_1", 32, 36, false},
    {GgmlType::kQ2_K, "Q2_K", 256, 84, true},
    {GgmlType::kQ3_K, "Q3_K", 256, 110, true},
    {GgmlType::kQ4_K, "Q4_K", 256, 144, true},
    {GgmlType::kQ5_K, "Q5_K", 256, 176, true},
    {GgmlType::kQ6_K, "Q6_K", 256, 210, true},
    {GgmlType::kQ8_K, "Q8_K", 256, 292, false},
    {GgmlType::kIQ2_XXS, "IQ2_XXS", 256, 66, false},
    {GgmlType::kIQ2_XS, "IQ2_XS", 256, 74, false},
    {GgmlType::kIQ3_XXS, "IQ3_XXS", 256, 98, false},
    {GgmlType::kIQ1_S, "IQ1_S", 256, 50, false},
    {GgmlType::kIQ4_NL, "IQ4_NL", 32, 18, true},
    {GgmlType::kIQ3_S, "IQ3_S", 256, 110, false},
    {GgmlType::kIQ2_S, "IQ2_S", 256, 82, false},
    {GgmlType::kIQ4_XS, "IQ4_XS", 256, 136, true},
    {GgmlType::kI8, "I8", 1, 1, false},
    {GgmlType::kI16, "I16", 1, 2, false},
    {GgmlType::kI32, "I32", 1, 4, false},
    {GgmlType::kI64, "I64", 1, 8, false},
    {GgmlType::kF64, "F64", 1, 8, true},
    {GgmlType::kIQ1_M, "IQ1_M", 256, 56, false},
    {GgmlType::kBF16, "BF16", 1, 2, true},
    {GgmlType::kTQ1_0, "TQ1_0", 256, 54, false},
    {GgmlType::kTQ2_0, "TQ2_0", 256, 66, false},
    {GgmlType::kMXFP4, "MXFP4", 32, 17, true},
};

// --- one decoder a block type: formulas of the file's first comment and of each struct -------------------------------

void Decode(const BlockQ4_0& b, float* y) {
  const float d = F16ToF32(b.d);
  for (int j = 0; j < 16; ++j) {
    y[j] = static_cast<float>((b.qs[j] & 15) - 8) * d;
    y[j + 16] = static_cast<float>((b.qs[j] >> 4) - 8) * d;
  }
}

void Decode(const BlockQ4_1& b, float* y) {
  const float d = F16ToF32(b.d);
  const float m = F16ToF32(b.m);
  for (int j = 0; j < 16; ++j) {
    y[j] = static_cast<float>(b.qs[j] & 15) * d + m;
    y[j + 16] = static_cast<float>(b.qs[j] >> 4) * d + m;
  }
}

uint32_t HighBits(const uint8_t* qh) {
  uint32_t bits;
  std::memcpy(&bits, qh, sizeof(bits));
  return bits;
}

void Decode(const BlockQ5_0& b, float* y) {
  const float d = F16ToF32(b.d);
  const uint32_t qh = HighBits(b.qh);
  for (int j = 0; j < 16; ++j) {
    y[j] = static_cast<float>(static_cast<int>((b.qs[j] & 15) | (((qh >> j) & 1) << 4)) - 16) * d;
    y[j + 16] = static_cast<float>(static_cast<int>((b.qs[j] >> 4) | (((qh >> (j + 16)) & 1) << 4)) - 16) * d;
  }
}

void Decode(const BlockQ5_1& b, float* y) {
  const float d = F16ToF32(b.d);
  const float m = F16ToF32(b.m);
  const uint32_t qh = HighBits(b.qh);
  for (int j = 0; j < 16; ++j) {
    y[j] = static_cast<float>((b.qs[j] & 15) | (((qh >> j) & 1) << 4)) * d + m;
    y[j + 16] = static_cast<float>((b.qs[j] >> 4) | (((qh >> (j + 16)) & 1) << 4)) * d + m;
  }
}

void Decode(const BlockQ8_0& b, float* y) {
  const float d = F16ToF32(b.d);
  for (int j = 0; j < 32; ++j) y[j] = static_cast<float>(b.qs[j]) * d;
}

void Decode(const BlockIQ4_NL& b, float* y) {
  const float d = F16ToF32(b.d);
  for (int j = 0; j < 16; ++j) {
    y[j] = d * static_cast<float>(kIq4Values[b.qs[j] & 15]);
    y[j + 16] = d * static_cast<float>(kIq4Values[b.qs[j] >> 4]);
  }
}

void Decode(const BlockMXFP4& b, float* y) {
  // Unlike OCP's, the ninth value of this table is no negative zero.
  static constexpr float kE2m1[16] = {0, 0.5f, 1, 1.5f, 2, 3, 4, 6, 0, -0.5f, -1, -1.5f, -2, -3, -4, -6};
  for (int j = 0; j < 16; ++j) {
    y[j] = std::ldexp(kE2m1[b.qs[j] & 15], b.e - 127);
    y[j + 16] = std::ldexp(kE2m1[b.qs[j] >> 4], b.e - 127);
  }
}

void Decode(const BlockQ2_K& b, float* y) {
  const float d = F16ToF32(b.d);
  const float dmin = F16ToF32(b.dmin);
  for (int e = 0; e < 256; ++e) {
    const int n = e / 128, j = e / 32 % 4, h = e / 16 % 2, l = e % 16;
    const uint8_t sc = b.scales[8 * n + 2 * j + h];
    const float scale = d * static_cast<float>(sc & 15);
    const float minimum = dmin * static_cast<float>(sc >> 4);
    y[e] = scale * static_cast<float>((b.qs[32 * n + 16 * h + l] >> (2 * j)) & 3) - minimum;
  }
}

void Decode(const BlockQ3_K& b, float* y) {
  const float d = F16ToF32(b.d);
  for (int e = 0; e < 256; ++e) {
    const int n = e / 128, j = e / 32 % 4, h = e / 16 % 2, l = e % 16;
    const int low = (b.qs[32 * n + 16 * h + l] >> (2 * j)) & 3;
    const int code = low - (((b.hmask[16 * h + l] >> (4 * n + j)) & 1) != 0 ? 0 : 4);
    const float scale = d * static_cast<float>(UnpackQ3Scale(b.scales, 8 * n + 2 * j + h));
    y[e] = scale * static_cast<float>(code);
  }
}

void Decode(const BlockQ4_K& b, float* y) {
  const float d = F16ToF32(b.d);
  const float dmin = F16ToF32(b.dmin);
  for (int sub = 0; sub < 8; ++sub) {
    const ScaleMin sm = UnpackScaleMin(b.scales, sub);
    const float scale = d * static_cast<float>(sm.scale);
    const float minimum = dmin * static_cast<float>(sm.min);
    const uint8_t* qs = b.qs + 32 * (sub / 2);
    for (int l = 0; l < 32; ++l) {
      y[32 * sub + l] = scale * static_cast<float>((qs[l] >> (4 * (sub % 2))) & 15) - minimum;
    }
  }
}

void Decode(const BlockQ5_K& b, float* y) {
  const float d = F16ToF32(b.d);
  const float dmin = F16ToF32(b.dmin);
  for (int sub = 0; sub < 8; ++sub) {
    const ScaleMin sm = UnpackScaleMin(b.scales, sub);
    const float scale = d * static_cast<float>(sm.scale);
    const float minimum = dmin * static_cast<float>(sm.min);
    const uint8_t* qs = b.qs + 32 * (sub / 2);
    for (int l = 0; l < 32; ++l) {
      const int code = ((qs[l] >> (4 * (sub % 2))) & 15) | (((b.qh[l] >> sub) & 1) << 4);
      y[32 * sub + l] = scale * static_cast<float>(code) - minimum;
    }
  }
}

void Decode(const BlockQ6_K& b, float* y) {
  const float d = F16ToF32(b.d);
  for (int e = 0; e < 256; ++e) {
    const int n = e / 128, quarter = e / 32 % 4, l = e % 32;
    const uint8_t low = b.ql[64 * n + 32 * (quarter % 2) + l];
    const int code = ((low >> (4 * (quarter / 2))) & 15) | (((b.qh[32 * n + l] >> (2 * quarter)) & 3) << 4);
    const float scale = d * static_cast<float>(b.scales[8 * n + 2 * quarter + l / 16]);
    y[e] = scale * static_cast<float>(code - 32);
  }
}

void Decode(const BlockIQ4_XS& b, float* y) {
  const float d = F16ToF32(b.d);
  for (int sub = 0; sub < 8; ++sub) {
    const float scale = d * static_cast<float>(UnpackIq4XsScale(b, sub));
    for (int j = 0; j < 16; ++j) {
      y[32 * sub + j] = scale * static_cast<float>(kIq4Values[b.qs[16 * sub + j] & 15]);
      y[32 * sub + 16 + j] = scale * static_cast<float>(kIq4Values[b.qs[16 * sub + j] >> 4]);
    }
  }
}

template <typename Block, int kElements>
void DecodeBlocks(const std::byte* blocks, int64_t elements, float* out) {
  for (int64_t i = 0; i < elements / kElements; ++i) {
    Block block;
    std::memcpy(&block, blocks + i * static_cast<int64_t>(sizeof(Block)), sizeof(Block));
    Decode(block, out + i * kElements);
  }
}

template <typename Stored, typename Widen>
void DecodeDense(const std::byte* values, int64_t elements, float* out, Widen widen) {
  for (int64_t i = 0; i < elements; ++i) {
    Stored stored;
    std::memcpy(&stored, values + i * static_cast<int64_t>(sizeof(Stored)), sizeof(Stored));
    out[i] = widen(stored);
  }
}

}  // namespace

const GgmlTypeTraits* FindGgmlType(uint32_t type) {
  for (const GgmlTypeTraits& traits : kTypes) {
    if (static_cast<uint32_t>(traits.type) == type) return &traits;
  }
  return nullptr;
}

Status DecodeGgmlRow(GgmlType type, const std::byte* blocks, int64_t elements, float* out) {
  const GgmlTypeTraits* traits = FindGgmlType(static_cast<uint32_t>(type));
  PENSIEVE_CHECK(traits != nullptr && elements % traits->block_elements == 0);
  switch (type) {
    case GgmlType::kF32: DecodeDense<float>(blocks, elements, out, [](float v) { return v; }); break;
    case GgmlType::kF16: DecodeDense<uint16_t>(blocks, elements, out, F16ToF32); break;
    case GgmlType::kBF16: DecodeDense<uint16_t>(blocks, elements, out, Bf16ToF32); break;
    case GgmlType::kF64:
      DecodeDense<double>(blocks, elements, out, [](double v) { return static_cast<float>(v); });
      break;
    case GgmlType::kQ4_0: DecodeBlocks<BlockQ4_0, 32>(blocks, elements, out); break;
    case GgmlType::kQ4_1: DecodeBlocks<BlockQ4_1, 32>(blocks, elements, out); break;
    case GgmlType::kQ5_0: DecodeBlocks<BlockQ5_0, 32>(blocks, elements, out); break;
    case GgmlType::kQ5_1: DecodeBlocks<BlockQ5_1, 32>(blocks, elements, out); break;
    case GgmlType::kQ8_0: DecodeBlocks<BlockQ8_0, 32>(blocks, elements, out); break;
    case GgmlType::kIQ4_NL: DecodeBlocks<BlockIQ4_NL, 32>(blocks, elements, out); break;
    case GgmlType::kMXFP4: DecodeBlocks<BlockMXFP4, 32>(blocks, elements, out); break;
    case GgmlType::kQ2_K: DecodeBlocks<BlockQ2_K, 256>(blocks, elements, out); break;
    case GgmlType::kQ3_K: DecodeBlocks<BlockQ3_K, 256>(blocks, elements, out); break;
    case GgmlType::kQ4_K: DecodeBlocks<BlockQ4_K, 256>(blocks, elements, out); break;
    case GgmlType::kQ5_K: DecodeBlocks<BlockQ5_K, 256>(blocks, elements, out); break;
    case GgmlType::kQ6_K: DecodeBlocks<BlockQ6_K, 256>(blocks, elements, out); break;
    case GgmlType::kIQ4_XS: DecodeBlocks<BlockIQ4_XS, 256>(blocks, elements, out); break;
    default: return Unimplemented(fmt::format("tensor type {} cannot be decoded", traits->name));
  }
  return OkStatus();
}

}  // namespace pensieve::formats
