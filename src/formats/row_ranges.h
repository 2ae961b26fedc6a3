// Work on the rows of a matrix, shared among threads.
#pragma once

#include <algorithm>
#include <cstdint>
#include <thread>
#include <vector>

#include "base/processors.h"

namespace pensieve::formats {

// Calls work(first, last) for ranges that cover all rows, on `threads` threads (0: one per processor), or on fewer when
// there is little to do. `work` must not throw.
template <typename Work>
void ForRowRanges(int64_t rows, int64_t row_bytes, int threads, const Work& work) {
  constexpr int64_t kBytesPerThreadMin = 64 << 10;  // below this a thread costs more than it saves
  const int64_t available = threads > 0 ? threads : UsableProcessors();
  const int64_t parts = std::clamp(rows * row_bytes / kBytesPerThreadMin, int64_t{1}, std::min(available, rows));
  std::vector<std::jthread> workers;
  for (int64_t part = 1; part < parts; ++part) {
    workers.emplace_back(
        [&work, first = rows * part / parts, last = rows * (part + 1) / parts]() noexcept { work(first, last); });
  }
  work(int64_t{0}, rows / parts);
}

}  // namespace pensieve::formats
