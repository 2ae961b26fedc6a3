// Products of precise rows with weights of 4 bits: codes become f16 integers in registers and meet two planes of f16
// activations on tensor cores.
//
//   y[r][n] = (sum over groups g: scale[n][g] * (sum q * (high + low / 2048)) + bias[n][g] * sum[r][g]) / factor[r]
//
// One instruction (m16n8k16) takes 16 channels, 16 columns and 8 "columns of B": the two planes of four rows. A lane
// (g = lane / 4, t = lane % 4) holds codes of the channels g and g + 8, and gets the sums of both planes of row t: so a
// lane ends up with two outputs. Codes are read from memory as they lie: 8 bytes a lane and channel are 16 columns of the
// lane's own, and the planes are stored in that order. Limited by the memory's speed up to some 8 rows.
#include "backend/cuda/device_code.cuh"
#include "backend/cuda/tensor_core.cuh"

namespace pensieve::backend::cuda {
namespace {

constexpr int kThreads = 256;
constexpr int kWarps = kThreads / 32;
constexpr int kRowsATile = 4;
constexpr int kSlabsAUnit = 4;
// A row of more columns is made planes of by a kernel of its own.
constexpr int64_t kMostOwnColumns = 8192;

// Eight neighbouring columns of one plane, from column c of a slab on: the halves of nibbles i and i + 4 lie together.
template <int kSlab>
__device__ inline void StoreEight(const float (&v)[8], uint16_t* slab, int c) {
  if constexpr (kSlab == 64) {
    auto* target = reinterpret_cast<uint32_t*>(slab + c / 16 * 16 + c / 8 % 2 * 2);
#pragma unroll
    for (int i = 0; i < 4; ++i) target[i * 2] = PackHalves(v[i], v[i + 4]);
  } else {
    *reinterpret_cast<uint4*>(slab + c) =
        make_uint4(PackHalves(v[0], v[4]), PackHalves(v[1], v[5]), PackHalves(v[2], v[6]), PackHalves(v[3], v[7]));
  }
}

// A row as planes by all threads of a block; a thread takes every kThreads-th eight of columns. Returns 1 / factor. Where
// `normed` is not null, the norm is stored there.
template <int kSlab>
__device__ inline float MakePlanes(const float* row, int cols, const float* weight, float eps, float* normed,
                                   uint16_t* high, uint16_t* low, float* sums, float* shared) {
  float inverse_norm = 1.0f;
  if (weight != nullptr) {
    const float squares = SumSquares<kThreads>(row, cols, shared);
    inverse_norm = 1.0f / sqrtf(squares / static_cast<float>(cols) + eps);
  }
  const bool aligned = (reinterpret_cast<uintptr_t>(row) & 15) == 0;
  const auto load = [&](int first, float(&eight)[8]) {
    if (aligned) {
      *reinterpret_cast<float4*>(eight) = *reinterpret_cast<const float4*>(row + first);
      *reinterpret_cast<float4*>(eight + 4) = *reinterpret_cast<const float4*>(row + first + 4);
    } else {
#pragma unroll
      for (int i = 0; i < 8; ++i) eight[i] = row[first + i];
    }
    if (weight == nullptr) return;
#pragma unroll
    for (int i = 0; i < 8; ++i) eight[i] = eight[i] * inverse_norm * weight[first + i];
  };
  float largest = 0.0f;
  bool usable = true;
  for (int first = static_cast<int>(threadIdx.x) * 8; first < cols; first += kThreads * 8) {
    float eight[8];
    load(first, eight);
#pragma unroll
    for (int i = 0; i < 8; ++i) {
      largest = fmaxf(largest, fabsf(eight[i]));
      usable = usable && isfinite(eight[i]);
      if (normed != nullptr) normed[first + i] = eight[i];
    }
  }
  usable = __syncthreads_and(usable);
  largest = BlockMax<kThreads>(largest, shared);
  const int exponent = usable && largest > 0.0f ? min(120, 13 - ilogbf(largest)) : 0;
  const float factor = ldexpf(1.0f, max(-120, exponent));
  constexpr int kLanes = kSlab / 8;  // that share a slab
  for (int first = static_cast<int>(threadIdx.x) * 8; first < cols; first += kThreads * 8) {
    float eight[8];
    float rest[8];
    load(first, eight);
    float sum = 0.0f;
#pragma unroll
    for (int i = 0; i < 8; ++i) {
      eight[i] = usable ? eight[i] * factor : 0.0f;
      sum += eight[i];
      rest[i] = (eight[i] - __half2float(__float2half_rn(eight[i]))) * 2048.0f;
    }
    const int slab = first / kSlab * kSlab;
    StoreEight<kSlab>(eight, high + slab, first - slab);
    StoreEight<kSlab>(rest, low + slab, first - slab);
    // The lanes of a slab are in the loop together, for slabs are whole.
    const unsigned mask = ((1u << kLanes) - 1u) << (threadIdx.x % 32 / kLanes * kLanes);
#pragma unroll
    for (int step = kLanes / 2; step > 0; step /= 2) sum += __shfl_xor_sync(mask, sum, step);
    if (threadIdx.x % kLanes == 0) sums[first / kSlab] = sum;
  }
  return usable ? 1.0f / factor : __uint_as_float(0x7fc00000u);
}

// The same bits for a row of at most kEights times 2,048 columns: its values stay in registers, warps meet three times.
// Loads of the norm's weights are the caller's: they need not wait for anything.
template <int kEights>
struct OwnRow {
  float weights[kEights][8];
};
__device__ inline void LoadEightFloats(const float* p, float (&out)[8]) {
  *reinterpret_cast<float4*>(out) = *reinterpret_cast<const float4*>(p);
  *reinterpret_cast<float4*>(out + 4) = *reinterpret_cast<const float4*>(p + 4);
}
template <int kEights>
__device__ inline void LoadNormWeights(const float* weight, int cols, OwnRow<kEights>* own) {
  if (weight == nullptr) return;
#pragma unroll
  for (int e = 0; e < kEights; ++e) {
    const int first = (e * kThreads + static_cast<int>(threadIdx.x)) * 8;
    if (first < cols) LoadEightFloats(weight + first, own->weights[e]);
  }
}
template <int kSlab, int kEights>
__device__ inline float MakeOwnPlanes(const float* row, int cols, const OwnRow<kEights>& own, bool norms, float eps,
                                      float* normed, uint16_t* high, uint16_t* low, float* sums,
                                      float (*shared)[kWarps]) {
  const int warp = threadIdx.x / 32;
  const int lane = threadIdx.x % 32;
  float values[kEights][8];
#pragma unroll
  for (int e = 0; e < kEights; ++e) {
    const int first = (e * kThreads + static_cast<int>(threadIdx.x)) * 8;
#pragma unroll
    for (int i = 0; i < 8; ++i) values[e][i] = 0.0f;
    if (first < cols) LoadEightFloats(row + first, values[e]);
  }
  if (norms) {
    float squares = 0.0f;
#pragma unroll
    for (int e = 0; e < kEights; ++e) {
#pragma unroll
      for (int i = 0; i < 8; ++i) squares = fmaf(values[e][i], values[e][i], squares);
    }
    squares = WarpSum(squares);
    if (lane == 0) shared[0][warp] = squares;
    __syncthreads();
    float sum = 0.0f;
#pragma unroll
    for (int i = 0; i < kWarps; ++i) sum += shared[0][i];
    const float inverse_norm = 1.0f / sqrtf(sum / static_cast<float>(cols) + eps);
#pragma unroll
    for (int e = 0; e < kEights; ++e) {
      const int first = (e * kThreads + static_cast<int>(threadIdx.x)) * 8;
      if (first >= cols) break;
#pragma unroll
      for (int i = 0; i < 8; ++i) {
        values[e][i] = values[e][i] * inverse_norm * own.weights[e][i];
        if (normed != nullptr) normed[first + i] = values[e][i];
      }
    }
  }
  // As bits, magnitudes order like floats, and what is not finite comes above all.
  uint32_t largest_bits = 0;
#pragma unroll
  for (int e = 0; e < kEights; ++e) {
#pragma unroll
    for (int i = 0; i < 8; ++i) largest_bits = max(largest_bits, __float_as_uint(values[e][i]) & 0x7fffffffu);
  }
  largest_bits = __reduce_max_sync(~0u, largest_bits);
  if (lane == 0) shared[1][warp] = __uint_as_float(largest_bits);
  __syncthreads();
#pragma unroll
  for (int i = 0; i < kWarps; ++i) largest_bits = max(largest_bits, __float_as_uint(shared[1][i]));
  const bool usable = largest_bits < 0x7f800000u;
  const float largest = __uint_as_float(largest_bits);
  const int exponent = usable && largest > 0.0f ? min(120, 13 - ilogbf(largest)) : 0;
  const float factor = __uint_as_float(static_cast<uint32_t>(127 + max(-120, exponent)) << 23);
  constexpr int kLanes = kSlab / 8;
#pragma unroll
  for (int e = 0; e < kEights; ++e) {
    const int first = (e * kThreads + static_cast<int>(threadIdx.x)) * 8;
    if (first >= cols) break;
    float rest[8];
    float sum = 0.0f;
#pragma unroll
    for (int i = 0; i < 8; ++i) {
      values[e][i] = usable ? values[e][i] * factor : 0.0f;
      sum += values[e][i];
      rest[i] = (values[e][i] - __half2float(__float2half_rn(values[e][i]))) * 2048.0f;
    }
    const int slab = first / kSlab * kSlab;
    StoreEight<kSlab>(values[e], high + slab, first - slab);
    StoreEight<kSlab>(rest, low + slab, first - slab);
    const unsigned mask = ((1u << kLanes) - 1u) << (lane / kLanes * kLanes);
#pragma unroll
    for (int step = kLanes / 2; step > 0; step /= 2) sum += __shfl_xor_sync(mask, sum, step);
    if (lane % kLanes == 0) sums[first / kSlab] = sum;
  }
  return usable ? 1.0f / factor : __uint_as_float(0x7fc00000u);
}

// One row a block.
template <int kSlab>
__global__ void __launch_bounds__(kThreads)
    ToPlanes(DeviceMatrix x, const float* weight, float eps, DeviceMatrix normed, PlaneRows out) {
  __shared__ float shared[kThreads / 32];
  WaitForPrevious();
  const int64_t r = blockIdx.x;
  const int cols = static_cast<int>(x.cols);
  uint16_t* high = out.values + r * 2 * cols;
  const float inverse = MakePlanes<kSlab>(x.data + r * x.stride, cols, weight, eps,
                                          weight != nullptr ? normed.data + r * normed.stride : nullptr, high,
                                          high + cols, out.sums + r * out.slabs, shared);
  if (threadIdx.x == 0) out.inverses[r] = inverse;
}

// Nibbles i and i + 4 of a word as two f16 integers: or-ed into 1024, which is taken away again.
__device__ inline uint32_t TwoNibbles(uint32_t word, int i) {
  const uint32_t raised = (word >> (4 * i) & 0x000f000fu) | 0x64006400u;
  uint32_t result;
  asm("sub.rn.f16x2 %0, %1, %2;" : "=r"(result) : "r"(raised), "r"(0x64006400u));
  return result;
}

// The codes of one lane for one slab of two channels.
template <int kSlab>
struct Slab {
  uint32_t words[2][kSlab / 32];  // [channel g, g + 8]
};

__device__ inline uint2 LoadPair(const uint8_t* p) {
  uint2 v;
  asm volatile("ld.global.nc.L1::no_allocate.v2.u32 {%0,%1}, [%2];" : "=r"(v.x), "=r"(v.y) : "l"(p));
  return v;
}

template <int kSlab>
__device__ inline void LoadSlab(const DeviceWeight& w, int64_t channel, int slab, Slab<kSlab>* out) {
  const int t = threadIdx.x % 4;
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    // Channels beyond the last repeat it; they are not stored.
    const int64_t row = min(channel + half * 8, w.rows - 1);
    const uint8_t* codes = w.codes + row * w.row_bytes + slab * (kSlab / 2) + t * (kSlab / 8);
    if constexpr (kSlab == 64) {
      const uint2 pair = LoadPair(codes);
      out->words[half][0] = pair.x;
      out->words[half][1] = pair.y;
    } else {
      out->words[half][0] = __ldg(reinterpret_cast<const uint32_t*>(codes));
    }
  }
}

// sums[row tile][channel g, g + 8] += the slab's part for row t of each tile. Codes become f16 once for all rows.
template <int kSlab, int kRowTiles>
__device__ inline void AddSlab(const Slab<kSlab>& slab, const uint32_t (&b)[kRowTiles][kSlab / 8],
                               const float (&row_sums)[kRowTiles], const float (&scales)[2], const float (&biases)[2],
                               float (&sums)[kRowTiles][2]) {
  float c[kRowTiles][4] = {};
#pragma unroll
  for (int step = 0; step < kSlab / 16; ++step) {
    uint32_t a[4];
    if constexpr (kSlab == 64) {
      a[0] = TwoNibbles(slab.words[0][0], step);
      a[1] = TwoNibbles(slab.words[1][0], step);
      a[2] = TwoNibbles(slab.words[0][1], step);
      a[3] = TwoNibbles(slab.words[1][1], step);
    } else {
      a[0] = TwoNibbles(slab.words[0][0], 2 * step);
      a[1] = TwoNibbles(slab.words[1][0], 2 * step);
      a[2] = TwoNibbles(slab.words[0][0], 2 * step + 1);
      a[3] = TwoNibbles(slab.words[1][0], 2 * step + 1);
    }
#pragma unroll
    for (int m = 0; m < kRowTiles; ++m) MultiplyAdd(c[m], a, b[m][2 * step], b[m][2 * step + 1]);
  }
#pragma unroll
  for (int m = 0; m < kRowTiles; ++m) {
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const float dot = fmaf(c[m][2 * half + 1], 0x1p-11f, c[m][2 * half]);
      sums[m][half] = fmaf(biases[half], row_sums[m], fmaf(scales[half], dot, sums[m][half]));
    }
  }
}

