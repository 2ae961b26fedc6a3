// Products. Precise rows: f32 throughout, limited by the memory's speed for few rows. Coarse rows: f16 tensor cores, limited
// by how fast codes become f16 in shared memory.
#include "backend/cuda/device_code.cuh"
#include "backend/cuda/tensor_core.cuh"

namespace pensieve::backend::cuda {
namespace {

constexpr int kWarps = 8;

__device__ inline void LoadInputs(const float* x, int64_t k, int64_t cols, bool aligned, float (&out)[8]) {
  if (aligned && k + 8 <= cols) {
    const float4 a = __ldg(reinterpret_cast<const float4*>(x + k));
    const float4 b = __ldg(reinterpret_cast<const float4*>(x + k + 4));
    out[0] = a.x, out[1] = a.y, out[2] = a.z, out[3] = a.w;
    out[4] = b.x, out[5] = b.y, out[6] = b.z, out[7] = b.w;
    return;
  }
#pragma unroll
  for (int i = 0; i < 8; ++i) out[i] = k + i < cols ? x[k + i] : 0.0f;
}

__device__ inline bool Aligned(const DeviceMatrix& x) {
  return (reinterpret_cast<uintptr_t>(x.data) & 15) == 0 && (x.stride & 3) == 0;
}

__device__ inline void Finish(float sum, const Epilogue& epilogue, int64_t n, float* out) {
  if (epilogue.bias != nullptr) sum += epilogue.bias[n];
  const float y = Activate(sum, epilogue.act);
  *out = epilogue.accumulate != 0 ? *out + y : y;
}

// A lane's sums for kRows rows and one channel: the eights of columns lane, lane + 32, ... in ascending order.
template <Form kForm, int kBits, int kRows, int kChannels>
__device__ inline void SumLane(const DeviceMatrix& x, int64_t first_row, const DeviceWeight* const (&w)[kChannels],
                               const int64_t (&channel)[kChannels], float (&sums)[kChannels][kRows]) {
  const bool aligned = Aligned(x);
#pragma unroll
  for (int c = 0; c < kChannels; ++c) {
#pragma unroll
    for (int r = 0; r < kRows; ++r) sums[c][r] = 0.0f;
  }
#pragma unroll 2
  for (int64_t k = threadIdx.x % 32 * 8; k < x.cols; k += 256) {
    float weights[kChannels][8];
#pragma unroll
    for (int c = 0; c < kChannels; ++c) LoadEight<kForm, kBits>(*w[c], channel[c], k, weights[c]);
#pragma unroll
    for (int r = 0; r < kRows; ++r) {
      if (first_row + r >= x.rows) break;
      float inputs[8];
      LoadInputs(x.data + (first_row + r) * x.stride, k, x.cols, aligned, inputs);
#pragma unroll
      for (int c = 0; c < kChannels; ++c) {
#pragma unroll
        for (int i = 0; i < 8; ++i) sums[c][r] = fmaf(weights[c][i], inputs[i], sums[c][r]);
      }
    }
  }
#pragma unroll
  for (int c = 0; c < kChannels; ++c) {
#pragma unroll
    for (int r = 0; r < kRows; ++r) sums[c][r] = WarpSum(sums[c][r]);
  }
}

// A warp for kChannels channels and kRows rows.
template <Form kForm, int kBits, int kRows, int kChannels>
__global__ void __launch_bounds__(kWarps * 32)
    PreciseProduct(DeviceMatrix x, DeviceWeight w, Epilogue epilogue, DeviceMatrix out) {
  WaitForPrevious();
  const int64_t first = (static_cast<int64_t>(blockIdx.x) * kWarps + threadIdx.x / 32) * kChannels;
  const int64_t first_row = static_cast<int64_t>(blockIdx.y) * kRows;
  if (first >= w.rows) return;
  const DeviceWeight* weights[kChannels];
  int64_t channels[kChannels];
#pragma unroll
  for (int c = 0; c < kChannels; ++c) {
    weights[c] = &w;
    channels[c] = min(first + c, w.rows - 1);
  }
  float sums[kChannels][kRows];
  SumLane<kForm, kBits, kRows, kChannels>(x, first_row, weights, channels, sums);
  if (threadIdx.x % 32 != 0) return;
#pragma unroll
  for (int c = 0; c < kChannels; ++c) {
    for (int r = 0; r < kRows; ++r) {
      if (first + c >= w.rows || first_row + r >= x.rows) continue;
      Finish(sums[c][r], epilogue, first + c, out.data + (first_row + r) * out.stride + first + c);
    }
  }
}

// fn.template operator()<rows a tile>(): the smallest tile that holds them.
template <typename Fn>
void WithRows(int64_t rows, Fn fn) {
  if (rows == 1) return fn.template operator()<1>();
  if (rows == 2) return fn.template operator()<2>();
  if (rows <= 4) return fn.template operator()<4>();
  fn.template operator()<8>();
}

// --- coarse -------------------------------------------------------------------------------------------------------

__global__ void ToHalfRows(DeviceMatrix x, HalfRows out) {
  WaitForPrevious();
  __shared__ float shared[8];
  const int64_t r = blockIdx.x;
  const float* row = x.data + r * x.stride;
  float largest = 0.0f;
  bool usable = true;
  for (int64_t k = threadIdx.x; k < x.cols; k += blockDim.x) {
    largest = fmaxf(largest, fabsf(row[k]));
    usable = usable && isfinite(row[k]);
  }
  usable = __syncthreads_and(usable);
  largest = BlockMax<256>(largest, shared);
  // The exponent of a power of two that brings the largest magnitude to [2^13, 2^14).
  const int exponent = largest > 0.0f && usable ? 13 - ilogbf(largest) : 0;
  const float factor = ldexpf(1.0f, max(-120, min(120, exponent)));
  for (int64_t k = threadIdx.x; k < out.padded_cols; k += blockDim.x) {
    const float value = k < x.cols ? row[k] * factor : 0.0f;
    out.values[r * out.padded_cols + k] = __half_as_ushort(__float2half_rn(value));
  }
  if (threadIdx.x == 0) out.factors[r] = usable ? 1.0f / factor : __uint_as_float(0x7fc00000u);
}

constexpr int kTileRows = 128;
constexpr int kTileChannels = 128;
constexpr int kTileDepth = 32;
constexpr int kPitch = kTileDepth + 8;  // halves: rows of 80 bytes meet different banks

__device__ inline void CopyAsync16(void* shared, const void* global) {
#if __CUDA_ARCH__ >= 800
  const auto address = static_cast<uint32_t>(__cvta_generic_to_shared(shared));
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(address), "l"(global) : "memory");
#endif
}

// One stage: rows of x and channels of w for kTileDepth columns.
struct Stage {
  __half x[kTileRows][kPitch];
  __half w[kTileChannels][kPitch];
};

__device__ inline void StageInputs(const HalfRows& x, int64_t rows, int64_t first_row, int64_t k, Stage* stage) {
  for (int i = threadIdx.x; i < kTileRows * kTileDepth / 8; i += 256) {
    const int r = i / (kTileDepth / 8);
    const int piece = i % (kTileDepth / 8) * 8;
    // Rows beyond the last repeat it; they are not stored.
    const int64_t row = min(first_row + r, rows - 1);
    CopyAsync16(&stage->x[r][piece], x.values + row * x.padded_cols + k + piece);
  }
}

template <Form kForm, int kBits>
__device__ inline void StageWeights(const DeviceWeight& w, int64_t first_channel, int64_t k, Stage* stage) {
  const int channel = threadIdx.x / 2;
  const int piece = threadIdx.x % 2 * 16;
  const int64_t row = min(first_channel + channel, w.rows - 1);
#pragma unroll
  for (int half = 0; half < 16; half += 8) {
    float values[8];
    LoadEight<kForm, kBits>(w, row, k + piece + half, values);
    __half2 pairs[4];
#pragma unroll
    for (int i = 0; i < 4; ++i) pairs[i] = __floats2half2_rn(values[2 * i], values[2 * i + 1]);
    *reinterpret_cast<uint4*>(&stage->w[channel][piece + half]) = *reinterpret_cast<uint4*>(pairs);
  }
}

// 64 rows by 32 channels of a warp: sums over columns ascend by sixteens.
__device__ inline void MultiplyStage(const Stage& now, int warp_row, int warp_channel, float (&sums)[4][4][4]) {
  const int lane = threadIdx.x % 32;
#pragma unroll
  for (int k = 0; k < kTileDepth; k += 16) {
    uint32_t a[4][4];
    uint32_t b[2][4];
#pragma unroll
    for (int m = 0; m < 4; ++m) LoadMatrices(a[m], &now.x[warp_row + m * 16 + lane % 16][k + lane / 16 * 8]);
      // Two eights of channels: their columns k..k+7 and k+8..k+15.
#pragma unroll
    for (int n = 0; n < 2; ++n) {
      LoadMatrices(b[n], &now.w[warp_channel + n * 16 + lane / 16 * 8 + lane % 8][k + lane / 8 % 2 * 8]);
    }
#pragma unroll
    for (int m = 0; m < 4; ++m) {
#pragma unroll
      for (int n = 0; n < 4; ++n) MultiplyAdd(sums[m][n], a[m], b[n / 2][n % 2 * 2], b[n / 2][n % 2 * 2 + 1]);
    }
  }
}

__device__ inline void StoreSums(const HalfRows& x, int64_t rows, int64_t first_row, int64_t channels,
                                 int64_t first_channel, const float (&sums)[4][4][4], const Epilogue& epilogue,
                                 const DeviceMatrix& out) {
  const int lane = threadIdx.x % 32;
#pragma unroll
  for (int m = 0; m < 4; ++m) {
#pragma unroll
    for (int n = 0; n < 4; ++n) {
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        const int64_t row = first_row + m * 16 + lane / 4 + i / 2 * 8;
        const int64_t channel = first_channel + n * 8 + lane % 4 * 2 + i % 2;
        if (row >= rows || channel >= channels) continue;
        Finish(sums[m][n][i] * x.factors[row], epilogue, channel, out.data + row * out.stride + channel);
      }
    }
  }
}

