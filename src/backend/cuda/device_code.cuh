// What several kernels share: weights as floats, activations, sums over warps and blocks.
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include "backend/cuda/kernels.h"

namespace pensieve::backend::cuda {

__device__ inline float HalfBits(uint16_t bits) { return __half2float(__ushort_as_half(bits)); }
__device__ inline float Bf16Bits(uint16_t bits) { return __uint_as_float(static_cast<uint32_t>(bits) << 16); }

__device__ inline float LoadScale(const uint8_t* scales, int64_t i, ScaleType type) {
  if (type == ScaleType::kF32) return reinterpret_cast<const float*>(scales)[i];
  const uint16_t bits = reinterpret_cast<const uint16_t*>(scales)[i];
  return type == ScaleType::kF16 ? HalfBits(bits) : Bf16Bits(bits);
}

// 2^(s - 127); 255 is NaN.
__device__ inline float FromE8m0(uint8_t s) {
  if (s == 255) return __uint_as_float(0x7fc00000u);
  return s == 0 ? 0x1p-127f : __uint_as_float(static_cast<uint32_t>(s) << 23);
}

// Columns [k, k + 8) of a row as f32, k a multiple of 8; zeros beyond cols. The definition of tensor::DequantizeRow: one
// product and one sum, fused.
template <Form kForm, int kBits>
__device__ inline void LoadEight(const DeviceWeight& w, int64_t row, int64_t k, float (&out)[8]) {
  const uint8_t* codes = w.codes + row * w.row_bytes;
  if constexpr (kForm == Form::kF32) {
    const float* values = reinterpret_cast<const float*>(codes);
#pragma unroll
    for (int i = 0; i < 8; ++i) out[i] = k + i < w.cols ? values[k + i] : 0.0f;
  } else if constexpr (kForm == Form::kF16 || kForm == Form::kBf16) {
    const uint16_t* values = reinterpret_cast<const uint16_t*>(codes);
    if (k + 8 <= w.cols && (reinterpret_cast<uintptr_t>(values + k) & 15) == 0) {
      const uint4 eight = __ldg(reinterpret_cast<const uint4*>(values + k));
      const uint32_t words[4] = {eight.x, eight.y, eight.z, eight.w};
#pragma unroll
      for (int i = 0; i < 8; ++i) {
        const auto bits = static_cast<uint16_t>(words[i / 2] >> (16 * (i % 2)));
        out[i] = kForm == Form::kF16 ? HalfBits(bits) : Bf16Bits(bits);
      }
    } else {
#pragma unroll
      for (int i = 0; i < 8; ++i) {
        const uint16_t bits = k + i < w.cols ? values[k + i] : 0;
        out[i] = kForm == Form::kF16 ? HalfBits(bits) : Bf16Bits(bits);
      }
    }
  } else if (k >= w.cols) {
#pragma unroll
    for (int i = 0; i < 8; ++i) out[i] = 0.0f;
  } else if constexpr (kForm == Form::kMxfp4) {
    const uint32_t word = __ldg(reinterpret_cast<const uint32_t*>(codes + k / 2));
    const float scale = FromE8m0(w.scales[row * w.groups + (static_cast<uint32_t>(k) >> 5)]);
#pragma unroll
    for (int i = 0; i < 8; ++i) {
      const uint32_t q = word >> (4 * i) & 15u;
      // e2m1: a sign, two bits of exponent, one of mantissa; the lowest exponent holds 0 and 0.5.
      const uint32_t magnitude = q & 7u;
      const float value = magnitude < 2 ? 0.5f * static_cast<float>(magnitude)
                                        : __uint_as_float((126u + (magnitude >> 1)) << 23 | (magnitude & 1u) << 22);
      out[i] = (q & 8u ? -value : value) * scale;
    }
  } else {
    const int64_t group = row * w.groups + (static_cast<uint32_t>(k) >> w.group_shift);
    const float scale = LoadScale(w.scales, group, w.scale_type);
    const float bias = w.biases != nullptr ? LoadScale(w.biases, group, w.scale_type) : -w.zero * scale;
    if constexpr (kBits == 4) {
      const uint32_t word = __ldg(reinterpret_cast<const uint32_t*>(codes + k / 2));
#pragma unroll
      for (int i = 0; i < 8; ++i) out[i] = fmaf(scale, static_cast<float>(word >> (4 * i) & 15u), bias);
    } else if constexpr (kBits == 8) {
      const uint32_t low = __ldg(reinterpret_cast<const uint32_t*>(codes + k));
      const uint32_t high = __ldg(reinterpret_cast<const uint32_t*>(codes + k + 4));
#pragma unroll
      for (int i = 0; i < 8; ++i) {
        const uint32_t q = (i < 4 ? low : high) >> (8 * (i % 4)) & 255u;
        out[i] = fmaf(scale, static_cast<float>(q), bias);
      }
    } else {
      // Eight codes are kBits bytes.
      uint64_t stream = 0;
#pragma unroll
      for (int i = 0; i < kBits; ++i) stream |= static_cast<uint64_t>(codes[k / 8 * kBits + i]) << (8 * i);
#pragma unroll
      for (int i = 0; i < 8; ++i) {
        out[i] =
            fmaf(scale, static_cast<float>(static_cast<uint32_t>(stream >> (kBits * i)) & ((1u << kBits) - 1u)), bias);
      }
    }
  }
}

// Calls fn.template operator()<form, bits>() for the weight's form.
template <typename Fn>
__host__ __device__ inline void WithForm(Form form, int bits, Fn fn) {
  switch (form) {
    case Form::kF32: return fn.template operator()<Form::kF32, 0>();
    case Form::kF16: return fn.template operator()<Form::kF16, 0>();
    case Form::kBf16: return fn.template operator()<Form::kBf16, 0>();
    case Form::kMxfp4: return fn.template operator()<Form::kMxfp4, 4>();
    case Form::kAffine: break;
  }
  switch (bits) {
    case 2: return fn.template operator()<Form::kAffine, 2>();
    case 3: return fn.template operator()<Form::kAffine, 3>();
    case 4: return fn.template operator()<Form::kAffine, 4>();
    case 5: return fn.template operator()<Form::kAffine, 5>();
    case 6: return fn.template operator()<Form::kAffine, 6>();
    default: return fn.template operator()<Form::kAffine, 8>();
  }
}

__device__ inline float Activate(float x, Act act) {
  switch (act) {
    case Act::kNone: return x;
    case Act::kSilu: return x / (1.0f + expf(-x));
    case Act::kGeluTanh: return 0.5f * x * (1.0f + tanhf(0.7978845608028654f * (x + 0.044715f * x * x * x)));
    case Act::kGeluErf: return 0.5f * x * (1.0f + erff(x * 0.7071067811865476f));
    case Act::kRelu: return isnan(x) ? x : fmaxf(x, 0.0f);
    case Act::kQuickGelu: return x / (1.0f + expf(-1.702f * x));
  }
  return x;
}

// NaN if either is.
__device__ inline float MaxOrNan(float a, float b) { return isnan(a) || a > b ? a : b; }

__device__ inline float WarpSum(float x) {
#pragma unroll
  for (int step = 16; step > 0; step /= 2) x += __shfl_xor_sync(~0u, x, step);
  return x;
}
__device__ inline float WarpMax(float x) {
#pragma unroll
  for (int step = 16; step > 0; step /= 2) x = fmaxf(x, __shfl_xor_sync(~0u, x, step));
  return x;
}

// The sum over a block of kThreads threads, for all of them. Warps are added in order.
template <int kThreads>
__device__ inline float BlockSum(float x, float* shared) {
  x = WarpSum(x);
  __syncthreads();
  if (threadIdx.x % 32 == 0) shared[threadIdx.x / 32] = x;
  __syncthreads();
  float sum = 0.0f;
#pragma unroll
  for (int i = 0; i < kThreads / 32; ++i) sum += shared[i];
  return sum;
}
template <int kThreads>
__device__ inline float BlockMax(float x, float* shared) {
  x = WarpMax(x);
  __syncthreads();
  if (threadIdx.x % 32 == 0) shared[threadIdx.x / 32] = x;
  __syncthreads();
  float largest = shared[0];
#pragma unroll
  for (int i = 1; i < kThreads / 32; ++i) largest = fmaxf(largest, shared[i]);
  return largest;
}

// Launched programmatically (Launch below), a kernel may begin before the one before it has ended. It may read weights at
// once; everything that kernels write, only after this. The next one may begin as soon as there is room.
__device__ inline void WaitForPrevious() {
#if __CUDA_ARCH__ >= 900
  asm volatile("griddepcontrol.launch_dependents;" ::: "memory");
  asm volatile("griddepcontrol.wait;" ::: "memory");
#endif
}

// Whether the device starts a kernel before the end of the one before it: Hopper and newer.
inline bool StartsEarly() {
  static const bool early = [] {
    int device = 0;
    int major = 0;
    return cudaGetDevice(&device) == cudaSuccess &&
           cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, device) == cudaSuccess && major >= 9;
  }();
  return early;
}