// A lane's part of one slab of a plane, for own planes: zeros where there is no row.
template <int kSlab>
__device__ inline void LoadFragment(const uint16_t* plane, int slab, uint32_t (&b)[kSlab / 8]) {
  if (plane == nullptr) {
#pragma unroll
    for (int i = 0; i < kSlab / 8; ++i) b[i] = 0;
    return;
  }
  const uint4* source = reinterpret_cast<const uint4*>(plane + slab * kSlab + threadIdx.x % 4 * (kSlab / 4));
#pragma unroll
  for (int i = 0; i < kSlab / 32; ++i) {
    const uint4 v = source[i];
    b[4 * i] = v.x;
    b[4 * i + 1] = v.y;
    b[4 * i + 2] = v.z;
    b[4 * i + 3] = v.w;
  }
}

// Which slabs a warp takes: neighbouring ones, by the columns alone.
struct SlabRange {
  int begin;
  int end;
};
__device__ inline SlabRange RangeOf(int warp, int slabs) {
  const int each = (slabs + 2 * kWarps - 1) / (2 * kWarps) * 2;
  return {min(slabs, warp * each), min(slabs, (warp + 1) * each)};
}

// What a lane needs of the weights for four slabs of kTiles tiles, as it lies in memory: nothing waits for it here. Lane t
// of four holds the scales of slab t.
template <int kSlab, int kTiles>
struct Unit {
  Slab<kSlab> slabs[kTiles][kSlabsAUnit];
  uint32_t scales[kTiles][2];
  uint32_t biases[kTiles][2];
};

