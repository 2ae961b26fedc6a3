// What every operation of a model computes with, and how rows are shared among workers.
#pragma once

#include <algorithm>
#include <cstdint>

#include "backend/backend.h"
#include "backend/cpu/kernels.h"
#include "backend/cpu/sizes.h"
#include "backend/cpu/worker_pool.h"

namespace pensieve::backend::cpu {

// Values that are worth waking a worker for: some ten microseconds of work.
inline constexpr int64_t kChunkValues = 16384;

// Borrows from the device, which outlives all that computes on it.
struct Compute {
  const KernelTable& kernels;
  WorkerPool& pool;
  InputPrecision mode;

  // fn(row, worker) for every row, in chunks of at least kChunkValues values.
  template <typename Fn>
  void ForRows(int64_t rows, int64_t cols, Fn fn) const {
    const int64_t step = std::max<int64_t>(1, kChunkValues / std::max<int64_t>(1, cols));
    pool.Run(CeilDiv(rows, step), [&](int64_t chunk, int worker) {
      for (int64_t r = chunk * step; r < std::min(rows, (chunk + 1) * step); ++r) fn(r, worker);
    });
  }
};

}  // namespace pensieve::backend::cpu
