// Frequency tables of rotary embeddings: what every scaling recipe does to the frequencies, once, at load.
#pragma once

#include <cstdint>
#include <vector>

#include "base/status.h"
#include "model/config.h"

namespace pensieve::model {

struct RopeFrequencies {
  std::vector<float> frequencies;  // [rotated / 2]: radians a position
  float magnitude = 1.0f;          // both rotated outputs are multiplied by it
};

// `context_max`: positions that will be used at most; "dynamic" and "longrope" choose by it. `model_context`: positions
// the model was made for. InvalidArgument when lists have the wrong length or parameters make no sense.
Result<RopeFrequencies> ComputeRope(const RopeConfig& config, int64_t context_max, int64_t model_context);

// What yarn multiplies rotated outputs by: the given factor, or one of its own.
double YarnMagnitude(const RopeConfig& config);

}  // namespace pensieve::model