__device__ inline uint32_t LoadRawScale(const uint8_t* scales, int64_t i, ScaleType type) {
  if (type == ScaleType::kF32) return __ldg(reinterpret_cast<const uint32_t*>(scales) + i);
  return __ldg(reinterpret_cast<const uint16_t*>(scales) + i);
}
__device__ inline float WidenScale(uint32_t raw, ScaleType type) {
  if (type == ScaleType::kF32) return __uint_as_float(raw);
  return type == ScaleType::kF16 ? HalfBits(static_cast<uint16_t>(raw)) : Bf16Bits(static_cast<uint16_t>(raw));
}

// The weights and channels of the tile that a block computes.
template <int kTiles>
struct TileWeights {
  const DeviceWeight* w[kTiles];
  int64_t channel[kTiles];
};

template <int kSlab, int kTiles>
__device__ inline void LoadUnit(const TileWeights<kTiles>& tile, int first, int end, Unit<kSlab, kTiles>* unit) {
  const int g = threadIdx.x % 32 / 4;
  const int t = threadIdx.x % 4;
#pragma unroll
  for (int i = 0; i < kTiles; ++i) {
    const DeviceWeight& w = *tile.w[i];
#pragma unroll
    for (int s = 0; s < kSlabsAUnit; ++s) {
      if (first + s < end) LoadSlab<kSlab>(w, tile.channel[i] + g, first + s, &unit->slabs[i][s]);
    }
    if (first + t >= end) continue;
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const int64_t row = min(tile.channel[i] + g + half * 8, w.rows - 1) * w.groups;
      const int64_t at = row + (static_cast<uint32_t>((first + t) * kSlab) >> w.group_shift);
      unit->scales[i][half] = LoadRawScale(w.scales, at, w.scale_type);
      if (w.biases != nullptr) unit->biases[i][half] = LoadRawScale(w.biases, at, w.scale_type);
    }
  }
}

