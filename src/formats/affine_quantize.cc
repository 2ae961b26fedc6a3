#include "formats/affine_quantize.h"

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstring>
#include <limits>
#include <vector>

#include "base/check.h"
#include "base/half.h"
#include "formats/row_ranges.h"

namespace pensieve::formats {
namespace {

using tensor::DType;

struct Group {
  float scale;
  float bias;
};

void LoadRow(const tensor::DenseWeight& source, int64_t row, std::vector<float>& out) {
  const size_t element = tensor::DTypeBytes(source.dtype);
  const auto* bytes = static_cast<const std::byte*>(source.data) + static_cast<size_t>(row * source.cols) * element;
  if (source.dtype == DType::kF32) {
    std::memcpy(out.data(), bytes, out.size() * element);
    return;
  }
  const auto convert = [&](auto to_float) {
    for (size_t i = 0; i < out.size(); ++i) {
      uint16_t half;
      std::memcpy(&half, bytes + 2 * i, sizeof(half));
      out[i] = to_float(half);
    }
  };
  source.dtype == DType::kF16 ? convert(F16ToF32) : convert(Bf16ToF32);
}

void Store(float value, DType dtype, std::byte* out) {
  if (dtype == DType::kF32) {
    std::memcpy(out, &value, sizeof(value));
    return;
  }
  const uint16_t half = dtype == DType::kF16 ? F32ToF16(value) : F32ToBf16(value);
  std::memcpy(out, &half, sizeof(half));
}

// Scale and bias of a group; false when one of its values, or their range, is no finite number.
bool Measure(std::span<const float> values, float steps, Group& group) {
  float least = std::numeric_limits<float>::infinity();
  float most = -least;
  float sum = 0;  // a NaN escapes the comparisons, but not the sum
  for (const float value : values) {
    most = std::max(most, value);
    least = std::min(least, value);
    sum += value - value;
  }
  if (sum != 0 || !std::isfinite(most - least)) return false;
  const bool negative_edge = std::fabs(least) > std::fabs(most);
  float scale = std::max((most - least) / steps, 1e-7f);
  if (!negative_edge) scale = -scale;
  const float edge = negative_edge ? least : most;
  const float zero = std::rint(edge / scale);
  group = zero != 0 ? Group{edge / zero, edge} : Group{scale, 0.0f};
  return true;
}

// A multiple of 32 values as codes, packed as one little-endian bit stream.
void Encode(std::span<const float> values, const Group& group, int bits, uint8_t* out) {
  const auto most = static_cast<float>((1 << bits) - 1);
  for (size_t at = 0; at < values.size(); at += 32) {
    int32_t q[32];
    for (size_t i = 0; i < 32; ++i) {
      const float code = std::rint((values[at + i] - group.bias) / group.scale);
      q[i] = static_cast<int32_t>(std::min(std::max(code, 0.0f), most));
    }
    for (size_t i = 0; i < 32; i += 8) {
      uint64_t packed = 0;
      for (size_t j = 0; j < 8; ++j) packed |= static_cast<uint64_t>(q[i + j]) << (j * static_cast<size_t>(bits));
      std::memcpy(out, &packed, static_cast<size_t>(bits));
      out += bits;
    }
  }
}

}  // namespace

size_t AffineBytes(int64_t rows, int64_t cols, DType scale_dtype, const AffineFormat& format) {
  const auto scales = 2 * cols / format.group * static_cast<int64_t>(tensor::DTypeBytes(scale_dtype));
  return static_cast<size_t>(rows * (cols * format.bits / 8 + scales));
}

Result<tensor::Weight> QuantizeAffine(const tensor::DenseWeight& source, std::span<const int32_t> source_rows,
                                      const AffineFormat& format, const AllocateBytes& allocate, int threads) {
  PENSIEVE_CHECK(format.group % 32 == 0 && source.cols % format.group == 0);
  PENSIEVE_CHECK(source_rows.empty() || source_rows.size() == static_cast<size_t>(source.rows));
  const int64_t groups = source.cols / format.group;
  const auto scale_bytes = static_cast<int64_t>(tensor::DTypeBytes(source.dtype));
  tensor::AffineWeight target{.rows = source.rows,
                              .cols = source.cols,
                              .bits = format.bits,
                              .group = format.group,
                              .codes = nullptr,
                              .scale_dtype = source.dtype,
                              .scales = nullptr,
                              .biases = nullptr};
  PENSIEVE_TRY(std::byte* const codes, allocate(static_cast<size_t>(target.rows * target.row_bytes())));
  PENSIEVE_TRY(std::byte* const scales, allocate(static_cast<size_t>(target.rows * groups * scale_bytes)));
  PENSIEVE_TRY(std::byte* const biases, allocate(static_cast<size_t>(target.rows * groups * scale_bytes)));
  target.codes = reinterpret_cast<const uint8_t*>(codes);
  target.scales = scales;
  target.biases = biases;

  const auto steps = static_cast<float>((1 << format.bits) - 1);
  const auto group_size = static_cast<size_t>(format.group);
  std::atomic<bool> finite = true;
  ForRowRanges(source.rows, source.cols * scale_bytes, threads, [&](int64_t first, int64_t last) {
    std::vector<float> row(static_cast<size_t>(source.cols));
    for (int64_t r = first; r < last; ++r) {
      LoadRow(source, source_rows.empty() ? r : source_rows[static_cast<size_t>(r)], row);
      for (int64_t g = 0; g < groups; ++g) {
        const std::span<const float> values(row.data() + static_cast<size_t>(g) * group_size, group_size);
        Group group;
        if (!Measure(values, steps, group)) {
          finite = false;
          return;
        }
        Encode(values, group, format.bits,
               reinterpret_cast<uint8_t*>(codes) + r * target.row_bytes() + g * format.group * format.bits / 8);
        const int64_t at = (r * groups + g) * scale_bytes;
        Store(group.scale, source.dtype, scales + at);
        Store(group.bias, source.dtype, biases + at);
      }
    }
  });
  if (!finite) return DataLoss("holds a value that is no finite number, which cannot be quantized");
  return tensor::Weight(target);
}

}  // namespace pensieve::formats
