// Sizes that the operations' drivers round alike.
#pragma once

#include <cstdint>

namespace pensieve::backend::cpu {

// a / b rounded up; a >= 0, b > 0.
inline int64_t CeilDiv(int64_t a, int64_t b) { return (a + b - 1) / b; }

// n rounded up to 16 floats, the longest vector: kernels load and store whole ones.
inline int64_t Padded(int64_t n) { return CeilDiv(n, 16) * 16; }

}  // namespace pensieve::backend::cpu