// The planes of several rows, which a kernel before has made, slab after slab of a warp's range. A lane multiplies row
// g / 2 of a tile of four, plane g % 2, and takes the sums of row t.
template <int kSlab, int kRowTiles>
class MadePlanes {
 public:
  __device__ MadePlanes(const PlaneRows& x, int64_t rows, int64_t first_row, SlabRange range)
      : range_(range), slab_(range.begin) {
    const int lane = threadIdx.x % 32;
    const int g = lane / 4;
#pragma unroll
    for (int m = 0; m < kRowTiles; ++m) {
      const int64_t row = first_row + m * kRowsATile + g / 2;
      planes_[m] = row < rows ? x.values + (row * 2 + g % 2) * x.slabs * kSlab + lane % 4 * (kSlab / 4) : nullptr;
      sums_[m] = x.sums + min(first_row + m * kRowsATile + lane % 4, rows - 1) * x.slabs;
    }
  }
  // The next slab's.
  __device__ void Take(uint32_t (&b)[kRowTiles][kSlab / 8], float (&row_sums)[kRowTiles]) {
#pragma unroll
    for (int m = 0; m < kRowTiles; ++m) {
#pragma unroll
      for (int i = 0; i < kSlab / 32; ++i) {
        uint4 v = make_uint4(0, 0, 0, 0);
        if (planes_[m] != nullptr) v = __ldcg(reinterpret_cast<const uint4*>(planes_[m] + slab_ * kSlab) + i);
        b[m][4 * i] = v.x;
        b[m][4 * i + 1] = v.y;
        b[m][4 * i + 2] = v.z;
        b[m][4 * i + 3] = v.w;
      }
      row_sums[m] = __ldcg(sums_[m] + slab_);
    }
    slab_ = slab_ + 1 == range_.end ? range_.begin : slab_ + 1;
  }

