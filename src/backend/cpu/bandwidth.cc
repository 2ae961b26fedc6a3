#include "backend/cpu/bandwidth.h"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdint>
#include <cstring>
#include <vector>

#include "backend/cpu/worker_pool.h"
#include "tensor/buffer.h"

namespace pensieve::backend::cpu {
namespace {

constexpr int64_t kBytesEach = int64_t{256} << 20;
constexpr int64_t kPiece = int64_t{1} << 20;
constexpr int kPasses = 6;

// Reads everything; independent sums keep enough loads in flight.
uint64_t SumWords(const uint64_t* words, int64_t count) {
  uint64_t sums[8] = {0};
  for (int64_t i = 0; i < count; i += 8) {
    for (int lane = 0; lane < 8; ++lane) sums[lane] ^= words[i + lane];
  }
  uint64_t total = 0;
  for (const uint64_t sum : sums) total ^= sum;
  return total;
}

}  // namespace

double MeasureReadBandwidth(int threads) {
  const int64_t bytes = kBytesEach * std::max(1, threads);
  auto buffer = tensor::Buffer::Allocate(static_cast<size_t>(bytes));
  if (!buffer) return 0.0;
  WorkerPool pool(std::max(1, threads));
  const int64_t pieces = bytes / kPiece;
  // First touch by writing: untouched pages all map to one zero page.
  pool.Run(pieces, [&](int64_t piece, int) { std::memset((*buffer).data() + piece * kPiece, 1, kPiece); });
  std::atomic<uint64_t> sink{0};
  double best = 0.0;
  for (int pass = 0; pass < kPasses; ++pass) {
    const auto start = std::chrono::steady_clock::now();
    pool.Run(pieces, [&](int64_t piece, int) {
      sink += SumWords((*buffer).as<uint64_t>() + piece * (kPiece / 8), kPiece / 8);
    });
    const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - start;
    best = std::max(best, static_cast<double>(bytes) / seconds.count() / 1e9);
  }
  return sink.load() == 1 ? 0.0 : best;
}

}  // namespace pensieve::backend::cpu
