#include "formats/ggml_convert.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>
#include <optional>

#include "base/half.h"
#include "formats/row_ranges.h"

namespace pensieve::formats {
namespace {

// Where the rows of a converted matrix go. Strides are in bytes.
struct Target {
  uint8_t* codes = nullptr;
  std::byte* scales = nullptr;
  std::byte* biases = nullptr;  // null: symmetric
  int64_t codes_stride = 0;
  int64_t scales_stride = 0;
};

// Eight codes of kBits bits, one a byte, into kBits bytes: neighbours are joined in pairs, fours and eights.
template <int kBits>
inline void PackEight(const uint8_t* q, uint8_t* out) {
  uint64_t x;
  std::memcpy(&x, q, sizeof(x));
  x = (x & 0x00ff00ff00ff00ffull) | ((x >> 8 & 0x00ff00ff00ff00ffull) << kBits);
  x = (x & 0x0000ffff0000ffffull) | ((x >> 16 & 0x0000ffff0000ffffull) << (2 * kBits));
  x = (x & 0x00000000ffffffffull) | (x >> 32 << (4 * kBits));
  std::memcpy(out, &x, kBits);
}

// --- what each block type is as affine groups
// ------------------------------------------------------------------------- Unpack writes one code a byte in element
// order; Scales writes block_elements / kGroup scales (and biases).

template <typename T>
inline void Put(std::byte* out, int64_t index, T value) {
  std::memcpy(out + index * static_cast<int64_t>(sizeof(T)), &value, sizeof(T));
}

inline void UnpackNibbles(const uint8_t* qs, uint8_t* q) {
  for (int j = 0; j < 16; ++j) {
    q[j] = qs[j] & 15;
    q[j + 16] = qs[j] >> 4;
  }
}

// Adds bit j of four bytes to code j as its fifth bit.
inline void AddFifthBits(const uint8_t* qh, uint8_t* q) {
  for (int j = 0; j < 32; ++j) q[j] = static_cast<uint8_t>(q[j] | ((qh[j / 8] >> (j % 8)) & 1) << 4);
}

struct AsQ4_0 {
  using Block = BlockQ4_0;
  using Scale = uint16_t;
  static constexpr int kElements = 32, kBits = 4, kGroup = 32;
  static constexpr bool kBiased = false;
  static void Unpack(const Block& b, uint8_t* q) { UnpackNibbles(b.qs, q); }
  static void Scales(const Block& b, std::byte* scales, std::byte*) { Put(scales, 0, b.d); }
};

struct AsQ4_1 {
  using Block = BlockQ4_1;
  using Scale = uint16_t;
  static constexpr int kElements = 32, kBits = 4, kGroup = 32;
  static constexpr bool kBiased = true;
  static void Unpack(const Block& b, uint8_t* q) { UnpackNibbles(b.qs, q); }
  static void Scales(const Block& b, std::byte* scales, std::byte* biases) {
    Put(scales, 0, b.d);
    Put(biases, 0, b.m);
  }
};

struct AsQ5_0 {
  using Block = BlockQ5_0;
  using Scale = uint16_t;
  static constexpr int kElements = 32, kBits = 5, kGroup = 32;
  static constexpr bool kBiased = false;
  static void Unpack(const Block& b, uint8_t* q) {
    UnpackNibbles(b.qs, q);
    AddFifthBits(b.qh, q);
  }
  static void Scales(const Block& b, std::byte* scales, std::byte*) { Put(scales, 0, b.d); }
};

struct AsQ5_1 {
  using Block = BlockQ5_1;
  using Scale = uint16_t;
  static constexpr int kElements = 32, kBits = 5, kGroup = 32;
  static constexpr bool kBiased = true;
  static void Unpack(const Block& b, uint8_t* q) {
    UnpackNibbles(b.qs, q);
    AddFifthBits(b.qh, q);
  }
  static void Scales(const Block& b, std::byte* scales, std::byte* biases) {
    Put(scales, 0, b.d);
    Put(biases, 0, b.m);
  }
};

struct AsQ8_0 {
  using Block = BlockQ8_0;
  using Scale = uint16_t;
  static constexpr int kElements = 32, kBits = 8, kGroup = 32;
  static constexpr bool kBiased = false;
  static void Unpack(const Block& b, uint8_t* q) {
    for (int j = 0; j < 32; ++j) q[j] = static_cast<uint8_t>(b.qs[j]) ^ 0x80;
  }
  static void Scales(const Block& b, std::byte* scales, std::byte*) { Put(scales, 0, b.d); }
};

struct AsIQ4_NL {
  using Block = BlockIQ4_NL;
  using Scale = uint16_t;
  static constexpr int kElements = 32, kBits = 8, kGroup = 32;
  static constexpr bool kBiased = false;
  static void Unpack(const Block& b, uint8_t* q) {
    for (int j = 0; j < 16; ++j) {
      q[j] = static_cast<uint8_t>(kIq4Values[b.qs[j] & 15] + 128);
      q[j + 16] = static_cast<uint8_t>(kIq4Values[b.qs[j] >> 4] + 128);
    }
  }
  static void Scales(const Block& b, std::byte* scales, std::byte*) { Put(scales, 0, b.d); }
};

struct AsIQ4_XS {
  using Block = BlockIQ4_XS;
  using Scale = float;
  static constexpr int kElements = 256, kBits = 8, kGroup = 32;
  static constexpr bool kBiased = false;
  static void Unpack(const Block& b, uint8_t* q) {
    for (int sub = 0; sub < 8; ++sub) {
      for (int j = 0; j < 16; ++j) {
        q[32 * sub + j] = static_cast<uint8_t>(kIq4Values[b.qs[16 * sub + j] & 15] + 128);
        q[32 * sub + 16 + j] = static_cast<uint8_t>(kIq4Values[b.qs[16 * sub + j] >> 4] + 128);
      }
    }
  }
  static void Scales(const Block& b, std::byte* scales, std::byte*) {
    const float d = F16ToF32(b.d);
    for (int sub = 0; sub < 8; ++sub) Put(scales, sub, d * static_cast<float>(UnpackIq4XsScale(b, sub)));
  }
};

struct AsQ2_K {
  using Block = BlockQ2_K;
  using Scale = float;
  static constexpr int kElements = 256, kBits = 2, kGroup = 16;
  static constexpr bool kBiased = true;
  static void Unpack(const Block& b, uint8_t* q) {
    for (int n = 0; n < 2; ++n) {
      for (int j = 0; j < 4; ++j) {
        for (int l = 0; l < 32; ++l) q[128 * n + 32 * j + l] = (b.qs[32 * n + l] >> (2 * j)) & 3;
      }
    }
  }
  static void Scales(const Block& b, std::byte* scales, std::byte* biases) {
    const float d = F16ToF32(b.d);
    const float dmin = F16ToF32(b.dmin);
    for (int k = 0; k < 16; ++k) {
      Put(scales, k, d * static_cast<float>(b.scales[k] & 15));
      Put(biases, k, -(dmin * static_cast<float>(b.scales[k] >> 4)));
    }
  }
};

struct AsQ3_K {
  using Block = BlockQ3_K;
  using Scale = float;
  static constexpr int kElements = 256, kBits = 3, kGroup = 16;
  static constexpr bool kBiased = false;
  static void Unpack(const Block& b, uint8_t* q) {
    // A set mask bit means "do not take 4 off": the code with 4 added is low + 4 * bit.
    for (int n = 0; n < 2; ++n) {
      for (int j = 0; j < 4; ++j) {
        for (int l = 0; l < 32; ++l) {
          const int low = (b.qs[32 * n + l] >> (2 * j)) & 3;
          q[128 * n + 32 * j + l] = static_cast<uint8_t>(low | ((b.hmask[l] >> (4 * n + j)) & 1) << 2);
        }
      }
    }
  }
  static void Scales(const Block& b, std::byte* scales, std::byte*) {
    const float d = F16ToF32(b.d);
    for (int k = 0; k < 16; ++k) Put(scales, k, d * static_cast<float>(UnpackQ3Scale(b.scales, k)));
  }
};

template <typename Block>
void PutScalesAndMins(const Block& b, std::byte* scales, std::byte* biases) {
  const float d = F16ToF32(b.d);
  const float dmin = F16ToF32(b.dmin);
  for (int sub = 0; sub < 8; ++sub) {
    const ScaleMin sm = UnpackScaleMin(b.scales, sub);
    Put(scales, sub, d * static_cast<float>(sm.scale));
    Put(biases, sub, -(dmin * static_cast<float>(sm.min)));
  }
}

struct AsQ4_K {
  using Block = BlockQ4_K;
  using Scale = float;
  static constexpr int kElements = 256, kBits = 4, kGroup = 32;
  static constexpr bool kBiased = true;
  static void Unpack(const Block& b, uint8_t* q) {
    for (int g = 0; g < 4; ++g) {
      for (int l = 0; l < 32; ++l) {
        q[64 * g + l] = b.qs[32 * g + l] & 15;
        q[64 * g + 32 + l] = b.qs[32 * g + l] >> 4;
      }
    }
  }
  static void Scales(const Block& b, std::byte* scales, std::byte* biases) { PutScalesAndMins(b, scales, biases); }
};

struct AsQ5_K {
  using Block = BlockQ5_K;
  using Scale = float;
  static constexpr int kElements = 256, kBits = 5, kGroup = 32;
  static constexpr bool kBiased = true;
  static void Unpack(const Block& b, uint8_t* q) {
    for (int g = 0; g < 4; ++g) {
      for (int l = 0; l < 32; ++l) {
        q[64 * g + l] = static_cast<uint8_t>((b.qs[32 * g + l] & 15) | ((b.qh[l] >> (2 * g)) & 1) << 4);
        q[64 * g + 32 + l] = static_cast<uint8_t>((b.qs[32 * g + l] >> 4) | ((b.qh[l] >> (2 * g + 1)) & 1) << 4);
      }
    }
  }
  static void Scales(const Block& b, std::byte* scales, std::byte* biases) { PutScalesAndMins(b, scales, biases); }
};

struct AsQ6_K {
  using Block = BlockQ6_K;
  using Scale = float;
  static constexpr int kElements = 256, kBits = 6, kGroup = 16;
  static constexpr bool kBiased = false;
  static void Unpack(const Block& b, uint8_t* q) {
    for (int n = 0; n < 2; ++n) {
      const uint8_t* low = b.ql + 64 * n;
      const uint8_t* high = b.qh + 32 * n;
      uint8_t* out = q + 128 * n;
      for (int l = 0; l < 32; ++l) {
        out[l] = static_cast<uint8_t>((low[l] & 15) | (high[l] & 3) << 4);
        out[l + 32] = static_cast<uint8_t>((low[l + 32] & 15) | (high[l] >> 2 & 3) << 4);
        out[l + 64] = static_cast<uint8_t>((low[l] >> 4) | (high[l] >> 4 & 3) << 4);
        out[l + 96] = static_cast<uint8_t>((low[l + 32] >> 4) | (high[l] >> 6) << 4);
      }
    }
  }
  static void Scales(const Block& b, std::byte* scales, std::byte*) {
    const float d = F16ToF32(b.d);
    for (int k = 0; k < 16; ++k) Put(scales, k, d * static_cast<float>(b.scales[k]));
  }
};

// --- conversion of rows
// -----------------------------------------------------------------------------------------------

template <typename Form>
void ConvertRow(const std::byte* blocks, int64_t cols, const Target& target, int64_t row) {
  constexpr int64_t kScalesBytes = Form::kElements / Form::kGroup * static_cast<int64_t>(sizeof(typename Form::Scale));
  uint8_t* codes = target.codes + row * target.codes_stride;
  std::byte* scales = target.scales + row * target.scales_stride;
  std::byte* biases = Form::kBiased ? target.biases + row * target.scales_stride : nullptr;
  for (int64_t i = 0; i < cols / Form::kElements; ++i) {
    typename Form::Block block;
    std::memcpy(&block, blocks + i * static_cast<int64_t>(sizeof(block)), sizeof(block));
    alignas(16) uint8_t q[Form::kElements];
    Form::Unpack(block, q);
    for (int e = 0; e < Form::kElements; e += 8) {
      PackEight<Form::kBits>(q + e, codes);
      codes += Form::kBits;
    }
    Form::Scales(block, scales, biases);
    scales += kScalesBytes;
    if constexpr (Form::kBiased) biases += kScalesBytes;
  }
}

void ConvertMxfp4Row(const std::byte* blocks, int64_t cols, const Target& target, int64_t row) {
  uint8_t* codes = target.codes + row * target.codes_stride;
  for (int64_t i = 0; i < cols / 32; ++i) {
    BlockMXFP4 block;
    std::memcpy(&block, blocks + i * static_cast<int64_t>(sizeof(block)), sizeof(block));
    uint8_t q[32];
    UnpackNibbles(block.qs, q);
    for (int e = 0; e < 32; e += 8) PackEight<4>(q + e, codes + 16 * i + e / 2);
    Put(target.scales + row * target.scales_stride, i, block.e);
  }
}

using RowConverter = void (*)(const std::byte* blocks, int64_t cols, const Target& target, int64_t row);

// The form of one quantized type and the function that writes a row of it.
struct Conversion {
  RowConverter convert = nullptr;
  int bits = 0;
  int group = 0;
  tensor::DType scale_dtype = tensor::DType::kF16;
  bool biased = false;
};

template <typename Form>
constexpr Conversion MakeConversion() {
  return {&ConvertRow<Form>, Form::kBits, Form::kGroup,
          sizeof(typename Form::Scale) == 2 ? tensor::DType::kF16 : tensor::DType::kF32, Form::kBiased};
}

// Nothing for dense types and for types without a decoder. MXFP4's scales are bytes.
Conversion FindConversion(GgmlType type) {
  switch (type) {
    case GgmlType::kQ4_0: return MakeConversion<AsQ4_0>();
    case GgmlType::kQ4_1: return MakeConversion<AsQ4_1>();
    case GgmlType::kQ5_0: return MakeConversion<AsQ5_0>();
    case GgmlType::kQ5_1: return MakeConversion<AsQ5_1>();
    case GgmlType::kQ8_0: return MakeConversion<AsQ8_0>();
    case GgmlType::kIQ4_NL: return MakeConversion<AsIQ4_NL>();
    case GgmlType::kIQ4_XS: return MakeConversion<AsIQ4_XS>();
    case GgmlType::kQ2_K: return MakeConversion<AsQ2_K>();
    case GgmlType::kQ3_K: return MakeConversion<AsQ3_K>();
    case GgmlType::kQ4_K: return MakeConversion<AsQ4_K>();
    case GgmlType::kQ5_K: return MakeConversion<AsQ5_K>();
    case GgmlType::kQ6_K: return MakeConversion<AsQ6_K>();
    case GgmlType::kMXFP4: return {&ConvertMxfp4Row, 4, 32, tensor::DType::kU8, false};
    default: return {};
  }
}

int64_t RowBytes(GgmlType type, int64_t cols) {
  const GgmlTypeTraits* traits = FindGgmlType(static_cast<uint32_t>(type));
  PENSIEVE_CHECK(traits != nullptr && cols % traits->block_elements == 0);
  return cols / traits->block_elements * traits->block_bytes;
}

const std::byte* SourceRow(const GgmlMatrix& matrix, int64_t row_bytes, int64_t row) {
  const int64_t source = matrix.source_rows.empty() ? row : matrix.source_rows[static_cast<size_t>(row)];
  return matrix.bytes.data() + source * row_bytes;
}

Result<tensor::Weight> CopyDense(const GgmlMatrix& matrix, tensor::DType dtype, const AllocateBytes& allocate,
                                 int threads) {
  const int64_t out_row_bytes = matrix.cols * static_cast<int64_t>(tensor::DTypeBytes(dtype));
  const int64_t row_bytes = RowBytes(matrix.type, matrix.cols);
  PENSIEVE_TRY(std::byte* const out, allocate(static_cast<size_t>(matrix.rows * out_row_bytes)));
  ForRowRanges(matrix.rows, row_bytes, threads, [&](int64_t first, int64_t last) {
    for (int64_t row = first; row < last; ++row) {
      const std::byte* source = SourceRow(matrix, row_bytes, row);
      std::byte* target = out + row * out_row_bytes;
      if (matrix.type == GgmlType::kF64) {
        for (int64_t k = 0; k < matrix.cols; ++k) {
          double wide;
          std::memcpy(&wide, source + k * 8, sizeof(wide));
          Put(target, k, static_cast<float>(wide));
        }
      } else {
        std::memcpy(target, source, static_cast<size_t>(row_bytes));
      }
    }
  });
  return tensor::Weight(tensor::DenseWeight{matrix.rows, matrix.cols, dtype, out});
}

}  // namespace

std::optional<tensor::DType> DenseDType(GgmlType type) {
  switch (type) {
    case GgmlType::kF32:
    case GgmlType::kF64: return tensor::DType::kF32;
    case GgmlType::kF16: return tensor::DType::kF16;
    case GgmlType::kBF16: return tensor::DType::kBF16;
    default: return std::nullopt;
  }
}

size_t ConvertedBytes(GgmlType type, int64_t rows, int64_t cols) {
  if (const auto dense = DenseDType(type)) return static_cast<size_t>(rows * cols) * tensor::DTypeBytes(*dense);
  const Conversion form = FindConversion(type);
  if (form.convert == nullptr) return static_cast<size_t>(rows * RowBytes(type, cols));
  const auto scale_bytes = static_cast<int64_t>(tensor::DTypeBytes(form.scale_dtype)) * (form.biased ? 2 : 1);
  return static_cast<size_t>(rows * (cols * form.bits / 8 + cols / form.group * scale_bytes));
}

bool UsedInPlace(const GgmlMatrix& matrix) {
  return DenseDType(matrix.type).has_value() && matrix.type != GgmlType::kF64 && matrix.source_rows.empty();
}

Result<tensor::Weight> ConvertGgmlMatrix(const GgmlMatrix& matrix, const AllocateBytes& allocate, int threads) {
  const int64_t row_bytes = RowBytes(matrix.type, matrix.cols);
  PENSIEVE_CHECK(matrix.bytes.size() == static_cast<size_t>(matrix.rows * row_bytes));
  PENSIEVE_CHECK(matrix.source_rows.empty() || matrix.source_rows.size() == static_cast<size_t>(matrix.rows));
  if (const auto dense = DenseDType(matrix.type)) {
    if (UsedInPlace(matrix))
      return tensor::Weight(tensor::DenseWeight{matrix.rows, matrix.cols, *dense, matrix.bytes.data()});
    return CopyDense(matrix, *dense, allocate, threads);
  }
  const Conversion form = FindConversion(matrix.type);
  if (form.convert == nullptr) {
    return Unimplemented(
        fmt::format("tensor type {} is not supported", FindGgmlType(static_cast<uint32_t>(matrix.type))->name));
  }
  Target target;
  target.codes_stride = matrix.cols * form.bits / 8;
  target.scales_stride = matrix.cols / form.group * static_cast<int64_t>(tensor::DTypeBytes(form.scale_dtype));
  PENSIEVE_TRY(std::byte* const codes, allocate(static_cast<size_t>(matrix.rows * target.codes_stride)));
  PENSIEVE_TRY(target.scales, allocate(static_cast<size_t>(matrix.rows * target.scales_stride)));
  if (form.biased) { PENSIEVE_TRY(target.biases, allocate(static_cast<size_t>(matrix.rows * target.scales_stride))); }
  target.codes = reinterpret_cast<uint8_t*>(codes);
  ForRowRanges(matrix.rows, row_bytes, threads, [&](int64_t first, int64_t last) {
    for (int64_t row = first; row < last; ++row) {
      form.convert(SourceRow(matrix, row_bytes, row), matrix.cols, target, row);
    }
  });
  if (matrix.type == GgmlType::kMXFP4) {
    return tensor::Weight(
        tensor::Mxfp4Weight{matrix.rows, matrix.cols, target.codes, reinterpret_cast<const uint8_t*>(target.scales)});
  }
  return tensor::Weight(tensor::AffineWeight{.rows = matrix.rows,
                                             .cols = matrix.cols,
                                             .bits = form.bits,
                                             .group = form.group,
                                             .codes = target.codes,
                                             .scale_dtype = form.scale_dtype,
                                             .scales = target.scales,
                                             .biases = target.biases});
}

}  // namespace pensieve::formats