 private:
  SlabRange range_;
  int slab_;
  const uint16_t* planes_[kRowTiles];
  const float* sums_[kRowTiles];
};

// The planes of one row in shared memory, as a stream.
template <int kSlab>
class OwnPlanes {
 public:
  __device__ OwnPlanes(const uint16_t* plane, const float* sums, SlabRange range)
      : plane_(plane), sums_(sums), range_(range), slab_(range.begin) {}
  __device__ void Take(uint32_t (&b)[1][kSlab / 8], float (&row_sums)[1]) {
    LoadFragment<kSlab>(plane_, slab_, b[0]);
    row_sums[0] = sums_[slab_];
    slab_ = slab_ + 1 == range_.end ? range_.begin : slab_ + 1;
  }

 private:
  const uint16_t* plane_;
  const float* sums_;
  SlabRange range_;
  int slab_;
};

template <int kSlab, int kTiles, int kRowTiles, typename Planes>
__device__ inline void AddUnit(const TileWeights<kTiles>& tile, const Unit<kSlab, kTiles>& unit, int first, int end,
                               Planes& planes, float (&sums)[kTiles][kRowTiles][2]) {
#pragma unroll
  for (int s = 0; s < kSlabsAUnit; ++s) {
    if (first + s >= end) break;
    uint32_t b[kRowTiles][kSlab / 8];
    float row_parts[kRowTiles];
    planes.Take(b, row_parts);
#pragma unroll
    for (int i = 0; i < kTiles; ++i) {
      const DeviceWeight& w = *tile.w[i];
      float scales[2];
      float biases[2];
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        scales[half] = WidenScale(__shfl_sync(~0u, unit.scales[i][half], s, 4), w.scale_type);
        biases[half] = w.biases != nullptr ? WidenScale(__shfl_sync(~0u, unit.biases[i][half], s, 4), w.scale_type)
                                           : -w.zero * scales[half];
      }
      AddSlab<kSlab, kRowTiles>(unit.slabs[i][s], b, row_parts, scales, biases, sums[i]);
    }
  }
}

