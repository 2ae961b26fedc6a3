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

constexpr int kPrepareThreads = 256;
constexpr int kRowsATile = 4;
constexpr int kSlabsAUnit = 4;
constexpr int kMostWarps = 16;

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

// One row a block; a thread takes every kPrepareThreads-th eight of columns.
template <int kSlab>
__global__ void __launch_bounds__(kPrepareThreads)
    ToPlanes(DeviceMatrix x, const float* weight, float eps, DeviceMatrix normed, PlaneRows out) {
  __shared__ float shared[kPrepareThreads / 32];
  WaitForPrevious();
  const int64_t r = blockIdx.x;
  const float* row = x.data + r * x.stride;
  const int cols = static_cast<int>(x.cols);
  float inverse_norm = 1.0f;
  if (weight != nullptr) {
    const float squares = SumSquares<kPrepareThreads>(row, cols, shared);
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
  for (int first = static_cast<int>(threadIdx.x) * 8; first < cols; first += kPrepareThreads * 8) {
    float eight[8];
    load(first, eight);
#pragma unroll
    for (int i = 0; i < 8; ++i) {
      largest = fmaxf(largest, fabsf(eight[i]));
      usable = usable && isfinite(eight[i]);
      if (weight != nullptr) normed.data[r * normed.stride + first + i] = eight[i];
    }
  }
  usable = __syncthreads_and(usable);
  largest = BlockMax<kPrepareThreads>(largest, shared);
  const int exponent = usable && largest > 0.0f ? min(120, 13 - ilogbf(largest)) : 0;
  const float factor = ldexpf(1.0f, max(-120, exponent));
  uint16_t* high = out.values + r * 2 * cols;
  uint16_t* low = high + cols;
  constexpr int kLanes = kSlab / 8;  // that share a slab
  for (int first = static_cast<int>(threadIdx.x) * 8; first < cols; first += kPrepareThreads * 8) {
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
    if (threadIdx.x % kLanes == 0) out.sums[r * out.slabs + first / kSlab] = sum;
  }
  if (threadIdx.x == 0) out.inverses[r] = usable ? 1.0f / factor : __uint_as_float(0x7fc00000u);
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

// Scales (or biases) of a unit's slabs for one channel. Four halves come in one load where they lie together.
template <int kSlab>
__device__ inline void LoadUnitScales(const DeviceWeight& w, const uint8_t* scales, int64_t channel, int first,
                                      int count, float (&out)[kSlabsAUnit]) {
  const int64_t row = min(channel, w.rows - 1) * w.groups;
  if (w.group == kSlab && w.scale_type != ScaleType::kF32 && w.groups % 4 == 0) {
    const uint2 four = __ldg(reinterpret_cast<const uint2*>(scales + (row + first) * 2));
#pragma unroll
    for (int s = 0; s < kSlabsAUnit; ++s) {
      const auto bits = static_cast<uint16_t>((s < 2 ? four.x : four.y) >> (16 * (s % 2)));
      out[s] = w.scale_type == ScaleType::kF16 ? HalfBits(bits) : Bf16Bits(bits);
    }
    return;
  }
#pragma unroll
  for (int s = 0; s < kSlabsAUnit; ++s) {
    if (s < count) {
      out[s] = LoadScale(scales, row + (static_cast<uint32_t>((first + s) * kSlab) >> w.group_shift), w.scale_type);
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

// The planes that a lane multiplies: of row g / 2 of the tile, plane g % 2; zeros where there is no such row.
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
    const uint4 v = __ldcg(source + i);  // written by the kernel before

    b[4 * i] = v.x;
    b[4 * i + 1] = v.y;
    b[4 * i + 2] = v.z;
    b[4 * i + 3] = v.w;
  }
}

// What a lane needs of the weights for four slabs of kTiles tiles.
template <int kSlab, int kTiles>
struct Unit {
  Slab<kSlab> slabs[kTiles][kSlabsAUnit];
  float scales[kTiles][2][kSlabsAUnit];
  float biases[kTiles][2][kSlabsAUnit];
};

template <int kSlab, int kTiles>
__device__ inline void LoadUnit(const DeviceWeight* const (&w)[kTiles], const int64_t (&channel)[kTiles], int first,
                                int slabs, Unit<kSlab, kTiles>* unit) {
  const int count = min(kSlabsAUnit, slabs - first);
  const int g = threadIdx.x % 32 / 4;
  if (count <= 0) return;
#pragma unroll
  for (int i = 0; i < kTiles; ++i) {
#pragma unroll
    for (int s = 0; s < kSlabsAUnit; ++s) {
      if (s < count) LoadSlab<kSlab>(*w[i], channel[i] + g, first + s, &unit->slabs[i][s]);
    }
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      LoadUnitScales<kSlab>(*w[i], w[i]->scales, channel[i] + g + half * 8, first, count, unit->scales[i][half]);
      if (w[i]->biases != nullptr) {
        LoadUnitScales<kSlab>(*w[i], w[i]->biases, channel[i] + g + half * 8, first, count, unit->biases[i][half]);
      } else {
#pragma unroll
        for (int s = 0; s < kSlabsAUnit; ++s) unit->biases[i][half][s] = -w[i]->zero * unit->scales[i][half][s];
      }
    }
  }
}

// kTiles tiles of 16 channels, from `channel` on (for a gated product: of both weights in turn), times kRowTiles tiles of
// four rows. The block's warps take units of four slabs in turn; their sums are added in the order of warps.
template <int kSlab, int kTiles, int kRowTiles>
__device__ inline void SumTiles(const PlaneRows& x, int64_t rows, int64_t first_row,
                                const DeviceWeight* const (&w)[kTiles], const int64_t (&channel)[kTiles], float* shared,
                                float (&sums)[kTiles][kRowTiles][2]) {
  const int warp = threadIdx.x / 32;
  const int warps = blockDim.x / 32;
  const int lane = threadIdx.x % 32;
  const int g = lane / 4;
  const uint16_t* planes[kRowTiles];
  const float* row_sums[kRowTiles];
#pragma unroll
  for (int m = 0; m < kRowTiles; ++m) {
    const int64_t plane_row = first_row + m * kRowsATile + g / 2;
    planes[m] = plane_row < rows ? x.values + (plane_row * 2 + g % 2) * x.slabs * kSlab : nullptr;
    row_sums[m] = x.sums + min(first_row + m * kRowsATile + lane % 4, rows - 1) * x.slabs;
#pragma unroll
    for (int i = 0; i < kTiles; ++i) sums[i][m][0] = sums[i][m][1] = 0.0f;
  }
  Unit<kSlab, kTiles> unit;
  // Weights depend on nothing that runs: the first unit's come while the kernel before still computes the planes.
  LoadUnit<kSlab, kTiles>(w, channel, warp * kSlabsAUnit, static_cast<int>(x.slabs), &unit);
  WaitForPrevious();
  for (int first = warp * kSlabsAUnit; first < x.slabs; first += warps * kSlabsAUnit) {
    if (first >= warps * kSlabsAUnit) LoadUnit<kSlab, kTiles>(w, channel, first, static_cast<int>(x.slabs), &unit);
    const int count = min(kSlabsAUnit, static_cast<int>(x.slabs) - first);
#pragma unroll
    for (int s = 0; s < kSlabsAUnit; ++s) {
      if (s >= count) break;
      uint32_t b[kRowTiles][kSlab / 8];
      float row_parts[kRowTiles];
#pragma unroll
      for (int m = 0; m < kRowTiles; ++m) {
        LoadFragment<kSlab>(planes[m], first + s, b[m]);
        row_parts[m] = row_sums[m][first + s];
      }
#pragma unroll
      for (int i = 0; i < kTiles; ++i) {
        AddSlab<kSlab, kRowTiles>(unit.slabs[i][s], b, row_parts, {unit.scales[i][0][s], unit.scales[i][1][s]},
                                  {unit.biases[i][0][s], unit.biases[i][1][s]}, sums[i]);
      }
    }
  }
  // Warp 0 adds up.
  constexpr int kValues = kTiles * kRowTiles * 2;
  float* own = shared + (warp * kValues) * 32 + lane;
#pragma unroll
  for (int i = 0; i < kValues; ++i) own[i * 32] = sums[i / (2 * kRowTiles)][i / 2 % kRowTiles][i % 2];
  __syncthreads();
  if (warp != 0) return;
  for (int other = 1; other < warps; ++other) {
#pragma unroll
    for (int i = 0; i < kValues; ++i) {
      sums[i / (2 * kRowTiles)][i / 2 % kRowTiles][i % 2] += shared[(other * kValues + i) * 32 + lane];
    }
  }
#pragma unroll
  for (int m = 0; m < kRowTiles; ++m) {
    const int64_t row = first_row + m * kRowsATile + lane % 4;
    const float inverse = row < rows ? x.inverses[row] : 0.0f;
#pragma unroll
    for (int i = 0; i < kTiles; ++i) {
      sums[i][m][0] *= inverse;
      sums[i][m][1] *= inverse;
    }
  }
}

template <int kSlab, int kTiles, int kRowTiles>
__global__ void __launch_bounds__(kMostWarps * 32, 1) PlaneProduct(PlaneRows x, int64_t rows, PlaneOutputs outputs) {
  extern __shared__ float shared[];
  // Which of the weights this block belongs to.
  int64_t tile = blockIdx.x;
  int which = 0;
  while (true) {
    const int64_t tiles = (outputs.of[which].w.rows + 16 * kTiles - 1) / (16 * kTiles);
    if (tile < tiles) break;
    tile -= tiles;
    ++which;
  }
  const PlaneOutput& output = outputs.of[which];
  const int64_t first_row = static_cast<int64_t>(blockIdx.y) * kRowsATile * kRowTiles;
  const DeviceWeight* weights[kTiles];
  int64_t channels[kTiles];
#pragma unroll
  for (int i = 0; i < kTiles; ++i) {
    weights[i] = &output.w;
    channels[i] = (tile * kTiles + i) * 16;
  }
  float sums[kTiles][kRowTiles][2];
  SumTiles<kSlab, kTiles, kRowTiles>(x, rows, first_row, weights, channels, shared, sums);
  if (threadIdx.x >= 32) return;
  const int lane = threadIdx.x;
#pragma unroll
  for (int m = 0; m < kRowTiles; ++m) {
    const int64_t row = first_row + m * kRowsATile + lane % 4;
    if (row >= rows) continue;
#pragma unroll
    for (int i = 0; i < kTiles * 2; ++i) {
      const int64_t n = channels[i / 2] + lane / 4 + i % 2 * 8;
      if (n >= output.w.rows) continue;
      float sum = sums[i / 2][m][i % 2];
      if (output.epilogue.bias != nullptr) sum += output.epilogue.bias[n];
      const float y = Activate(sum, output.epilogue.act);
      float* target = output.out.data + row * output.out.stride + n;
      *target = output.epilogue.accumulate != 0 ? *target + y : y;
    }
  }
}

template <int kSlab, int kRowTiles>
__global__ void __launch_bounds__(kMostWarps * 32, 1)
    PlaneGated(PlaneRows x, int64_t rows, DeviceWeight gate, DeviceWeight up, Act act, DeviceMatrix out) {
  extern __shared__ float shared[];
  const int64_t first_row = static_cast<int64_t>(blockIdx.y) * kRowsATile * kRowTiles;
  const int64_t channel = static_cast<int64_t>(blockIdx.x) * 16;
  const DeviceWeight* const weights[2] = {&gate, &up};
  const int64_t channels[2] = {channel, channel};
  float sums[2][kRowTiles][2];
  SumTiles<kSlab, 2, kRowTiles>(x, rows, first_row, weights, channels, shared, sums);
  if (threadIdx.x >= 32) return;
  const int lane = threadIdx.x;
#pragma unroll
  for (int m = 0; m < kRowTiles; ++m) {
    const int64_t row = first_row + m * kRowsATile + lane % 4;
    if (row >= rows) continue;
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const int64_t n = channel + lane / 4 + half * 8;
      if (n < gate.rows) out.data[row * out.stride + n] = Activate(sums[0][m][half], act) * sums[1][m][half];
    }
  }
}

// Warps of a block: by the columns alone, so that the order of sums is.
int WarpsFor(int64_t slabs) { return static_cast<int>(std::min<int64_t>(kMostWarps, CeilDiv(slabs, kSlabsAUnit))); }

// fn.template operator()<tiles of four rows a block>().
template <typename Fn>
void WithRowTiles(int64_t rows, Fn fn) {
  if (rows <= 4) return fn.template operator()<1>();
  if (rows <= 8) return fn.template operator()<2>();
  fn.template operator()<4>();
}

}  // namespace

