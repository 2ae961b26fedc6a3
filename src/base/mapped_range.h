// Pages of mapped files, by their addresses alone.
#pragma once

#include <cstddef>
#include <span>

namespace pensieve {

// Gives back the pages of a range that has been copied elsewhere, where it lies in a MappedFile; it can still be read,
// at the price of a fault. Other memory is left as it is. For who was given bytes and does not know where they lie.
void AdviseMappedDone(std::span<const std::byte> range);

}  // namespace pensieve