// Every gridDim.x-th tile of kTiles times 16 channels, times kRowTiles tiles of four rows. The block's warps share the
// columns (RangeOf), and their sums are added in the order of warps. locate(tile) tells a tile's weights. finish(tile,
// channel of sixteen, row, sums of the kTiles, before) takes sums, scaled back; prepare(tile, channel, row, before) may
// fetch what it needs when there are few rows.
template <int kSlab, int kTiles, int kRowTiles, int kOwn, typename Locate, typename Prepare, typename Finish>
__device__ inline void RunTiles(const PlaneInput& x, int64_t rows, int tiles, const Locate& locate,
                                const Prepare& prepare, const Finish& finish) {
  extern __shared__ __align__(16) float memory[];
  __shared__ float shared[2][kWarps];
  constexpr int kValues = kTiles * kRowTiles * 2;
  constexpr int kPlaces = kRowTiles * 2;
  constexpr int kPart = kWarps * kValues * 32;
  const int warp = threadIdx.x / 32;
  const int lane = threadIdx.x % 32;
  const int g = lane / 4;
  const int slabs = static_cast<int>(x.rows.slabs);
  const int64_t first_row = static_cast<int64_t>(blockIdx.y) * kRowsATile * kRowTiles;
  const SlabRange range = RangeOf(warp, slabs);
  int tile = static_cast<int>(blockIdx.x);
  TileWeights<kTiles> next_weights = locate(tile);
  Unit<kSlab, kTiles> next = {};
  // Weights depend on nothing that runs: the first come while the kernels before are still busy.
  LoadUnit<kSlab, kTiles>(next_weights, range.begin, range.end, &next);
  float inverse = 0.0f;
  const auto run = [&](auto& planes) {
    for (int turn = 0; tile < tiles; ++turn) {
      float sums[kTiles][kRowTiles][2] = {};
      float before[kTiles] = {};
      if (kRowTiles == 1 && warp < kPlaces && first_row + lane % 4 < rows) {
        prepare(tile, warp * 8 + lane / 4, first_row + lane % 4, before);
      }
      const int next_tile = tile + static_cast<int>(gridDim.x);
      for (int first = range.begin; first < range.end; first += kSlabsAUnit) {
        const Unit<kSlab, kTiles> unit = next;
        const TileWeights<kTiles> weights = next_weights;
        if (first + kSlabsAUnit < range.end) {
          LoadUnit<kSlab, kTiles>(weights, first + kSlabsAUnit, range.end, &next);
        } else if (next_tile < tiles) {
          next_weights = locate(next_tile);
          LoadUnit<kSlab, kTiles>(next_weights, range.begin, range.end, &next);
        }
        AddUnit<kSlab, kTiles, kRowTiles>(weights, unit, first, range.end, planes, sums);
      }
      // Two halves of the memory take turns, so that warps meet once a tile.
      float* const part = memory + turn % 2 * kPart;
#pragma unroll
      for (int i = 0; i < kValues; ++i) {
        part[(warp * kValues + i) * 32 + lane] = sums[i / (2 * kRowTiles)][i / 2 % kRowTiles][i % 2];
      }
      __syncthreads();
      // Every warp adds up some of the places (row tile, half of the channels), in the order of warps.
      for (int place = warp; place < kPlaces; place += kWarps) {
        const int64_t row = first_row + place / 2 * kRowsATile + lane % 4;
        const float back = kOwn > 0 ? inverse : row < rows ? x.rows.inverses[row] : 0.0f;
        float totals[kTiles];
#pragma unroll
        for (int i = 0; i < kTiles; ++i) {
          float sum = 0.0f;
#pragma unroll
          for (int other = 0; other < kWarps; ++other) {
            sum += part[(other * kValues + i * kPlaces + place) * 32 + lane];
          }
          totals[i] = sum * back;
        }
        if (row < rows) finish(tile, place % 2 * 8 + lane / 4, row, totals, before);
      }
      tile = next_tile;
    }
  };
  if constexpr (kOwn > 0) {
    OwnRow<kOwn> own;
    LoadNormWeights(x.norm_weight, slabs * kSlab, &own);
    WaitForPrevious();
    auto* const high = reinterpret_cast<uint16_t*>(memory + 2 * kPart);
    uint16_t* const low = high + slabs * kSlab;
    auto* const row_sums = reinterpret_cast<float*>(low + slabs * kSlab);
    const bool norms = x.norm_weight != nullptr;
    inverse =
        MakeOwnPlanes<kSlab, kOwn>(x.source.data, slabs * kSlab, own, norms, x.eps,
                                   norms && blockIdx.x == 0 ? x.normed.data : nullptr, high, low, row_sums, shared);
    __syncthreads();
    OwnPlanes<kSlab> planes(g < 2 ? (g == 0 ? high : low) : nullptr, row_sums, range);
    run(planes);
  } else {
    WaitForPrevious();
    MadePlanes<kSlab, kRowTiles> planes(x.rows, rows, first_row, range);
    run(planes);
  }
}

