// The random numbers of a sequence: xoshiro256** (Blackman and Vigna), its state filled from a seed by splitmix64.
// The same seed gives the same numbers on every machine. Thread-compatible.
#pragma once

#include <cstdint>

namespace pensieve::sampling {

class Random {
 public:
  explicit Random(uint64_t seed);

  uint64_t Next();
  // In [0, 1), 53 random bits.
  double NextUnit() { return static_cast<double>(Next() >> 11) * 0x1p-53; }

 private:
  uint64_t state_[4];
};

}  // namespace pensieve::sampling
