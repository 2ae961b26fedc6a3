// simd.h's operations for 64-bit Arm: NEON with dot products (FEAT_DotProd), and with those of mixed sign where the
// including file is compiled for them (FEAT_I8MM). Included by simd.h alone, which states each one's contract.
#pragma once

#include <arm_neon.h>

namespace pensieve::backend::cpu::PENSIEVE_ISA {

inline constexpr int kLanes = 4;
inline constexpr int kRegisters = 32;
using F32 = float32x4_t;
using I32 = int32x4_t;

PENSIEVE_INLINE F32 Load(const float* p) { return vld1q_f32(p); }
PENSIEVE_INLINE void Store(float* p, F32 x) { vst1q_f32(p, x); }
PENSIEVE_INLINE F32 Set(float x) { return vdupq_n_f32(x); }
PENSIEVE_INLINE F32 LoadN(const float* p, int n) {
  F32 x = Set(0.0f);
  if (n > 0) x = vld1q_lane_f32(p, x, 0);
  if (n > 1) x = vld1q_lane_f32(p + 1, x, 1);
  if (n > 2) x = vld1q_lane_f32(p + 2, x, 2);
  if (n > 3) x = vld1q_lane_f32(p + 3, x, 3);
  return x;
}
PENSIEVE_INLINE void StoreN(float* p, F32 x, int n) {
  if (n > 0) vst1q_lane_f32(p, x, 0);
  if (n > 1) vst1q_lane_f32(p + 1, x, 1);
  if (n > 2) vst1q_lane_f32(p + 2, x, 2);
  if (n > 3) vst1q_lane_f32(p + 3, x, 3);
}
PENSIEVE_INLINE F32 Fma(F32 a, F32 b, F32 c) { return vfmaq_f32(c, a, b); }
PENSIEVE_INLINE F32 Max(F32 a, F32 b) { return vmaxq_f32(a, b); }
PENSIEVE_INLINE F32 Min(F32 a, F32 b) { return vminq_f32(a, b); }
PENSIEVE_INLINE F32 Abs(F32 a) { return vabsq_f32(a); }
PENSIEVE_INLINE F32 Sqrt(F32 a) { return vsqrtq_f32(a); }
PENSIEVE_INLINE I32 RoundToInt(F32 a) { return vcvtnq_s32_f32(a); }
PENSIEVE_INLINE F32 ToFloat(I32 a) { return vcvtq_f32_s32(a); }
PENSIEVE_INLINE I32 SetInt(int32_t a) { return vdupq_n_s32(a); }
PENSIEVE_INLINE I32 AddInt(I32 a, I32 b) { return vaddq_s32(a, b); }
PENSIEVE_INLINE I32 SubInt(I32 a, I32 b) { return vsubq_s32(a, b); }
template <int kBits>
PENSIEVE_INLINE I32 ShiftLeft(I32 a) {
  return vshlq_n_s32(a, kBits);
}
template <int kBits>
PENSIEVE_INLINE I32 ShiftRight(I32 a) {
  return vreinterpretq_s32_u32(vshrq_n_u32(vreinterpretq_u32_s32(a), kBits));
}
PENSIEVE_INLINE F32 BitsToFloat(I32 a) { return vreinterpretq_f32_s32(a); }
PENSIEVE_INLINE I32 FloatBits(F32 a) { return vreinterpretq_s32_f32(a); }
// Through bytes: codes lie at any address.
PENSIEVE_INLINE I32 LoadInt(const void* p) { return vreinterpretq_s32_u8(vld1q_u8(static_cast<const uint8_t*>(p))); }
PENSIEVE_INLINE void StoreInt(void* p, I32 x) { vst1q_u8(static_cast<uint8_t*>(p), vreinterpretq_u8_s32(x)); }
PENSIEVE_INLINE I32 MaxInt(I32 a, I32 b) { return vmaxq_s32(a, b); }
PENSIEVE_INLINE I32 MinInt(I32 a, I32 b) { return vminq_s32(a, b); }
PENSIEVE_INLINE I32 Or(I32 a, I32 b) { return vorrq_s32(a, b); }
PENSIEVE_INLINE I32 And(I32 a, I32 b) { return vandq_s32(a, b); }
PENSIEVE_INLINE void StoreFourths(int32_t* p, I32 x) { *p = vgetq_lane_s32(x, 0); }
PENSIEVE_INLINE int32_t SumInts(I32 x) { return vaddvq_s32(x); }
PENSIEVE_INLINE F32 IfLess(F32 a, F32 b, F32 yes, F32 no) { return vbslq_f32(vcltq_f32(a, b), yes, no); }
PENSIEVE_INLINE float Lane(F32 x, int i) { return x[i]; }

PENSIEVE_INLINE F32 LoadF16(const void* p) {
  return vcvt_f32_f16(vreinterpret_f16_u8(vld1_u8(static_cast<const uint8_t*>(p))));
}
PENSIEVE_INLINE void StoreF16(void* p, F32 x) {
  vst1_u8(static_cast<uint8_t*>(p), vreinterpret_u8_f16(vcvt_f16_f32(x)));
}
PENSIEVE_INLINE F32 LoadBf16(const void* p) {
  const uint16x4_t half = vreinterpret_u16_u8(vld1_u8(static_cast<const uint8_t*>(p)));
  return vreinterpretq_f32_u32(vshll_n_u16(half, 16));
}
PENSIEVE_INLINE F32 FromF16Lanes(I32 x) {
  return vcvt_f32_f16(vreinterpret_f16_u16(vmovn_u32(vreinterpretq_u32_s32(x))));
}
PENSIEVE_INLINE F32 LoadI8(const void* p) {
  uint32_t bytes;
  memcpy(&bytes, p, sizeof(bytes));
  return ToFloat(vmovl_s16(vget_low_s16(vmovl_s8(vcreate_s8(bytes)))));
}
PENSIEVE_INLINE void StoreI8(void* p, I32 x) {
  const int16x4_t words = vmovn_s32(x);
  const uint32_t bytes = vget_lane_u32(vreinterpret_u32_s8(vmovn_s16(vcombine_s16(words, words))), 0);
  memcpy(p, &bytes, sizeof(bytes));
}

// --- integer dot products
#if defined(__ARM_FEATURE_MATMUL_INT8)
inline constexpr bool kLowersWideCodes = false;
template <bool kWide>
PENSIEVE_INLINE I32 Dot4(I32 acc, I32 u8, I32 s8) {
  return vusdotq_s32(acc, vreinterpretq_u8_s32(u8), vreinterpretq_s8_s32(s8));
}
#else
// Both operands are signed here, so codes beyond 127 are lowered.
inline constexpr bool kLowersWideCodes = true;
template <bool kWide>
PENSIEVE_INLINE I32 Dot4(I32 acc, I32 codes, I32 s8) {
  return vdotq_s32(acc, vreinterpretq_s8_s32(codes), vreinterpretq_s8_s32(s8));
}
#endif
template <bool kWide>
PENSIEVE_INLINE I32 LowerCodes(I32 codes) {
  if constexpr (!kWide || !kLowersWideCodes) return codes;
  return veorq_s32(codes, SetInt(static_cast<int32_t>(0x80808080u)));
}

// Four quads in a register, of which a dot product takes one by number: a quarter of the loads, and none that must
// repeat what it read, which costs a vector operation beside the load.
inline constexpr int kQuadRun = 4;
using QuadRun = int8x16_t;
PENSIEVE_INLINE QuadRun LoadQuadRun(const int8_t* p) { return vld1q_s8(p); }
template <bool kWide, int kQuad>
PENSIEVE_INLINE I32 DotLane(I32 acc, I32 codes, QuadRun run) {
#if defined(__ARM_FEATURE_MATMUL_INT8)
  return vusdotq_laneq_s32(acc, vreinterpretq_u8_s32(codes), run, kQuad);
#else
  return vdotq_laneq_s32(acc, vreinterpretq_s8_s32(codes), run, kQuad);
#endif
}
// i is known once the loop around is unrolled; a lane's number must be known before.
template <bool kWide>
PENSIEVE_INLINE I32 DotQuad(I32 acc, I32 codes, QuadRun run, int i) {
  switch (i) {
    case 0: return DotLane<kWide, 0>(acc, codes, run);
    case 1: return DotLane<kWide, 1>(acc, codes, run);
    case 2: return DotLane<kWide, 2>(acc, codes, run);
    default: return DotLane<kWide, 3>(acc, codes, run);
  }
}

// The same for floats.
inline constexpr int kFloatRun = 4;
using FloatRun = float32x4_t;
PENSIEVE_INLINE FloatRun LoadFloatRun(const float* p) { return vld1q_f32(p); }
PENSIEVE_INLINE F32 FmaRun(FloatRun run, int i, F32 b, F32 c) {
  switch (i) {
    case 0: return vfmaq_laneq_f32(c, b, run, 0);
    case 1: return vfmaq_laneq_f32(c, b, run, 1);
    case 2: return vfmaq_laneq_f32(c, b, run, 2);
    default: return vfmaq_laneq_f32(c, b, run, 3);
  }
}

// --- bytes and their order
PENSIEVE_INLINE I32 LowNibbles(I32 x) { return vandq_s32(x, SetInt(0x0f0f0f0f)); }
PENSIEVE_INLINE I32 HighNibbles(I32 x) { return vreinterpretq_s32_u8(vshrq_n_u8(vreinterpretq_u8_s32(x), 4)); }
// Code i lies in the bits from kBits * i on, thus in the bytes kBits * i / 8 and the next: both are brought to a 16-bit
// lane, shifted right and masked.
template <int kBits>
PENSIEVE_INLINE uint64_t SpreadBits(uint64_t stream) {
  uint8_t bytes[16];
  int16_t shifts[8];
  PENSIEVE_UNROLL
  for (int i = 0; i < 8; ++i) {
    bytes[2 * i] = static_cast<uint8_t>(kBits * i / 8);
    bytes[2 * i + 1] = static_cast<uint8_t>(kBits * i / 8 + 1);
    shifts[i] = static_cast<int16_t>(-(kBits * i % 8));
  }
  const uint8x16_t source = vcombine_u8(vcreate_u8(stream), vcreate_u8(0));
  const uint16x8_t pairs = vreinterpretq_u16_u8(vqtbl1q_u8(source, vld1q_u8(bytes)));
  const uint8x8_t codes = vmovn_u16(vshlq_u16(pairs, vld1q_s16(shifts)));
  return vget_lane_u64(vreinterpret_u64_u8(vand_u8(codes, vdup_n_u8((1u << kBits) - 1u))), 0);
}
PENSIEVE_INLINE I32 LookUpBytes(const uint8_t* table, I32 x) {
  return vreinterpretq_s32_u8(vqtbl1q_u8(vld1q_u8(table), vreinterpretq_u8_s32(x)));
}
PENSIEVE_INLINE I32 ToQuadOrder(I32 x) {
  const uint8x16_t order = {0, 2, 4, 6, 1, 3, 5, 7, 8, 10, 12, 14, 9, 11, 13, 15};
  return vreinterpretq_s32_u8(vqtbl1q_u8(vreinterpretq_u8_s32(x), order));
}
PENSIEVE_INLINE F32 LoadInQuadOrder(const float* p, int64_t k) {
  const F32 first = Load(p + (k & ~int64_t{7}));
  const F32 second = Load(p + (k & ~int64_t{7}) + 4);
  return (k & 4) == 0 ? vuzp1q_f32(first, second) : vuzp2q_f32(first, second);
}
PENSIEVE_INLINE I32 MaxOfFours(I32 a) { return SetInt(vmaxvq_s32(a)); }
PENSIEVE_INLINE I32 LoadWords(const void* p, int n) {
  if (n >= kLanes) return LoadInt(p);
  int32_t words[kLanes] = {0};
  for (int i = 0; i < n; ++i) memcpy(words + i, static_cast<const uint8_t*>(p) + 4 * i, 4);
  return LoadInt(words);
}
PENSIEVE_INLINE I32 Evens(I32 a, I32 b) { return vuzp1q_s32(a, b); }
PENSIEVE_INLINE I32 Odds(I32 a, I32 b) { return vuzp2q_s32(a, b); }
PENSIEVE_INLINE I32 Lows(I32 a, I32 b) {
  return vreinterpretq_s32_s64(vzip1q_s64(vreinterpretq_s64_s32(a), vreinterpretq_s64_s32(b)));
}
PENSIEVE_INLINE I32 Highs(I32 a, I32 b) {
  return vreinterpretq_s32_s64(vzip2q_s64(vreinterpretq_s64_s32(a), vreinterpretq_s64_s32(b)));
}
PENSIEVE_INLINE I32 AddPairs(I32 a, I32 b) { return vpaddq_s32(a, b); }
PENSIEVE_INLINE void Transpose(I32* r) {
  const I32 even01 = vtrn1q_s32(r[0], r[1]);
  const I32 odd01 = vtrn2q_s32(r[0], r[1]);
  const I32 even23 = vtrn1q_s32(r[2], r[3]);
  const I32 odd23 = vtrn2q_s32(r[2], r[3]);
  r[0] = Lows(even01, even23);
  r[1] = Lows(odd01, odd23);
  r[2] = Highs(even01, even23);
  r[3] = Highs(odd01, odd23);
}
PENSIEVE_INLINE void TransposeQuads(I32*) {}
PENSIEVE_INLINE I32 LoadQuadRows(const uint8_t* const* rows, int64_t at) { return LoadInt(rows[0] + at); }
PENSIEVE_INLINE I32 LoadHalfRows(const uint8_t* const* rows, int n) {
  if (n == 8) return LoadInt(rows[0]);
  uint16_t halves[8] = {0};
  for (int i = 0; i < n; ++i) memcpy(halves + i, rows[0] + 2 * i, 2);
  return LoadInt(halves);
}

struct AddHalves {
  PENSIEVE_MEMBER float32x2_t operator()(float32x2_t a, float32x2_t b) const { return vadd_f32(a, b); }
  PENSIEVE_MEMBER float operator()(float a, float b) const { return a + b; }
};
struct MaxHalves {
  PENSIEVE_MEMBER float32x2_t operator()(float32x2_t a, float32x2_t b) const { return vmax_f32(a, b); }
  PENSIEVE_MEMBER float operator()(float a, float b) const { return a > b ? a : b; }
};
template <typename Combine>
PENSIEVE_INLINE float ReduceLanes(F32 x, Combine combine) {
  const float32x2_t twos = combine(vget_low_f32(x), vget_high_f32(x));
  return combine(vget_lane_f32(twos, 0), vget_lane_f32(twos, 1));
}

}  // namespace pensieve::backend::cpu::PENSIEVE_ISA