struct LaunchShape {
  dim3 grid;
  dim3 block;
  size_t shared_bytes;
  cudaStream_t stream;
};

template <typename... Params, typename... Args>
inline void Launch(void (*kernel)(Params...), const LaunchShape& shape, const Args&... args) {
  cudaLaunchConfig_t config = {};
  config.gridDim = shape.grid;
  config.blockDim = shape.block;
  config.dynamicSmemBytes = shape.shared_bytes;
  config.stream = shape.stream;
  cudaLaunchAttribute attribute = {};
  attribute.id = cudaLaunchAttributeProgrammaticStreamSerialization;
  attribute.val.programmaticStreamSerializationAllowed = 1;
  config.attrs = &attribute;
  config.numAttrs = StartsEarly() ? 1 : 0;
  // An error stays for cudaGetLastError.
  (void)cudaLaunchKernelEx(&config, kernel, static_cast<Params>(args)...);
}

// The square sum of a row for all threads of a block: a thread takes every kThreads-th eight of columns, in order.
template <int kThreads>
__device__ inline float SumSquares(const float* row, int cols, float* shared) {
  float squares = 0.0f;
  const bool aligned = (reinterpret_cast<uintptr_t>(row) & 15) == 0;
  for (int first = static_cast<int>(threadIdx.x) * 8; first < cols; first += kThreads * 8) {
    float eight[8];
    if (aligned && first + 8 <= cols) {
      *reinterpret_cast<float4*>(eight) = *reinterpret_cast<const float4*>(row + first);
      *reinterpret_cast<float4*>(eight + 4) = *reinterpret_cast<const float4*>(row + first + 4);
    } else {
#pragma unroll
      for (int i = 0; i < 8; ++i) eight[i] = first + i < cols ? row[first + i] : 0.0f;
    }
#pragma unroll
    for (int i = 0; i < 8; ++i) squares = fmaf(eight[i], eight[i], squares);
  }
  return BlockSum<kThreads>(squares, shared);
}

inline int64_t CeilDiv(int64_t a, int64_t b) { return (a + b - 1) / b; }

}  // namespace pensieve::backend::cuda