// 8 warps, 2 by 4, each 64 rows by 32 channels. Sums over columns ascend by sixteens.
template <Form kForm, int kBits>
__global__ void __launch_bounds__(256, 2)
    CoarseProduct(HalfRows x, int64_t rows, DeviceWeight w, Epilogue epilogue, DeviceMatrix out) {
  WaitForPrevious();
  extern __shared__ __align__(16) char memory[];
  Stage* stages = reinterpret_cast<Stage*>(memory);
  const int warp = threadIdx.x / 32;
  const int warp_row = warp / 4 * 64;
  const int warp_channel = warp % 4 * 32;
  const int64_t first_row = static_cast<int64_t>(blockIdx.y) * kTileRows;
  const int64_t first_channel = static_cast<int64_t>(blockIdx.x) * kTileChannels;
  float sums[4][4][4] = {};
  StageInputs(x, rows, first_row, 0, &stages[0]);
  asm volatile("cp.async.commit_group;" ::: "memory");
  StageWeights<kForm, kBits>(w, first_channel, 0, &stages[0]);
  const int64_t steps = x.padded_cols / kTileDepth;
  for (int64_t step = 0; step < steps; ++step) {
    asm volatile("cp.async.wait_group 0;" ::: "memory");
    __syncthreads();
    Stage* now = &stages[step % 2];
    if (step + 1 < steps) {
      StageInputs(x, rows, first_row, (step + 1) * kTileDepth, &stages[(step + 1) % 2]);
      asm volatile("cp.async.commit_group;" ::: "memory");
      StageWeights<kForm, kBits>(w, first_channel, (step + 1) * kTileDepth, &stages[(step + 1) % 2]);
    }
    MultiplyStage(*now, warp_row, warp_channel, sums);
  }
  StoreSums(x, rows, first_row + warp_row, w.rows, first_channel + warp_channel, sums, epilogue, out);
}

