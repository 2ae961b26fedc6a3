// AVX-512's kernels, but for products of quantized weights with more than a few rows: those are AMX's.
//
// Tiles are shaped when a product begins and released before it ends, on whichever thread it runs: a thread has no tile
// state between calls, and nothing else in the program uses tiles.
#define PENSIEVE_ISA isa_amx
#include "backend/cpu/kernels.h"

#include "backend/cpu/quant_product_amx-inl.h"

namespace pensieve::backend::cpu {

extern const KernelTable kAvx512Kernels;

namespace isa_amx {
namespace {

constexpr int64_t kNever = INT64_MAX;

// How many rows it takes for tiles to be faster; measured (bench/results/NOTES.md).
int64_t LeastRows(int group, bool precise) {
  if (group == 64) return precise ? 4 : 8;
  return group == 32 && precise ? 8 : kNever;
}

void MultiplyRows(const QuantPanel& panel, const QuantRows& rows, int64_t first, int64_t count, bool precise,
                  float* tile) {
  if (count < LeastRows(panel.group, precise))
    return kAvx512Kernels.quant_tile(panel, rows, first, count, precise, tile);
  if (!precise) return MultiplyByTiles<false, 16>(panel, rows, first, count, tile);
  panel.group == 64 ? MultiplyByTiles<true, 16>(panel, rows, first, count, tile)
                    : MultiplyByTiles<true, 8>(panel, rows, first, count, tile);
}

}  // namespace
}  // namespace isa_amx

const KernelTable& AmxKernels() {
  static const KernelTable table = [] {
    KernelTable amx = kAvx512Kernels;
    amx.isa = "amx";
    amx.quant_tile = isa_amx::MultiplyRows;
    return amx;
  }();
  return table;
}

}  // namespace pensieve::backend::cpu