template <int kSlab, int kTiles, int kRowTiles, int kOwn>
__global__ void __launch_bounds__(kThreads, kRowTiles == 1 ? 2 : 1)
    PlaneProduct(const __grid_constant__ PlaneInput x, int64_t rows, const __grid_constant__ PlaneOutputs outputs,
                 int tiles) {
  const auto output_of = [&](int* tile) {
    int which = 0;
    while (true) {
      const int own = static_cast<int>((outputs.of[which].w.rows + 16 * kTiles - 1) / (16 * kTiles));
      if (*tile < own) return which;
      *tile -= own;
      ++which;
    }
  };
  const auto locate = [&](int tile) {
    TileWeights<kTiles> weights;
    const int which = output_of(&tile);
#pragma unroll
    for (int i = 0; i < kTiles; ++i) {
      weights.w[i] = &outputs.of[which].w;
      weights.channel[i] = static_cast<int64_t>(tile * kTiles + i) * 16;
    }
    return weights;
  };
  using Values = float[kTiles];
  const auto prepare = [&](int tile, int channel, int64_t row, Values& before) {
    const PlaneOutput& output = outputs.of[output_of(&tile)];
#pragma unroll
    for (int i = 0; i < kTiles; ++i) {
      const int64_t n = static_cast<int64_t>(tile * kTiles + i) * 16 + channel;
      if (output.epilogue.accumulate != 0 && n < output.w.rows)
        before[i] = output.out.data[row * output.out.stride + n];
    }
  };
  const auto finish = [&](int tile, int channel, int64_t row, const Values& sums, const Values& before) {
    const PlaneOutput& output = outputs.of[output_of(&tile)];
#pragma unroll
    for (int i = 0; i < kTiles; ++i) {
      const int64_t n = static_cast<int64_t>(tile * kTiles + i) * 16 + channel;
      if (n >= output.w.rows) continue;
      float* target = output.out.data + row * output.out.stride + n;
      const float sum = output.epilogue.bias != nullptr ? sums[i] + output.epilogue.bias[n] : sums[i];
      const float y = Activate(sum, output.epilogue.act);
      *target = output.epilogue.accumulate == 0 ? y : (kRowTiles == 1 ? before[i] : *target) + y;
    }
  };
  RunTiles<kSlab, kTiles, kRowTiles, kOwn>(x, rows, tiles, locate, prepare, finish);
}

template <int kSlab, int kRowTiles, int kOwn>
__global__ void __launch_bounds__(kThreads, kRowTiles == 1 ? 2 : 1)
    PlaneGated(const __grid_constant__ PlaneInput x, int64_t rows, const __grid_constant__ DeviceWeight gate,
               const __grid_constant__ DeviceWeight up, Act act, DeviceMatrix out, int tiles) {
  const auto locate = [&](int tile) {
    const int64_t channel = static_cast<int64_t>(tile) * 16;
    return TileWeights<2>{{&gate, &up}, {channel, channel}};
  };
  using Values = float[2];
  const auto finish = [&](int tile, int channel, int64_t row, const Values& sums, const Values&) {
    const int64_t n = static_cast<int64_t>(tile) * 16 + channel;
    if (n < gate.rows) out.data[row * out.stride + n] = Activate(sums[0], act) * sums[1];
  };
  RunTiles<kSlab, 2, kRowTiles, kOwn>(
      x, rows, tiles, locate, [](int, int, int64_t, Values&) {}, finish);
}

int Multiprocessors() {
  static const int count = [] {
    int device = 0;
    int found = 0;
    cudaGetDevice(&device);
    cudaDeviceGetAttribute(&found, cudaDevAttrMultiProcessorCount, device);
    return std::max(1, found);
  }();
  return count;
}

