// Whether numbers are numbers: one NaN or infinity in a model's weights spreads into all that is computed from them.
#pragma once

#include <bit>
#include <cstdint>
#include <span>

namespace pensieve {

// True when no value is NaN or infinite. One pass without branches.
inline bool AllFinite(std::span<const float> values) {
  constexpr uint32_t kExponent = 0x7f800000;
  uint32_t found = 0;
  for (const float value : values) found |= (std::bit_cast<uint32_t>(value) & kExponent) == kExponent;
  return found == 0;
}

}  // namespace pensieve
