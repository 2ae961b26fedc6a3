// Keys and values in the cache, as kernels read and write them, and how heads rotate.
#pragma once

#include "backend/cuda/device_code.cuh"

namespace pensieve::backend::cuda {

__device__ inline int64_t BlockOffset(const KvLayer& kv, int64_t block, int64_t head) {
  return (block * kv.kv_heads + head) * kv.block_len;
}

template <KvType kType>
__device__ inline void StoreHead(const float* x, const KvLayer& kv, int64_t block, int64_t head, int64_t token,
                                 bool is_key) {
  // One warp a head of a token. int8: symmetric, the largest magnitude / 127 is the scale.
  const int lane = threadIdx.x % 32;
  float scale = 1.0f;
  const int64_t base = BlockOffset(kv, block, head);
  if constexpr (kType == KvType::kInt8) {
    float largest = 0.0f;
    bool usable = true;
    for (int64_t d = lane; d < kv.head_dim; d += 32) {
      largest = fmaxf(largest, fabsf(x[d]));
      usable = usable && isfinite(x[d]);
    }
    scale = __all_sync(~0u, usable) ? WarpMax(largest) / 127.0f : __uint_as_float(0x7fc00000u);
    if (lane == 0) (is_key ? kv.key_scales : kv.value_scales)[base + token] = scale;
  }
  for (int64_t d = lane; d < kv.padded_dim; d += 32) {
    const float value = d < kv.head_dim ? x[d] : 0.0f;
    const int64_t at =
        base * kv.padded_dim + (is_key ? (d / 8 * kv.block_len + token) * 8 + d % 8 : token * kv.padded_dim + d);
    uint8_t* plane = is_key ? kv.keys : kv.values;
    if constexpr (kType == KvType::kF32) reinterpret_cast<float*>(plane)[at] = value;
    if constexpr (kType == KvType::kF16)
      reinterpret_cast<uint16_t*>(plane)[at] = __half_as_ushort(__float2half_rn(value));
    if constexpr (kType == KvType::kInt8) {
      reinterpret_cast<int8_t*>(plane)[at] = scale > 0.0f ? static_cast<int8_t>(rintf(value / scale)) : int8_t{0};
    }
  }
}

// The sine and cosine of pair i at a position: those of Rotate in rows.cu, bit for bit.
__device__ inline float2 SineAndCosine(float position, const DeviceRope& rope, int i) {
  float s, c;
  sincosf(__fmul_rn(position, rope.frequencies[i]), &s, &c);
  return make_float2(s * rope.magnitude, c * rope.magnitude);
}

__device__ inline void RotatePair(float* head, const DeviceRope& rope, int i, float2 sine_cosine) {
  const int pairs = static_cast<int>(rope.rotated / 2);
  float& a = head[rope.interleaved ? 2 * i : i];
  float& b = head[rope.interleaved ? 2 * i + 1 : i + pairs];
  const float u = a;
  const float v = b;
  a = u * sine_cosine.y - v * sine_cosine.x;
  b = v * sine_cosine.y + u * sine_cosine.x;
}

__device__ inline float Score(float dot, const AttentionArgs& args) {
  const float score = dot * args.scale;
  return args.softcap > 0.0f ? args.softcap * tanhf(score / args.softcap) : score;
}

// A piece's result for one head: largest, sum, then head_dim mixed values.
__device__ inline float* PieceAt(float* scratch, int64_t row, int64_t heads, int64_t head, int64_t pieces,
                                 int64_t piece, int64_t head_dim) {
  return scratch + ((row * heads + head) * pieces + piece) * (head_dim + 2);
}

}  // namespace pensieve::backend::cuda