// fn.template operator()<tiles of four rows a block, eights of its own row that a thread holds or 0>().
template <typename Fn>
void WithRowTiles(const PlaneInput& x, int64_t rows, Fn fn) {
  if (x.own != 0) {
    // Few variants: the instructions of a layer's kernels should fit the multiprocessor's caches together.
    if (x.source.cols <= 16 * kThreads) return fn.template operator()<1, 2>();
    return fn.template operator()<1, 4>();
  }
  if (rows <= 4) return fn.template operator()<1, 0>();
  if (rows <= 8) return fn.template operator()<2, 0>();
  fn.template operator()<4, 0>();
}

// The grid, the block and the shared memory of a product of `tiles` tiles.
template <typename... Params>
LaunchShape ShapeOf(void (*kernel)(Params...), const PlaneInput& x, int64_t rows, int tiles, int values, int row_tiles,
                    cudaStream_t stream) {
  size_t bytes = sizeof(float) * 2 * 32 * static_cast<size_t>(kWarps * values);
  if (x.own != 0) bytes += static_cast<size_t>(x.rows.slabs * (x.rows.slab * 4 + 4));
  // More than a block may have without asking.
  if (bytes > 48 * 1024) {
    cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, static_cast<int>(bytes));
  }
  const auto groups = static_cast<int>(CeilDiv(rows, kRowsATile * row_tiles));
  const int blocks = std::min(tiles, 2 * Multiprocessors());
  return {dim3(static_cast<unsigned>(blocks), static_cast<unsigned>(groups)), dim3(kThreads), bytes, stream};
}

}  // namespace

bool TakesPlanes(const DeviceWeight& w) { return w.form == Form::kAffine && w.bits == 4 && w.group >= 32; }

bool MakesOwnPlanes(const DeviceMatrix& source, const float* norm_weight) {
  const auto aligned = [](const float* p) { return reinterpret_cast<uintptr_t>(p) % 16 == 0; };
  return source.rows == 1 && source.cols <= kMostOwnColumns && aligned(source.data) && aligned(norm_weight);
}

void LaunchToPlanes(const DeviceMatrix& x, const float* weight, float eps, const DeviceMatrix& normed,
                    const PlaneRows& out, cudaStream_t stream) {
  if (x.rows == 0) return;
  const LaunchShape shape = {dim3(static_cast<unsigned>(x.rows)), dim3(kThreads), 0, stream};
  if (out.slab == 64) {
    Launch(ToPlanes<64>, shape, x, weight, eps, normed, out);
  } else {
    Launch(ToPlanes<32>, shape, x, weight, eps, normed, out);
  }
}

void LaunchPlaneProducts(const PlaneInput& x, int64_t rows, const PlaneOutputs& outputs, cudaStream_t stream) {
  if (rows == 0) return;
  WithRowTiles(x, rows, [&]<int kRowTiles, int kOwn>() {
    constexpr int kTiles = kRowTiles == 1 ? 1 : 2;
    int64_t tiles = 0;
    for (int64_t i = 0; i < outputs.count; ++i) tiles += CeilDiv(outputs.of[i].w.rows, 16 * kTiles);
    const auto count = static_cast<int>(tiles);
    if (count == 0) return;
    const auto launch = [&](auto kernel) {
      Launch(kernel, ShapeOf(kernel, x, rows, count, kTiles * kRowTiles * 2, kRowTiles, stream), x, rows, outputs,
             count);
    };
    if (x.rows.slab == 64) {
      launch(PlaneProduct<64, kTiles, kRowTiles, kOwn>);
    } else {
      launch(PlaneProduct<32, kTiles, kRowTiles, kOwn>);
    }
  });
}

void LaunchPlaneGated(const PlaneInput& x, int64_t rows, const DeviceWeight& gate, const DeviceWeight& up, Act act,
                      const DeviceMatrix& out, cudaStream_t stream) {
  if (rows == 0 || gate.rows == 0) return;
  const auto count = static_cast<int>(CeilDiv(gate.rows, 16));
  WithRowTiles(x, rows, [&]<int kRowTiles, int kOwn>() {
    const auto launch = [&](auto kernel) {
      Launch(kernel, ShapeOf(kernel, x, rows, count, 2 * kRowTiles * 2, kRowTiles, stream), x, rows, gate, up, act, out,
             count);
    };
    if (x.rows.slab == 64) {
      launch(PlaneGated<64, kRowTiles, kOwn>);
    } else {
      launch(PlaneGated<32, kRowTiles, kOwn>);
    }
  });
}

}  // namespace pensieve::backend::cuda
