#include "tensor/weight.h"

#include <array>
#include <cmath>
#include <cstring>

#include "base/check.h"
#include "base/half.h"

namespace pensieve::tensor {
namespace {

// One float of a possibly unaligned array.
float LoadFloat(const void* base, DType dtype, int64_t index) {
  const auto* bytes = static_cast<const uint8_t*>(base) + index * static_cast<int64_t>(DTypeBytes(dtype));
  if (dtype == DType::kF32) {
    float value;
    std::memcpy(&value, bytes, sizeof(value));
    return value;
  }
  uint16_t half;
  std::memcpy(&half, bytes, sizeof(half));
  return dtype == DType::kF16 ? F16ToF32(half) : Bf16ToF32(half);
}

// Element `index` of a row's bit stream. Reads no byte past the element's last one.
uint32_t LoadCode(const uint8_t* row, int bits, int64_t index) {
  const int64_t bit = index * bits;
  const auto shift = static_cast<uint32_t>(bit & 7);
  uint32_t window = row[bit >> 3];
  if (shift + static_cast<uint32_t>(bits) > 8) window |= static_cast<uint32_t>(row[(bit >> 3) + 1]) << 8;
  return (window >> shift) & ((1u << bits) - 1u);
}

void DequantizeForm(const AffineWeight& w, int64_t row, float* out) {
  const uint8_t* codes = w.codes + row * w.row_bytes();
  for (int64_t k = 0; k < w.cols; ++k) {
    const int64_t group = row * w.groups() + k / w.group;
    const float scale = LoadFloat(w.scales, w.scale_dtype, group);
    const auto q = static_cast<float>(LoadCode(codes, w.bits, k));
    if (w.biases == nullptr) {
      out[k] = scale * (q - static_cast<float>(1 << (w.bits - 1)));
    } else {
      const float bias = LoadFloat(w.biases, w.scale_dtype, group);
      const float product = scale * q;
      out[k] = product + bias;
    }
  }
}

void DequantizeForm(const Mxfp4Weight& w, int64_t row, float* out) {
  static constexpr std::array<float, 16> kE2m1 = {0,     0.5f,  1,  1.5f,  2,  3,  4,  6,
                                                  -0.0f, -0.5f, -1, -1.5f, -2, -3, -4, -6};
  const uint8_t* codes = w.codes + row * (w.cols / 2);
  const uint8_t* scales = w.scales + row * (w.cols / 32);
  for (int64_t k = 0; k < w.cols; ++k) {
    const float value = kE2m1[(codes[k / 2] >> (4 * (k & 1))) & 15u];
    out[k] = std::ldexp(value, static_cast<int>(scales[k / 32]) - 127);
  }
}

void DequantizeForm(const DenseWeight& w, int64_t row, float* out) {
  for (int64_t k = 0; k < w.cols; ++k) out[k] = LoadFloat(w.data, w.dtype, row * w.cols + k);
}

size_t FormBytes(const AffineWeight& w) {
  const auto per_group = DTypeBytes(w.scale_dtype) * (w.biases == nullptr ? 1 : 2);
  return static_cast<size_t>(w.rows * w.row_bytes()) + static_cast<size_t>(w.rows * w.groups()) * per_group;
}
size_t FormBytes(const Mxfp4Weight& w) { return static_cast<size_t>(w.rows * (w.cols / 2 + w.cols / 32)); }
size_t FormBytes(const DenseWeight& w) { return static_cast<size_t>(w.rows * w.cols) * DTypeBytes(w.dtype); }

const void* Advance(const void* base, int64_t bytes) {
  return base == nullptr ? nullptr : static_cast<const uint8_t*>(base) + bytes;
}

Weight SliceForm(AffineWeight w, int64_t first, int64_t count) {
  const int64_t scale_offset = first * w.groups() * static_cast<int64_t>(DTypeBytes(w.scale_dtype));
  w.codes += first * w.row_bytes();
  w.scales = Advance(w.scales, scale_offset);
  w.biases = Advance(w.biases, scale_offset);
  w.rows = count;
  return w;
}
Weight SliceForm(Mxfp4Weight w, int64_t first, int64_t count) {
  w.codes += first * (w.cols / 2);
  w.scales += first * (w.cols / 32);
  w.rows = count;
  return w;
}
Weight SliceForm(DenseWeight w, int64_t first, int64_t count) {
  w.data = Advance(w.data, first * w.cols * static_cast<int64_t>(DTypeBytes(w.dtype)));
  w.rows = count;
  return w;
}

}  // namespace

const char* DTypeName(DType type) {
  static constexpr std::array<const char*, 13> kNames = {"F32", "F16", "BF16", "F64", "I64", "I32", "I16",
                                                         "I8",  "U64", "U32",  "U16", "U8",  "BOOL"};
  return kNames[static_cast<size_t>(type)];
}

size_t WeightBytes(const Weight& w) {
  return std::visit([](const auto& form) { return FormBytes(form); }, w);
}

Weight SliceRows(const Weight& w, int64_t first, int64_t count) {
  PENSIEVE_CHECK(first >= 0 && count >= 0 && first + count <= Rows(w));
  return std::visit([&](const auto& form) { return SliceForm(form, first, count); }, w);
}

void DequantizeRow(const Weight& w, int64_t row, float* out) {
  PENSIEVE_CHECK(row >= 0 && row < Rows(w));
  std::visit([&](const auto& form) { DequantizeForm(form, row, out); }, w);
}

}  // namespace pensieve::tensor