bool TakesPlanes(const DeviceWeight& w) { return w.form == Form::kAffine && w.bits == 4 && w.group >= 32; }

void LaunchToPlanes(const DeviceMatrix& x, const float* weight, float eps, const DeviceMatrix& normed,
                    const PlaneRows& out, cudaStream_t stream) {
  if (x.rows == 0) return;
  const auto blocks = static_cast<unsigned>(x.rows);
  if (out.slab == 64) {
    Launch(ToPlanes<64>, {dim3(blocks), dim3(kPrepareThreads), 0, stream}, x, weight, eps, normed, out);
  } else {
    Launch(ToPlanes<32>, {dim3(blocks), dim3(kPrepareThreads), 0, stream}, x, weight, eps, normed, out);
  }
}

void LaunchPlaneProducts(const PlaneRows& x, int64_t rows, const PlaneOutputs& outputs, cudaStream_t stream) {
  if (rows == 0) return;
  const int warps = WarpsFor(x.slabs);
  WithRowTiles(rows, [&]<int kRowTiles>() {
    constexpr int kTiles = kRowTiles == 1 ? 1 : 2;
    int64_t blocks = 0;
    for (int64_t i = 0; i < outputs.count; ++i) blocks += CeilDiv(outputs.of[i].w.rows, 16 * kTiles);
    const dim3 grid(static_cast<unsigned>(blocks), static_cast<unsigned>(CeilDiv(rows, kRowsATile * kRowTiles)));
    const size_t memory = sizeof(float) * 32 * static_cast<size_t>(warps * kTiles * kRowTiles * 2);
    if (x.slab == 64) {
      Launch(PlaneProduct<64, kTiles, kRowTiles>, {dim3(grid), dim3(warps * 32), memory, stream}, x, rows, outputs);
    } else {
      Launch(PlaneProduct<32, kTiles, kRowTiles>, {dim3(grid), dim3(warps * 32), memory, stream}, x, rows, outputs);
    }
  });
}

void LaunchPlaneGated(const PlaneRows& x, int64_t rows, const DeviceWeight& gate, const DeviceWeight& up, Act act,
                      const DeviceMatrix& out, cudaStream_t stream) {
  if (rows == 0) return;
  const int warps = WarpsFor(x.slabs);
  WithRowTiles(rows, [&]<int kRowTiles>() {
    const dim3 grid(static_cast<unsigned>(CeilDiv(gate.rows, 16)),
                    static_cast<unsigned>(CeilDiv(rows, kRowsATile * kRowTiles)));
    const size_t memory = sizeof(float) * 32 * static_cast<size_t>(warps * 2 * kRowTiles * 2);
    if (x.slab == 64) {
      Launch(PlaneGated<64, kRowTiles>, {dim3(grid), dim3(warps * 32), memory, stream}, x, rows, gate, up, act, out);
    } else {
      Launch(PlaneGated<32, kRowTiles>, {dim3(grid), dim3(warps * 32), memory, stream}, x, rows, gate, up, act, out);
    }
  });
}

}  // namespace pensieve::backend::cuda
