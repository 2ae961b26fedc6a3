// For tests: a backend whose memory has no address, as one that takes and gives matrices of the host. Every operation
// copies its matrices to the device and what it wrote back, so that the tests of operations run on every backend alike.
#pragma once

#include <memory>

#include "backend/backend.h"

namespace pensieve::backend::testing {

std::unique_ptr<Backend> StageHostMatrices(std::unique_ptr<Backend> inner);

}  // namespace pensieve::backend::testing
