// What is applied to a product's sums. A header of its own, so that kernels need not be compiled again when the seam
// changes.
#pragma once

#include <cstdint>

namespace pensieve::backend {

// kQuickGelu: x * sigmoid(1.702 x).
enum class Activation : uint8_t { kNone, kSilu, kGeluTanh, kGeluErf, kRelu, kQuickGelu };

}  // namespace pensieve::backend
