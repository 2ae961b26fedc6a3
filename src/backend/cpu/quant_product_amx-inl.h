// The products of quant_product-inl.h by tiles: 16 rows by a panel's 32 channels, one group of columns at a time.
//
// A group's codes are two tiles as they lie in a panel, 16 channels each, a quad a row; the planes of 16 rows are one
// tile or two. Sums go through memory to vectors, which add a coarse row's big quads and scale them by AddGroup, group
// after group: an output has the bits that the other AVX-512 kernel gives it.
//
// Seen on a Xeon of model 207: a tile product takes 21 cycles and keeps vectors from one of their two ports; storing a
// tile takes 17 and keeps other instructions from being issued. So both are done at once, stores of the step before
// with products of this one; what vectors do after them overlaps with neither. For a coarse row's big quads vectors
// take no longer than another plane and its tile products.
#pragma once

#include "backend/cpu/quant_product-inl.h"
#include "backend/cpu/simd_amx.h"

namespace pensieve::backend::cpu::PENSIEVE_ISA {

// A row's sums of one group: two vectors of channels of the plane `low`, in precise rows two more of `high`.
template <bool kPrecise>
struct alignas(64) StepSums {
  int32_t rows[kTileHeight][kPrecise ? 4 : 2][kLanes];
};

// What is left to do with the sums of a step, which is one group of a row tile.
struct DueRows {
  int first;  // these rows of the tile are wanted
  int end;
  const QuantGroup* groups;  // of the tile's first row
  const uint8_t* codes;
  const float* scale;
  const float* bias;
  float* acc;  // of the tile's first row
};

// Tiles: codes 0 and 1, planes 2 and 3, sums 4 and 5 of `low`, 6 and 7 of `high`.
PENSIEVE_INLINE void ShapeTilesFor(int64_t group, int64_t rows) {
  TileShapes shapes;
  for (int i = 0; i < 2; ++i) {
    shapes.Set(i, group / 4, kLanes * 4);
    shapes.Set(2 + i, rows, group);
    shapes.Set(4 + i, rows, kLanes * 4);
    shapes.Set(6 + i, rows, kLanes * 4);
  }
  ShapeTiles(shapes);
}

template <int kTile, bool kPrecise>
PENSIEVE_INLINE void StoreSums(StepSums<kPrecise>* sums) {
  StoreTile<kTile>(sums->rows[0][kTile - 4], sizeof(sums->rows[0]));
}

// The products of a step; what their tiles held is stored before.
template <bool kPrecise>
PENSIEVE_INLINE void StoreAndMultiply(const int8_t* low, const int8_t* high, int64_t stride, StepSums<kPrecise>* sums) {
  LoadTile<2>(low, stride);
  StoreSums<4>(sums);
  ZeroTile<4>();
  DotTiles<4, 2, 0>();
  if constexpr (kPrecise) LoadTile<3>(high, stride);
  StoreSums<5>(sums);
  ZeroTile<5>();
  DotTiles<5, 2, 1>();
  if constexpr (kPrecise) {
    StoreSums<6>(sums);
    ZeroTile<6>();
    DotTiles<6, 3, 0>();
    StoreSums<7>(sums);
    ZeroTile<7>();
    DotTiles<7, 3, 1>();
  }
}

template <bool kPrecise>
PENSIEVE_INLINE void StoreLast(StepSums<kPrecise>* sums) {
  StoreSums<4>(sums);
  StoreSums<5>(sums);
  if constexpr (kPrecise) {
    StoreSums<6>(sums);
    StoreSums<7>(sums);
  }
}

// What the upper parts of a row add to a group's sums, but for a factor of 128.
template <bool kPrecise, int kQuads>
PENSIEVE_INLINE void LoadUpperSums(const StepSums<kPrecise>& sums, int row, const QuantGroup& group,
                                   const uint8_t* codes, I32 (&upper)[2]) {
  if constexpr (kPrecise) {
    upper[0] = LoadInt(sums.rows[row][2]);
    upper[1] = LoadInt(sums.rows[row][3]);
  } else {
    upper[0] = upper[1] = SetInt(0);
    constexpr int kBigQuads = BigQuads(kQuads * 4);
    PENSIEVE_UNROLL
    for (int b = 0; b < kBigQuads; ++b) {
      const uint8_t* quad = codes + group.big_offset[b];
      const I32 value = SetInt(group.big_value[b]);
      upper[0] = Dot4<true>(upper[0], LoadInt(quad), value);
      upper[1] = Dot4<true>(upper[1], LoadInt(quad + kLanes * 4), value);
    }
  }
}

template <bool kPrecise, int kQuads>
PENSIEVE_INLINE void FlushRows(const DueRows& due, const StepSums<kPrecise>& sums, int64_t groups_stride) {
  const F32 scale[2] = {Load(due.scale), Load(due.scale + kLanes)};
  const F32 bias[2] = {Load(due.bias), Load(due.bias + kLanes)};
  const QuantGroup* group = due.groups + due.first * groups_stride;
  float* acc = due.acc + due.first * kPanel;
  for (int r = due.first; r < due.end; ++r) {
    I32 upper[2];
    LoadUpperSums<kPrecise, kQuads>(sums, r, *group, due.codes, upper);
    const F32 activation_scale = Set(group->scale);
    const F32 activation_sum = Set(group->sum);
    PENSIEVE_UNROLL
    for (int v = 0; v < 2; ++v) {
      const I32 dot = AddInt(ShiftLeft<7>(upper[v]), LoadInt(sums.rows[r][v]));
      Store(acc + v * kLanes,
            AddGroup(Load(acc + v * kLanes), dot, activation_scale, activation_sum, scale[v], bias[v]));
    }
    group += groups_stride;
    acc += kPanel;
  }
}

// As quant_tile. The last tile begins early enough to be whole where there are 16 rows at all; its first rows, which
// the one before it has too, are not wanted.
template <bool kPrecise, int kQuads>
static void MultiplyByTiles(const QuantPanel& panel, const QuantRows& rows, int64_t first, int64_t count, float* tile) {
  constexpr int64_t kGroup = kQuads * 4;
  constexpr int64_t kShared =
      (kPrecise ? 2 : 4) * kTileHeight;  // rows that use a group's codes while those are in tiles
  const int64_t height = count < kTileHeight ? count : kTileHeight;
  StepSums<kPrecise> sums;
  DueRows due = {0, 0, rows.first.groups, panel.codes, panel.scales, panel.biases, tile};
  if (panel.first_group == 0) memset(tile, 0, static_cast<size_t>(count * kPanel) * sizeof(float));
  ShapeTilesFor(kGroup, height);
  for (int64_t r = 0; r < count; r += kShared) {
    const int64_t end = count - r < kShared ? count : r + kShared;
    const AheadRange ahead = AheadOfRows(panel, r, end - r, count);
    const uint8_t* codes = panel.codes;
    for (int64_t g = panel.first_group; g < panel.end_group; ++g) {
      FetchAhead(panel, g, ahead);
      LoadTile<0>(codes, kPanel * 4);
      LoadTile<1>(codes + kLanes * 4, kPanel * 4);
      for (int64_t wanted = r; wanted < end; wanted += kTileHeight) {
        const int64_t top = wanted < count - height ? wanted : count - height;
        const int64_t at = (first + top) * rows.cols + g * kGroup;
        StoreAndMultiply<kPrecise>(rows.first.low + at, rows.first.high + at, rows.cols, &sums);
        FlushRows<kPrecise, kQuads>(due, sums, rows.groups);
        due = {static_cast<int>(wanted - top),
               static_cast<int>(height),
               rows.first.groups + (first + top) * rows.groups + g,
               codes,
               panel.scales + g * kPanel,
               panel.biases + g * kPanel,
               tile + top * kPanel};
      }
      codes += kGroup * kPanel;
    }
  }
  StoreLast<kPrecise>(&sums);
  ReleaseTiles();
  FlushRows<kPrecise, kQuads>(due, sums, rows.groups);
}

}  // namespace pensieve::backend::cpu::PENSIEVE_ISA
