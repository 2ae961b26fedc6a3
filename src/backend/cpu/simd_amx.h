// Intel's tile registers tmm0 to tmm7, each up to 16 rows of 64 bytes; numbers are known when compiled.
//
// By name: GCC 12's own forms of these instructions do not tell it which memory they read.
#pragma once

#include "backend/cpu/simd.h"

namespace pensieve::backend::cpu::PENSIEVE_ISA {

inline constexpr int kTileHeight = 16;

// What LDTILECFG reads: the shape of every tile.
struct alignas(64) TileShapes {
  uint8_t palette = 1;
  uint8_t start_row = 0;
  uint8_t reserved[14] = {};
  uint16_t row_bytes[16] = {};
  uint8_t rows[16] = {};

  void Set(int tile, int64_t row_count, int64_t bytes) {
    rows[tile] = static_cast<uint8_t>(row_count);
    row_bytes[tile] = static_cast<uint16_t>(bytes);
  }
};

// From here to ReleaseTiles this thread has tiles of these shapes, all zero.
PENSIEVE_INLINE void ShapeTiles(const TileShapes& shapes) { asm volatile("ldtilecfg %0" : : "m"(shapes)); }
// No tile state is left that the system would have to save.
PENSIEVE_INLINE void ReleaseTiles() { asm volatile("tilerelease" : : : "memory"); }

template <int kTile>
PENSIEVE_INLINE void ZeroTile() {
  asm volatile("tilezero %%tmm%c0" : : "i"(kTile));
}
// Row r is the bytes at p + r * stride.
template <int kTile>
PENSIEVE_INLINE void LoadTile(const void* p, int64_t stride) {
  asm volatile("tileloadd (%1,%2,1), %%tmm%c0" : : "i"(kTile), "r"(p), "r"(stride) : "memory");
}
template <int kTile>
PENSIEVE_INLINE void StoreTile(void* p, int64_t stride) {
  asm volatile("tilestored %%tmm%c0, (%1,%2,1)" : : "i"(kTile), "r"(p), "r"(stride) : "memory");
}
// sums[row][lane] += sum over quads of signed[row][quad] * unsigned[quad][lane], four bytes each, exactly.
template <int kSums, int kSigned, int kUnsigned>
PENSIEVE_INLINE void DotTiles() {
  asm volatile("tdpbsud %%tmm%c2, %%tmm%c1, %%tmm%c0" : : "i"(kSums), "i"(kSigned), "i"(kUnsigned));
}

}  // namespace pensieve::backend::cpu::PENSIEVE_ISA
