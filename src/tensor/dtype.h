// Element types that files and weights use. Activations are always f32.
#pragma once

#include <cstddef>
#include <cstdint>

namespace pensieve::tensor {

enum class DType : uint8_t { kF32, kF16, kBF16, kF64, kI64, kI32, kI16, kI8, kU64, kU32, kU16, kU8, kBool };

constexpr size_t DTypeBytes(DType type) {
  switch (type) {
    case DType::kF64:
    case DType::kI64:
    case DType::kU64: return 8;
    case DType::kF32:
    case DType::kI32:
    case DType::kU32: return 4;
    case DType::kF16:
    case DType::kBF16:
    case DType::kI16:
    case DType::kU16: return 2;
    case DType::kI8:
    case DType::kU8:
    case DType::kBool: return 1;
  }
  return 0;
}

// "F32", "BF16" and so on: the spelling of safetensors.
const char* DTypeName(DType type);

}  // namespace pensieve::tensor
