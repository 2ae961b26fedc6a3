// Comparison of secrets.
#pragma once

#include <algorithm>
#include <string_view>

namespace pensieve {

// Whether a and b are equal, in a time that depends only on their lengths.
inline bool EqualInConstantTime(std::string_view a, std::string_view b) {
  // volatile keeps the compiler from leaving the loop early.
  volatile unsigned difference = a.size() == b.size() ? 0 : 1;
  const size_t size = std::min(a.size(), b.size());
  for (size_t i = 0; i < size; ++i)
    difference = difference | (static_cast<unsigned char>(a[i]) ^ static_cast<unsigned char>(b[i]));
  return difference == 0;
}

}  // namespace pensieve