// A weight as halves, rounded as StageWeights rounds it: eight columns a thread.
template <Form kForm, int kBits>
__global__ void ToHalfWeights(DeviceWeight w, uint16_t* out) {
  WaitForPrevious();
  const int64_t eights = w.cols / 8;
  const int64_t i = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  if (i >= w.rows * eights) return;
  const auto row = static_cast<int64_t>(static_cast<uint32_t>(i) / static_cast<uint32_t>(eights));
  float values[8];
  LoadEight<kForm, kBits>(w, row, (i - row * eights) * 8, values);
  __half2 pairs[4];
#pragma unroll
  for (int j = 0; j < 4; ++j) pairs[j] = __floats2half2_rn(values[2 * j], values[2 * j + 1]);
  *reinterpret_cast<uint4*>(out + i * 8) = *reinterpret_cast<uint4*>(pairs);
}

// CoarseProduct over halves of both: the same sums, with more stages on their way.
constexpr int kHalfStages = 4;
__global__ void __launch_bounds__(256, 2)
    HalfProduct(HalfRows x, int64_t rows, const uint16_t* w, int64_t channels, Epilogue epilogue, DeviceMatrix out) {
  WaitForPrevious();
  extern __shared__ __align__(16) char memory[];
  Stage* stages = reinterpret_cast<Stage*>(memory);
  const int warp = threadIdx.x / 32;
  const int warp_row = warp / 4 * 64;
  const int warp_channel = warp % 4 * 32;
  const int64_t first_row = static_cast<int64_t>(blockIdx.y) * kTileRows;
  const int64_t first_channel = static_cast<int64_t>(blockIdx.x) * kTileChannels;
  const int steps = static_cast<int>(x.padded_cols) / kTileDepth;
  const auto ask = [&](int step) {
    if (step < steps) {
      Stage* stage = &stages[step % kHalfStages];
      const int64_t k = static_cast<int64_t>(step) * kTileDepth;
      StageInputs(x, rows, first_row, k, stage);
#pragma unroll
      for (int i = 0; i < 2; ++i) {
        const int channel = static_cast<int>(threadIdx.x) / 4 + i * 64;
        const int piece = threadIdx.x % 4 * 8;
        const int64_t row = min(first_channel + channel, channels - 1);
        CopyAsync16(&stage->w[channel][piece], w + row * x.padded_cols + k + piece);
      }
    }
    asm volatile("cp.async.commit_group;" ::: "memory");
  };
  float sums[4][4][4] = {};
#pragma unroll
  for (int i = 0; i < kHalfStages - 1; ++i) ask(i);
  for (int step = 0; step < steps; ++step) {
    asm volatile("cp.async.wait_group %0;" ::"n"(kHalfStages - 2) : "memory");
    __syncthreads();
    ask(step + kHalfStages - 1);
    MultiplyStage(stages[step % kHalfStages], warp_row, warp_channel, sums);
  }
  StoreSums(x, rows, first_row + warp_row, channels, first_channel + warp_channel, sums, epilogue, out);
}

__global__ void GateRows(DeviceMatrix up, Act act, DeviceMatrix out) {
  WaitForPrevious();
  const int64_t i = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  if (i >= out.rows * out.cols) return;
  float* y = out.data + i / out.cols * out.stride + i % out.cols;
  *y = Activate(*y, act) * up.data[i / out.cols * up.stride + i % out.cols];
}

}  // namespace

void LaunchPreciseProduct(const DeviceMatrix& x, const DeviceWeight& w, const Epilogue& epilogue,
                          const DeviceMatrix& out, cudaStream_t stream) {
  if (x.rows == 0 || w.rows == 0) return;
  WithForm(w.form, w.bits, [&]<Form kForm, int kBits>() {
    WithRows(x.rows, [&]<int kRows>() {
      constexpr int kChannels = 2;
      const dim3 grid(static_cast<unsigned>(CeilDiv(w.rows, kWarps * kChannels)),
                      static_cast<unsigned>(CeilDiv(x.rows, kRows)));
      Launch(PreciseProduct<kForm, kBits, kRows, kChannels>, {dim3(grid), dim3(kWarps * 32), 0, stream}, x, w, epilogue,
             out);
    });
  });
}

void LaunchToHalfRows(const DeviceMatrix& x, const HalfRows& out, cudaStream_t stream) {
  if (x.rows == 0) return;
  Launch(ToHalfRows, {dim3(static_cast<unsigned>(x.rows)), dim3(256), 0, stream}, x, out);
}

void LaunchCoarseProduct(const HalfRows& x, const DeviceWeight& w, const Epilogue& epilogue, const DeviceMatrix& out,
                         cudaStream_t stream) {
  if (out.rows == 0 || w.rows == 0) return;
  WithForm(w.form, w.bits, [&]<Form kForm, int kBits>() {
    const dim3 grid(static_cast<unsigned>(CeilDiv(w.rows, kTileChannels)),
                    static_cast<unsigned>(CeilDiv(out.rows, kTileRows)));
    Launch(CoarseProduct<kForm, kBits>, {dim3(grid), dim3(256), 2 * sizeof(Stage), stream}, x, out.rows, w, epilogue,
           out);
  });
}

bool TakesHalfWeights(const DeviceWeight& w) {
  return w.form != Form::kF32 && w.cols % kTileDepth == 0 && w.rows * (w.cols / 8) < (int64_t{1} << 31);
}

void LaunchToHalfWeights(const DeviceWeight& w, uint16_t* out, cudaStream_t stream) {
  WithForm(w.form, w.bits, [&]<Form kForm, int kBits>() {
    Launch(ToHalfWeights<kForm, kBits>,
           {dim3(static_cast<unsigned>(CeilDiv(w.rows * (w.cols / 8), 256))), dim3(256), 0, stream}, w, out);
  });
}

void LaunchHalfProduct(const HalfRows& x, const uint16_t* w, int64_t channels, const Epilogue& epilogue,
                       const DeviceMatrix& out, cudaStream_t stream) {
  if (out.rows == 0 || channels == 0) return;
  constexpr size_t kBytes = kHalfStages * sizeof(Stage);
  cudaFuncSetAttribute(HalfProduct, cudaFuncAttributeMaxDynamicSharedMemorySize, static_cast<int>(kBytes));
  const dim3 grid(static_cast<unsigned>(CeilDiv(channels, kTileChannels)),
                  static_cast<unsigned>(CeilDiv(out.rows, kTileRows)));
  Launch(HalfProduct, {dim3(grid), dim3(256), kBytes, stream}, x, out.rows, w, channels, epilogue, out);
}

void LaunchGate(const DeviceMatrix& up, Act act, const DeviceMatrix& out, cudaStream_t stream) {
  const int64_t count = out.rows * out.cols;
  if (count == 0) return;
  Launch(GateRows, {dim3(static_cast<unsigned>(CeilDiv(count, 256))), dim3(256), 0, stream}, up, act, out);
}

}  // namespace pensieve::backend::cuda
