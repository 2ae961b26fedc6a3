// The few vector operations that kernels are written in, for the one instruction set of the including source file.
//
// Included only by kernels_<isa>.cc and the *-inl.h files, each of which is compiled once per instruction set with
// PENSIEVE_ISA naming it. Everything lives in namespace PENSIEVE_ISA, so no function compiled for a newer processor
// can be linked into code for an older one; for the same reason kernels use nothing inline from the standard library.
// Built with -ffp-contract=off: a product and a sum fuse only where Fma says so.
#pragma once

#include <stdint.h>
#include <string.h>

#if defined(__AVX2__)
#include <immintrin.h>
#endif

#ifndef PENSIEVE_ISA
#error "PENSIEVE_ISA must name the instruction set"
#endif

#define PENSIEVE_INLINE static inline __attribute__((always_inline))
#define PENSIEVE_MEMBER inline __attribute__((always_inline))
// Before a loop of constant length whose arrays must live in registers. GCC gives up on its own when bodies are long.
#if defined(__clang__)
#define PENSIEVE_UNROLL _Pragma("unroll")
#define PENSIEVE_UNROLL_BY_4 _Pragma("unroll 4")
#define PENSIEVE_NO_UNROLL _Pragma("nounroll")
#else
#define PENSIEVE_UNROLL _Pragma("GCC unroll 16")
#define PENSIEVE_UNROLL_BY_4 _Pragma("GCC unroll 4")
#define PENSIEVE_NO_UNROLL _Pragma("GCC unroll 1")
#endif
// Before a loop over runs of quads (kQuadRun), so that four quads are one round of it.
#if defined(PENSIEVE_NEON)
#define PENSIEVE_UNROLL_RUNS PENSIEVE_NO_UNROLL
#else
#define PENSIEVE_UNROLL_RUNS PENSIEVE_UNROLL_BY_4
#endif

#if defined(PENSIEVE_NEON)
#include "backend/cpu/simd_neon.h"
#endif

namespace pensieve::backend::cpu::PENSIEVE_ISA {

#if defined(__AVX512F__)

inline constexpr int kLanes = 16;
inline constexpr int kRegisters = 32;
using F32 = __m512;
using I32 = __m512i;
using Mask = __mmask16;

PENSIEVE_INLINE Mask FirstLanes(int n) { return static_cast<Mask>((1u << n) - 1u); }
PENSIEVE_INLINE F32 Load(const float* p) { return _mm512_loadu_ps(p); }
PENSIEVE_INLINE F32 LoadN(const float* p, int n) { return _mm512_maskz_loadu_ps(FirstLanes(n), p); }
PENSIEVE_INLINE void Store(float* p, F32 x) { _mm512_storeu_ps(p, x); }
PENSIEVE_INLINE void StoreN(float* p, F32 x, int n) { _mm512_mask_storeu_ps(p, FirstLanes(n), x); }
PENSIEVE_INLINE F32 Set(float x) { return _mm512_set1_ps(x); }
PENSIEVE_INLINE F32 Fma(F32 a, F32 b, F32 c) { return _mm512_fmadd_ps(a, b, c); }
// NaN when the second operand is.
PENSIEVE_INLINE F32 Max(F32 a, F32 b) { return _mm512_max_ps(a, b); }
PENSIEVE_INLINE F32 Min(F32 a, F32 b) { return _mm512_min_ps(a, b); }
PENSIEVE_INLINE F32 Abs(F32 a) { return _mm512_abs_ps(a); }
PENSIEVE_INLINE F32 Sqrt(F32 a) { return _mm512_sqrt_ps(a); }
PENSIEVE_INLINE I32 RoundToInt(F32 a) { return _mm512_cvtps_epi32(a); }
PENSIEVE_INLINE F32 ToFloat(I32 a) { return _mm512_cvtepi32_ps(a); }
PENSIEVE_INLINE I32 SetInt(int32_t a) { return _mm512_set1_epi32(a); }
PENSIEVE_INLINE I32 AddInt(I32 a, I32 b) { return _mm512_add_epi32(a, b); }
PENSIEVE_INLINE I32 SubInt(I32 a, I32 b) { return _mm512_sub_epi32(a, b); }
template <int kBits>
PENSIEVE_INLINE I32 ShiftLeft(I32 a) {
  return _mm512_slli_epi32(a, kBits);
}
PENSIEVE_INLINE F32 BitsToFloat(I32 a) { return _mm512_castsi512_ps(a); }
PENSIEVE_INLINE I32 LoadInt(const void* p) { return _mm512_loadu_si512(p); }
PENSIEVE_INLINE void StoreInt(void* p, I32 x) { _mm512_storeu_si512(p, x); }
PENSIEVE_INLINE I32 MaxInt(I32 a, I32 b) { return _mm512_max_epi32(a, b); }
PENSIEVE_INLINE I32 MinInt(I32 a, I32 b) { return _mm512_min_epi32(a, b); }
PENSIEVE_INLINE I32 Or(I32 a, I32 b) { return _mm512_or_si512(a, b); }
PENSIEVE_INLINE I32 FloatBits(F32 a) { return _mm512_castps_si512(a); }
// Lanes 0, 4, 8 ...
PENSIEVE_INLINE void StoreFourths(int32_t* p, I32 x) {
  const I32 order = _mm512_setr_epi32(0, 4, 8, 12, 0, 4, 8, 12, 0, 4, 8, 12, 0, 4, 8, 12);
  _mm_storeu_si128(reinterpret_cast<__m128i*>(p), _mm512_castsi512_si128(_mm512_permutexvar_epi32(order, x)));
}
PENSIEVE_INLINE int32_t SumInts(I32 x) { return _mm512_reduce_add_epi32(x); }
// a < b ? yes : no, lane by lane; false when either is NaN.
PENSIEVE_INLINE F32 IfLess(F32 a, F32 b, F32 yes, F32 no) {
  return _mm512_mask_blend_ps(_mm512_cmp_ps_mask(a, b, _CMP_LT_OQ), no, yes);
}
PENSIEVE_INLINE float Lane(F32 x, int i) {
  float lanes[kLanes];
  Store(lanes, x);
  return lanes[i];
}
PENSIEVE_INLINE F32 LoadF16(const void* p) {
  return _mm512_cvtph_ps(_mm256_loadu_si256(static_cast<const __m256i*>(p)));
}
PENSIEVE_INLINE void StoreF16(void* p, F32 x) {
  _mm256_storeu_si256(static_cast<__m256i*>(p), _mm512_cvtps_ph(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
}
PENSIEVE_INLINE F32 LoadBf16(const void* p) {
  const __m256i half = _mm256_loadu_si256(static_cast<const __m256i*>(p));
  return BitsToFloat(_mm512_slli_epi32(_mm512_cvtepu16_epi32(half), 16));
}
PENSIEVE_INLINE F32 LoadI8(const void* p) {
  return ToFloat(_mm512_cvtepi8_epi32(_mm_loadu_si128(static_cast<const __m128i*>(p))));
}
// Lanes, each in [-128, 127], as bytes.
PENSIEVE_INLINE void StoreI8(void* p, I32 x) { _mm_storeu_si128(static_cast<__m128i*>(p), _mm512_cvtepi32_epi8(x)); }
// acc[lane] += sum over 4 of u8[4 * lane + i] * s8[4 * lane + i], exactly.
template <bool kWide>
PENSIEVE_INLINE I32 Dot4(I32 acc, I32 u8, I32 s8) {
#if defined(__AVX512VNNI__)
  // By name: given the intrinsic, GCC 12 keeps 24 sums in memory instead of registers, at half the speed.
  asm("vpdpbusd %2, %1, %0" : "+v"(acc) : "v"(u8), "v"(s8));
  return acc;
#else
  const I32 low = _mm512_set1_epi32(0x00ff00ff);
  const I32 even = _mm512_madd_epi16(_mm512_and_si512(u8, low), _mm512_srai_epi16(_mm512_slli_epi16(s8, 8), 8));
  const I32 odd = _mm512_madd_epi16(_mm512_srli_epi16(u8, 8), _mm512_srai_epi16(s8, 8));
  return _mm512_add_epi32(acc, _mm512_add_epi32(even, odd));
#endif
}
// acc[lane] += a[2 * lane] * b[2 * lane] + a[2 * lane + 1] * b[2 * lane + 1], 16-bit integers, exactly.
PENSIEVE_INLINE I32 Dot2(I32 acc, I32 a, I32 b) {
#if defined(__AVX512VNNI__)
  asm("vpdpwssd %2, %1, %0" : "+v"(acc) : "v"(a), "v"(b));  // by name: see Dot4
  return acc;
#else
  return _mm512_add_epi32(acc, _mm512_madd_epi16(a, b));
#endif
}
// Lanes, each in [-32768, 32767], as 16-bit integers.
PENSIEVE_INLINE void StoreI16(void* p, I32 x) {
  _mm256_storeu_si256(static_cast<__m256i*>(p), _mm512_cvtepi32_epi16(x));
}
// The square of kLanes vectors of kLanes 32-bit lanes, transposed in place.
PENSIEVE_INLINE void Transpose(I32* r) {
  I32 t[16];
  PENSIEVE_UNROLL
  for (int i = 0; i < 16; i += 2) {
    t[i] = _mm512_unpacklo_epi32(r[i], r[i + 1]);
    t[i + 1] = _mm512_unpackhi_epi32(r[i], r[i + 1]);
  }
  PENSIEVE_UNROLL
  for (int i = 0; i < 16; i += 4) {
    r[i] = _mm512_unpacklo_epi64(t[i], t[i + 2]);
    r[i + 1] = _mm512_unpackhi_epi64(t[i], t[i + 2]);
    r[i + 2] = _mm512_unpacklo_epi64(t[i + 1], t[i + 3]);
    r[i + 3] = _mm512_unpackhi_epi64(t[i + 1], t[i + 3]);
  }
  PENSIEVE_UNROLL
  for (int i = 0; i < 4; ++i) {
    t[i] = _mm512_shuffle_i32x4(r[i], r[i + 4], 0x88);
    t[i + 4] = _mm512_shuffle_i32x4(r[i], r[i + 4], 0xdd);
    t[i + 8] = _mm512_shuffle_i32x4(r[i + 8], r[i + 12], 0x88);
    t[i + 12] = _mm512_shuffle_i32x4(r[i + 8], r[i + 12], 0xdd);
  }
  PENSIEVE_UNROLL
  for (int i = 0; i < 4; ++i) {
    r[i] = _mm512_shuffle_i32x4(t[i], t[i + 8], 0x88);
    r[i + 8] = _mm512_shuffle_i32x4(t[i], t[i + 8], 0xdd);
    r[i + 4] = _mm512_shuffle_i32x4(t[i + 4], t[i + 12], 0x88);
    r[i + 12] = _mm512_shuffle_i32x4(t[i + 4], t[i + 12], 0xdd);
  }
}
PENSIEVE_INLINE I32 And(I32 a, I32 b) { return _mm512_and_si512(a, b); }
template <int kBits>
PENSIEVE_INLINE I32 ShiftRight(I32 a) {
  return _mm512_srli_epi32(a, kBits);
}
// table[byte] for every byte of x, each below 16; table is 16 bytes.
PENSIEVE_INLINE I32 LookUpBytes(const uint8_t* table, I32 x) {
  const __m128i t = _mm_loadu_si128(reinterpret_cast<const __m128i*>(table));
  return _mm512_shuffle_epi8(_mm512_broadcast_i32x4(t), x);
}
// In every run of 8 bytes, element order 0 1 2 3 4 5 6 7 becomes 0 2 4 6 1 3 5 7 (see kQuadOrder).
PENSIEVE_INLINE I32 ToQuadOrder(I32 x) {
  const __m128i order = _mm_set_epi8(15, 13, 11, 9, 14, 12, 10, 8, 7, 5, 3, 1, 6, 4, 2, 0);
  return _mm512_shuffle_epi8(x, _mm512_broadcast_i32x4(order));
}
// Floats p[k ..] of a row in quad order, k a multiple of kLanes.
PENSIEVE_INLINE F32 LoadInQuadOrder(const float* p, int64_t k) {
  const I32 order = _mm512_setr_epi32(0, 2, 4, 6, 1, 3, 5, 7, 8, 10, 12, 14, 9, 11, 13, 15);
  return _mm512_permutexvar_ps(order, Load(p + k));
}
// Every lane becomes the largest of its four neighbours, lanes 4i .. 4i + 3.
PENSIEVE_INLINE I32 MaxOfFours(I32 a) {
  a = MaxInt(a, _mm512_shuffle_epi32(a, _MM_PERM_CDAB));
  return MaxInt(a, _mm512_shuffle_epi32(a, _MM_PERM_BADC));
}
// The first n 32-bit words at p, the others zero. Reads nothing beyond them.
PENSIEVE_INLINE I32 LoadWords(const void* p, int n) {
  return n >= kLanes ? LoadInt(p) : _mm512_maskz_loadu_epi32(FirstLanes(n), p);
}
// Words 0 2 | 0 2 of every 128-bit quad: two of a, two of b. Odds: words 1 3 | 1 3.
PENSIEVE_INLINE I32 Evens(I32 a, I32 b) {
  return _mm512_castps_si512(_mm512_shuffle_ps(_mm512_castsi512_ps(a), _mm512_castsi512_ps(b), 0x88));
}
PENSIEVE_INLINE I32 Odds(I32 a, I32 b) {
  return _mm512_castps_si512(_mm512_shuffle_ps(_mm512_castsi512_ps(a), _mm512_castsi512_ps(b), 0xdd));
}
// Words 0 1 | 0 1 of every quad, and 2 3 | 2 3.
PENSIEVE_INLINE I32 Lows(I32 a, I32 b) { return _mm512_unpacklo_epi64(a, b); }
PENSIEVE_INLINE I32 Highs(I32 a, I32 b) { return _mm512_unpackhi_epi64(a, b); }
// The square of kLanes / 4 vectors of kLanes / 4 quads, transposed in place.
PENSIEVE_INLINE void TransposeQuads(I32* r) {
  const I32 a = _mm512_shuffle_i32x4(r[0], r[1], 0x44);
  const I32 b = _mm512_shuffle_i32x4(r[0], r[1], 0xee);
  const I32 c = _mm512_shuffle_i32x4(r[2], r[3], 0x44);
  const I32 d = _mm512_shuffle_i32x4(r[2], r[3], 0xee);
  r[0] = _mm512_shuffle_i32x4(a, c, 0x88);
  r[1] = _mm512_shuffle_i32x4(a, c, 0xdd);
  r[2] = _mm512_shuffle_i32x4(b, d, 0x88);
  r[3] = _mm512_shuffle_i32x4(b, d, 0xdd);
}
// Quad q is the 16 bytes at rows[4 * q] + at.
PENSIEVE_INLINE I32 LoadQuadRows(const uint8_t* const* rows, int64_t at) {
  const auto quad = [&](int i) { return _mm_loadu_si128(reinterpret_cast<const __m128i*>(rows[i] + at)); };
  I32 x = _mm512_castsi128_si512(quad(0));
  x = _mm512_inserti32x4(x, quad(4), 1);
  x = _mm512_inserti32x4(x, quad(8), 2);
  return _mm512_inserti32x4(x, quad(12), 3);
}
// Quad q is the n <= 8 halves at rows[4 * q], zeros after them. Reads nothing beyond them.
PENSIEVE_INLINE I32 LoadHalfRows(const uint8_t* const* rows, int n) {
  const __mmask8 mask = static_cast<__mmask8>((1u << n) - 1u);
  I32 x = _mm512_castsi128_si512(_mm_maskz_loadu_epi16(mask, rows[0]));
  x = _mm512_inserti32x4(x, _mm_maskz_loadu_epi16(mask, rows[4]), 1);
  x = _mm512_inserti32x4(x, _mm_maskz_loadu_epi16(mask, rows[8]), 2);
  return _mm512_inserti32x4(x, _mm_maskz_loadu_epi16(mask, rows[12]), 3);
}
// The lower 16 bits of every lane, an f16 number; the upper ones are ignored.
PENSIEVE_INLINE F32 FromF16Lanes(I32 x) { return _mm512_cvtph_ps(_mm512_cvtepi32_epi16(x)); }

#elif defined(__AVX2__)

inline constexpr int kLanes = 8;
inline constexpr int kRegisters = 16;
using F32 = __m256;
using I32 = __m256i;

PENSIEVE_INLINE __m256i FirstLanes(int n) {
  return _mm256_cmpgt_epi32(_mm256_set1_epi32(n), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
}
PENSIEVE_INLINE F32 Load(const float* p) { return _mm256_loadu_ps(p); }
PENSIEVE_INLINE F32 LoadN(const float* p, int n) { return _mm256_maskload_ps(p, FirstLanes(n)); }
PENSIEVE_INLINE void Store(float* p, F32 x) { _mm256_storeu_ps(p, x); }
PENSIEVE_INLINE void StoreN(float* p, F32 x, int n) { _mm256_maskstore_ps(p, FirstLanes(n), x); }
PENSIEVE_INLINE F32 Set(float x) { return _mm256_set1_ps(x); }
PENSIEVE_INLINE F32 Fma(F32 a, F32 b, F32 c) { return _mm256_fmadd_ps(a, b, c); }
PENSIEVE_INLINE F32 Max(F32 a, F32 b) { return _mm256_max_ps(a, b); }
PENSIEVE_INLINE F32 Min(F32 a, F32 b) { return _mm256_min_ps(a, b); }
PENSIEVE_INLINE F32 Abs(F32 a) { return _mm256_andnot_ps(_mm256_set1_ps(-0.0f), a); }
PENSIEVE_INLINE F32 Sqrt(F32 a) { return _mm256_sqrt_ps(a); }
PENSIEVE_INLINE I32 RoundToInt(F32 a) { return _mm256_cvtps_epi32(a); }
PENSIEVE_INLINE F32 ToFloat(I32 a) { return _mm256_cvtepi32_ps(a); }
PENSIEVE_INLINE I32 SetInt(int32_t a) { return _mm256_set1_epi32(a); }
PENSIEVE_INLINE I32 AddInt(I32 a, I32 b) { return _mm256_add_epi32(a, b); }
PENSIEVE_INLINE I32 SubInt(I32 a, I32 b) { return _mm256_sub_epi32(a, b); }
template <int kBits>
PENSIEVE_INLINE I32 ShiftLeft(I32 a) {
  return _mm256_slli_epi32(a, kBits);
}
PENSIEVE_INLINE F32 BitsToFloat(I32 a) { return _mm256_castsi256_ps(a); }
PENSIEVE_INLINE I32 LoadInt(const void* p) { return _mm256_loadu_si256(static_cast<const __m256i*>(p)); }
PENSIEVE_INLINE void StoreInt(void* p, I32 x) { _mm256_storeu_si256(static_cast<__m256i*>(p), x); }
PENSIEVE_INLINE I32 MaxInt(I32 a, I32 b) { return _mm256_max_epi32(a, b); }
PENSIEVE_INLINE I32 MinInt(I32 a, I32 b) { return _mm256_min_epi32(a, b); }
PENSIEVE_INLINE I32 Or(I32 a, I32 b) { return _mm256_or_si256(a, b); }
PENSIEVE_INLINE I32 FloatBits(F32 a) { return _mm256_castps_si256(a); }
PENSIEVE_INLINE void StoreFourths(int32_t* p, I32 x) {
  p[0] = _mm256_cvtsi256_si32(x);
  p[1] = _mm256_extract_epi32(x, 4);
}
PENSIEVE_INLINE int32_t SumInts(I32 x) {
  const __m128i fours = _mm_add_epi32(_mm256_castsi256_si128(x), _mm256_extracti128_si256(x, 1));
  const __m128i twos = _mm_add_epi32(fours, _mm_shuffle_epi32(fours, 0x4e));
  return _mm_cvtsi128_si32(_mm_add_epi32(twos, _mm_shuffle_epi32(twos, 0xb1)));
}
PENSIEVE_INLINE F32 IfLess(F32 a, F32 b, F32 yes, F32 no) {
  return _mm256_blendv_ps(no, yes, _mm256_cmp_ps(a, b, _CMP_LT_OQ));
}
PENSIEVE_INLINE float Lane(F32 x, int i) {
  float lanes[kLanes];
  Store(lanes, x);
  return lanes[i];
}
PENSIEVE_INLINE F32 LoadF16(const void* p) { return _mm256_cvtph_ps(_mm_loadu_si128(static_cast<const __m128i*>(p))); }
PENSIEVE_INLINE void StoreF16(void* p, F32 x) {
  _mm_storeu_si128(static_cast<__m128i*>(p), _mm256_cvtps_ph(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
}
PENSIEVE_INLINE F32 LoadBf16(const void* p) {
  const __m128i half = _mm_loadu_si128(static_cast<const __m128i*>(p));
  return BitsToFloat(_mm256_slli_epi32(_mm256_cvtepu16_epi32(half), 16));
}
PENSIEVE_INLINE F32 LoadI8(const void* p) {
  return ToFloat(_mm256_cvtepi8_epi32(_mm_loadl_epi64(static_cast<const __m128i*>(p))));
}
PENSIEVE_INLINE void StoreI8(void* p, I32 x) {
  const __m128i words = _mm_packs_epi32(_mm256_castsi256_si128(x), _mm256_extracti128_si256(x, 1));
  _mm_storel_epi64(static_cast<__m128i*>(p), _mm_packs_epi16(words, words));
}
// kWide: u8 may exceed 127, so that vpmaddubsw could saturate.
template <bool kWide>
PENSIEVE_INLINE I32 Dot4(I32 acc, I32 u8, I32 s8) {
#if defined(__AVXVNNI__)
  return _mm256_dpbusd_avx_epi32(acc, u8, s8);
#else
  if constexpr (!kWide) {
    const I32 pairs = _mm256_maddubs_epi16(u8, s8);
    return _mm256_add_epi32(acc, _mm256_madd_epi16(pairs, _mm256_set1_epi16(1)));
  }
  // Codes less 128 (LowerCodes), signed: their magnitudes, at most 128, are the unsigned factor, and their signs go to
  // the other. Two products are at most 2 * 128 * 127 = 32,512.
  const I32 pairs = _mm256_maddubs_epi16(_mm256_abs_epi8(u8), _mm256_sign_epi8(s8, u8));
  return _mm256_add_epi32(acc, _mm256_madd_epi16(pairs, _mm256_set1_epi16(1)));
#endif
}
PENSIEVE_INLINE I32 Dot2(I32 acc, I32 a, I32 b) {
#if defined(__AVXVNNI__)
  return _mm256_dpwssd_avx_epi32(acc, a, b);
#else
  return _mm256_add_epi32(acc, _mm256_madd_epi16(a, b));
#endif
}
PENSIEVE_INLINE void StoreI16(void* p, I32 x) {
  const __m128i words = _mm_packs_epi32(_mm256_castsi256_si128(x), _mm256_extracti128_si256(x, 1));
  _mm_storeu_si128(static_cast<__m128i*>(p), words);
}
PENSIEVE_INLINE void Transpose(I32* r) {
  I32 t[8];
  PENSIEVE_UNROLL
  for (int i = 0; i < 8; i += 2) {
    t[i] = _mm256_unpacklo_epi32(r[i], r[i + 1]);
    t[i + 1] = _mm256_unpackhi_epi32(r[i], r[i + 1]);
  }
  PENSIEVE_UNROLL
  for (int i = 0; i < 8; i += 4) {
    r[i] = _mm256_unpacklo_epi64(t[i], t[i + 2]);
    r[i + 1] = _mm256_unpackhi_epi64(t[i], t[i + 2]);
    r[i + 2] = _mm256_unpacklo_epi64(t[i + 1], t[i + 3]);
    r[i + 3] = _mm256_unpackhi_epi64(t[i + 1], t[i + 3]);
  }
  PENSIEVE_UNROLL
  for (int i = 0; i < 4; ++i) {
    t[i] = _mm256_permute2x128_si256(r[i], r[i + 4], 0x20);
    t[i + 4] = _mm256_permute2x128_si256(r[i], r[i + 4], 0x31);
  }
  PENSIEVE_UNROLL
  for (int i = 0; i < 8; ++i) r[i] = t[i];
}
PENSIEVE_INLINE I32 And(I32 a, I32 b) { return _mm256_and_si256(a, b); }
template <int kBits>
PENSIEVE_INLINE I32 ShiftRight(I32 a) {
  return _mm256_srli_epi32(a, kBits);
}
PENSIEVE_INLINE I32 LookUpBytes(const uint8_t* table, I32 x) {
  const __m128i t = _mm_loadu_si128(reinterpret_cast<const __m128i*>(table));
  return _mm256_shuffle_epi8(_mm256_broadcastsi128_si256(t), x);
}
PENSIEVE_INLINE I32 ToQuadOrder(I32 x) {
  const __m128i order = _mm_set_epi8(15, 13, 11, 9, 14, 12, 10, 8, 7, 5, 3, 1, 6, 4, 2, 0);
  return _mm256_shuffle_epi8(x, _mm256_broadcastsi128_si256(order));
}
PENSIEVE_INLINE F32 LoadInQuadOrder(const float* p, int64_t k) {
  return _mm256_permutevar8x32_ps(Load(p + k), _mm256_setr_epi32(0, 2, 4, 6, 1, 3, 5, 7));
}
PENSIEVE_INLINE I32 MaxOfFours(I32 a) {
  a = MaxInt(a, _mm256_shuffle_epi32(a, 0xb1));
  return MaxInt(a, _mm256_shuffle_epi32(a, 0x4e));
}
PENSIEVE_INLINE I32 LoadWords(const void* p, int n) {
  return n >= kLanes ? LoadInt(p) : _mm256_maskload_epi32(static_cast<const int*>(p), FirstLanes(n));
}
PENSIEVE_INLINE I32 Evens(I32 a, I32 b) {
  return _mm256_castps_si256(_mm256_shuffle_ps(_mm256_castsi256_ps(a), _mm256_castsi256_ps(b), 0x88));
}
PENSIEVE_INLINE I32 Odds(I32 a, I32 b) {
  return _mm256_castps_si256(_mm256_shuffle_ps(_mm256_castsi256_ps(a), _mm256_castsi256_ps(b), 0xdd));
}
PENSIEVE_INLINE I32 Lows(I32 a, I32 b) { return _mm256_unpacklo_epi64(a, b); }
PENSIEVE_INLINE I32 Highs(I32 a, I32 b) { return _mm256_unpackhi_epi64(a, b); }
PENSIEVE_INLINE void TransposeQuads(I32* r) {
  const I32 first = _mm256_permute2x128_si256(r[0], r[1], 0x20);
  r[1] = _mm256_permute2x128_si256(r[0], r[1], 0x31);
  r[0] = first;
}
PENSIEVE_INLINE __m128i LoadHalves(const uint8_t* p, int n) {
  if (n == 8) return _mm_loadu_si128(reinterpret_cast<const __m128i*>(p));
  uint16_t halves[8] = {0};
  for (int i = 0; i < n; ++i) memcpy(halves + i, p + 2 * i, 2);
  return _mm_loadu_si128(reinterpret_cast<const __m128i*>(halves));
}
PENSIEVE_INLINE I32 LoadQuadRows(const uint8_t* const* rows, int64_t at) {
  return _mm256_set_m128i(LoadHalves(rows[4] + at, 8), LoadHalves(rows[0] + at, 8));
}
PENSIEVE_INLINE I32 LoadHalfRows(const uint8_t* const* rows, int n) {
  return _mm256_set_m128i(LoadHalves(rows[4], n), LoadHalves(rows[0], n));
}
PENSIEVE_INLINE F32 FromF16Lanes(I32 x) {
  x = _mm256_and_si256(x, _mm256_set1_epi32(0xffff));
  return _mm256_cvtph_ps(_mm_packus_epi32(_mm256_castsi256_si128(x), _mm256_extracti128_si256(x, 1)));
}

#elif !defined(PENSIEVE_NEON)  // Any processor: GCC's 16-byte vectors.

inline constexpr int kLanes = 4;
inline constexpr int kRegisters = 16;
typedef float F32 __attribute__((vector_size(16)));
typedef int32_t I32 __attribute__((vector_size(16)));

PENSIEVE_INLINE F32 Load(const float* p) {
  F32 x;
  memcpy(&x, p, sizeof(x));
  return x;
}
PENSIEVE_INLINE F32 LoadN(const float* p, int n) {
  F32 x = {0, 0, 0, 0};
  for (int i = 0; i < kLanes && i < n; ++i) x[i] = p[i];
  return x;
}
PENSIEVE_INLINE void Store(float* p, F32 x) { memcpy(p, &x, sizeof(x)); }
PENSIEVE_INLINE void StoreN(float* p, F32 x, int n) {
  for (int i = 0; i < kLanes && i < n; ++i) p[i] = x[i];
}
PENSIEVE_INLINE F32 Set(float x) { return F32{x, x, x, x}; }
// Two roundings: the portable floor has no fused form, and a library call would be slow.
PENSIEVE_INLINE F32 Fma(F32 a, F32 b, F32 c) { return a * b + c; }
PENSIEVE_INLINE F32 Max(F32 a, F32 b) { return a > b ? a : b; }
PENSIEVE_INLINE F32 Min(F32 a, F32 b) { return a < b ? a : b; }
PENSIEVE_INLINE F32 BitsToFloat(I32 a) {
  F32 x;
  memcpy(&x, &a, sizeof(x));
  return x;
}
PENSIEVE_INLINE I32 FloatBits(F32 a) {
  I32 x;
  memcpy(&x, &a, sizeof(x));
  return x;
}
PENSIEVE_INLINE F32 Abs(F32 a) { return BitsToFloat(FloatBits(a) & 0x7fffffff); }
PENSIEVE_INLINE F32 Sqrt(F32 a) {
  for (int i = 0; i < kLanes; ++i) a[i] = __builtin_sqrtf(a[i]);
  return a;
}
PENSIEVE_INLINE F32 ToFloat(I32 a) { return __builtin_convertvector(a, F32); }
PENSIEVE_INLINE I32 SetInt(int32_t a) { return I32{a, a, a, a}; }
// Integers wrap, as vector instructions do: what is not finite may become any integer.
typedef uint32_t U32 __attribute__((vector_size(16)));
PENSIEVE_INLINE I32 AddInt(I32 a, I32 b) { return (I32)((U32)a + (U32)b); }
PENSIEVE_INLINE I32 SubInt(I32 a, I32 b) { return (I32)((U32)a - (U32)b); }
// Ties to even: adding 1.5 * 2^23 leaves the integer in the low mantissa bits, for |a| < 2^22, which is all we need.
// NaN and larger values give some integer.
PENSIEVE_INLINE I32 RoundToInt(F32 a) {
  const F32 magic = Set(12582912.0f);
  return AddInt(FloatBits(a + magic), SetInt(-0x4b400000));
}
template <int kBits>
PENSIEVE_INLINE I32 ShiftLeft(I32 a) {
  return (I32)((U32)a << kBits);
}
PENSIEVE_INLINE I32 LoadInt(const void* p) {
  I32 x;
  memcpy(&x, p, sizeof(x));
  return x;
}
PENSIEVE_INLINE void StoreInt(void* p, I32 x) { memcpy(p, &x, sizeof(x)); }
PENSIEVE_INLINE I32 MaxInt(I32 a, I32 b) { return a > b ? a : b; }
PENSIEVE_INLINE I32 MinInt(I32 a, I32 b) { return a < b ? a : b; }
PENSIEVE_INLINE I32 Or(I32 a, I32 b) { return a | b; }
PENSIEVE_INLINE void StoreFourths(int32_t* p, I32 x) { p[0] = x[0]; }
// Wraps where values were not finite.
PENSIEVE_INLINE int32_t SumInts(I32 x) {
  uint32_t total = 0;
  for (int i = 0; i < kLanes; ++i) total += static_cast<uint32_t>(x[i]);
  return static_cast<int32_t>(total);
}
PENSIEVE_INLINE F32 IfLess(F32 a, F32 b, F32 yes, F32 no) { return a < b ? yes : no; }
PENSIEVE_INLINE float Lane(F32 x, int i) { return x[i]; }
PENSIEVE_INLINE float HalfToFloat(uint16_t bits) {
  const uint32_t sign = static_cast<uint32_t>(bits & 0x8000u) << 16;
  const uint32_t exponent = (bits >> 10) & 0x1fu;
  const uint32_t mantissa = bits & 0x3ffu;
  uint32_t result = sign | ((exponent + 112u) << 23) | (mantissa << 13);
  if (exponent == 0x1fu) result = sign | 0x7f800000u | (mantissa << 13);
  float value;
  memcpy(&value, &result, sizeof(value));
  if (exponent != 0) return value;
  const float magnitude = static_cast<float>(mantissa) * 0x1p-24f;
  return sign != 0 ? -magnitude : magnitude;
}
PENSIEVE_INLINE uint16_t FloatToHalf(float value) {
  uint32_t bits;
  memcpy(&bits, &value, sizeof(bits));
  const auto sign = static_cast<uint16_t>((bits >> 16) & 0x8000u);
  const uint32_t magnitude = bits & 0x7fffffffu;
  if (magnitude > 0x7f800000u) return static_cast<uint16_t>(sign | 0x7e00u);
  if (magnitude >= 0x477ff000u) return static_cast<uint16_t>(sign | 0x7c00u);
  if (magnitude < 0x38800000u) {
    float shifted;
    memcpy(&shifted, &magnitude, sizeof(shifted));
    shifted += 0.5f;  // the last place of the sum is 2^-24, f16's smallest step
    uint32_t rounded;
    memcpy(&rounded, &shifted, sizeof(rounded));
    return static_cast<uint16_t>(sign | (rounded - 0x3f000000u));
  }
  return static_cast<uint16_t>(sign | ((magnitude + 0xfffu + ((magnitude >> 13) & 1u) - 0x38000000u) >> 13));
}
PENSIEVE_INLINE F32 LoadF16(const void* p) {
  uint16_t half[kLanes];
  memcpy(half, p, sizeof(half));
  return F32{HalfToFloat(half[0]), HalfToFloat(half[1]), HalfToFloat(half[2]), HalfToFloat(half[3])};
}
PENSIEVE_INLINE void StoreF16(void* p, F32 x) {
  uint16_t half[kLanes];
  for (int i = 0; i < kLanes; ++i) half[i] = FloatToHalf(x[i]);
  memcpy(p, half, sizeof(half));
}
PENSIEVE_INLINE F32 LoadBf16(const void* p) {
  uint16_t half[kLanes];
  memcpy(half, p, sizeof(half));
  I32 bits;
  for (int i = 0; i < kLanes; ++i) bits[i] = static_cast<int32_t>(static_cast<uint32_t>(half[i]) << 16);
  return BitsToFloat(bits);
}
PENSIEVE_INLINE F32 LoadI8(const void* p) {
  int8_t bytes[kLanes];
  memcpy(bytes, p, sizeof(bytes));
  return ToFloat(I32{bytes[0], bytes[1], bytes[2], bytes[3]});
}
PENSIEVE_INLINE void StoreI8(void* p, I32 x) {
  int8_t bytes[kLanes];
  for (int i = 0; i < kLanes; ++i) bytes[i] = static_cast<int8_t>(x[i]);
  memcpy(p, bytes, sizeof(bytes));
}
template <bool kWide>
PENSIEVE_INLINE I32 Dot4(I32 acc, I32 u8, I32 s8) {
  // Byte i of every lane in turn: unsigned by a mask, signed by two shifts.
  const auto u = reinterpret_cast<const uint8_t*>(&u8);
  const auto s = reinterpret_cast<const int8_t*>(&s8);
  for (int lane = 0; lane < kLanes; ++lane) {
    for (int i = 0; i < 4; ++i) acc[lane] += static_cast<int32_t>(u[4 * lane + i]) * s[4 * lane + i];
  }
  return acc;
}
PENSIEVE_INLINE void Transpose(I32* r) {
  for (int i = 0; i < kLanes; ++i) {
    for (int j = 0; j < i; ++j) {
      const int32_t swap = r[i][j];
      r[i][j] = r[j][i];
      r[j][i] = swap;
    }
  }
}
PENSIEVE_INLINE I32 And(I32 a, I32 b) { return a & b; }
template <int kBits>
PENSIEVE_INLINE I32 ShiftRight(I32 a) {
  return (I32)((U32)a >> kBits);
}
PENSIEVE_INLINE I32 LookUpBytes(const uint8_t* table, I32 x) {
  uint8_t bytes[16];
  memcpy(bytes, &x, sizeof(bytes));
  for (uint8_t& byte : bytes) byte = table[byte & 15];
  return LoadInt(bytes);
}
PENSIEVE_INLINE I32 ToQuadOrder(I32 x) {
  uint8_t from[16];
  uint8_t to[16];
  memcpy(from, &x, sizeof(from));
  for (int i = 0; i < 16; ++i) to[i] = from[(i & 8) + (i & 3) * 2 + ((i >> 2) & 1)];
  return LoadInt(to);
}
PENSIEVE_INLINE F32 LoadInQuadOrder(const float* p, int64_t k) {
  const float* from = p + (k & ~int64_t{7}) + (k >> 2 & 1);
  return F32{from[0], from[2], from[4], from[6]};
}
PENSIEVE_INLINE I32 MaxOfFours(I32 a) {
  const int32_t b = a[0] > a[1] ? a[0] : a[1];
  const int32_t c = a[2] > a[3] ? a[2] : a[3];
  return SetInt(b > c ? b : c);
}
PENSIEVE_INLINE I32 LoadWords(const void* p, int n) {
  if (n >= kLanes) return LoadInt(p);
  I32 x = {0, 0, 0, 0};
  memcpy(&x, p, static_cast<size_t>(n) * 4);
  return x;
}
PENSIEVE_INLINE I32 Evens(I32 a, I32 b) { return I32{a[0], a[2], b[0], b[2]}; }
PENSIEVE_INLINE I32 Odds(I32 a, I32 b) { return I32{a[1], a[3], b[1], b[3]}; }
PENSIEVE_INLINE I32 Lows(I32 a, I32 b) { return I32{a[0], a[1], b[0], b[1]}; }
PENSIEVE_INLINE I32 Highs(I32 a, I32 b) { return I32{a[2], a[3], b[2], b[3]}; }
PENSIEVE_INLINE void TransposeQuads(I32*) {}
PENSIEVE_INLINE I32 LoadQuadRows(const uint8_t* const* rows, int64_t at) { return LoadInt(rows[0] + at); }
PENSIEVE_INLINE I32 LoadHalfRows(const uint8_t* const* rows, int n) {
  I32 x = {0, 0, 0, 0};
  memcpy(&x, rows[0], static_cast<size_t>(n) * 2);
  return x;
}
PENSIEVE_INLINE F32 FromF16Lanes(I32 x) {
  F32 y;
  for (int i = 0; i < kLanes; ++i) y[i] = HalfToFloat(static_cast<uint16_t>(x[i]));
  return y;
}

#endif

#if !defined(PENSIEVE_NEON)
// Whether Dot4<true> takes codes less 128, as LowerCodes<true> makes them: kWide is for codes that may exceed 127.
#if defined(__AVX2__) && !defined(__AVX512F__) && !defined(__AVXVNNI__)
inline constexpr bool kLowersWideCodes = true;
template <bool kWide>
PENSIEVE_INLINE I32 LowerCodes(I32 codes) {
  return kWide ? _mm256_xor_si256(codes, _mm256_set1_epi8(-128)) : codes;
}
#else
inline constexpr bool kLowersWideCodes = false;
template <bool kWide>
PENSIEVE_INLINE I32 LowerCodes(I32 codes) {
  return codes;
}
#endif

// kQuadRun quads, or kFloatRun floats, of a row, each multiplied with whole vectors: broadcast from memory as they
// are used. (Elsewhere they are read at once, and one is taken out of a register.) i: which of the run.
inline constexpr int kQuadRun = 1;
using QuadRun = const int8_t*;
PENSIEVE_INLINE QuadRun LoadQuadRun(const int8_t* p) { return p; }
template <bool kWide>
PENSIEVE_INLINE I32 DotQuad(I32 acc, I32 codes, QuadRun run, int i) {
  int32_t quad;
  memcpy(&quad, run + 4 * i, sizeof(quad));
  return Dot4<kWide>(acc, codes, SetInt(quad));
}
inline constexpr int kFloatRun = 1;
using FloatRun = const float*;
PENSIEVE_INLINE FloatRun LoadFloatRun(const float* p) { return p; }
PENSIEVE_INLINE F32 FmaRun(FloatRun run, int i, F32 b, F32 c) { return Fma(Set(run[i]), b, c); }

// The lower and upper halves of every byte.
PENSIEVE_INLINE I32 LowNibbles(I32 x) { return And(x, SetInt(0x0f0f0f0f)); }
PENSIEVE_INLINE I32 HighNibbles(I32 x) { return And(ShiftRight<4>(x), SetInt(0x0f0f0f0f)); }
// Neighbouring words added: those of a in the first half of every quad, those of b in the second.
PENSIEVE_INLINE I32 AddPairs(I32 a, I32 b) { return AddInt(Evens(a, b), Odds(a, b)); }
// Eight codes of kBits bits as eight bytes.
template <int kBits>
PENSIEVE_INLINE uint64_t SpreadBits(uint64_t stream) {
  constexpr uint64_t kCode = (uint64_t{1} << kBits) - 1;
#if defined(__BMI2__)
  return _pdep_u64(stream, kCode * 0x0101010101010101u);
#else
  uint64_t bytes = 0;
  for (int i = 0; i < 8; ++i) bytes |= ((stream >> (i * kBits)) & kCode) << (8 * i);
  return bytes;
#endif
}
#endif

PENSIEVE_INLINE F32 Zero() { return Set(0.0f); }

// Vectors of four rows a quad each become vectors of one word of all rows: r[a], quad q, of row 4 * q + a.
PENSIEVE_INLINE void TransposeInQuads(I32* r) {
  const I32 low01 = Lows(r[0], r[1]);
  const I32 low23 = Lows(r[2], r[3]);
  const I32 high01 = Highs(r[0], r[1]);
  const I32 high23 = Highs(r[2], r[3]);
  r[0] = Evens(low01, low23);
  r[1] = Odds(low01, low23);
  r[2] = Evens(high01, high23);
  r[3] = Odds(high01, high23);
}

// The pointer becomes unknown to the compiler: it keeps it in a register, instead of one address a row, most of them on
// the stack.
template <typename T>
PENSIEVE_INLINE void KeepInRegister(T*& p) {
  asm("" : "+r"(p));
}

#if !defined(PENSIEVE_NEON)
// The lanes combined pairwise, halves first: one fixed order.
template <typename Combine>
PENSIEVE_INLINE float ReduceLanes(F32 x, Combine combine) {
#if defined(__AVX512F__)
  const __m256 halves = combine(_mm512_castps512_ps256(x), _mm512_extractf32x8_ps(x, 1));
#elif defined(__AVX2__)
  const __m256 halves = x;
#endif
#if defined(__AVX2__)
  const __m128 fours = combine(_mm256_castps256_ps128(halves), _mm256_extractf128_ps(halves, 1));
  const __m128 twos = combine(fours, _mm_movehl_ps(fours, fours));
  return _mm_cvtss_f32(combine(twos, _mm_shuffle_ps(twos, twos, 1)));
#else
  float lanes[kLanes];
  Store(lanes, x);
  for (int half = kLanes / 2; half > 0; half /= 2) {
    for (int i = 0; i < half; ++i) lanes[i] = combine(lanes[i], lanes[i + half]);
  }
  return lanes[0];
#endif
}

#if defined(__AVX2__)
struct AddHalves {
  __m256 operator()(__m256 a, __m256 b) const { return _mm256_add_ps(a, b); }
  __m128 operator()(__m128 a, __m128 b) const { return _mm_add_ps(a, b); }
};
struct MaxHalves {
  __m256 operator()(__m256 a, __m256 b) const { return _mm256_max_ps(a, b); }
  __m128 operator()(__m128 a, __m128 b) const { return _mm_max_ps(a, b); }
};
#else
struct AddHalves {
  float operator()(float a, float b) const { return a + b; }
};
struct MaxHalves {
  float operator()(float a, float b) const { return a > b ? a : b; }
};
#endif
#endif

PENSIEVE_INLINE float SumLanes(F32 x) { return ReduceLanes(x, AddHalves()); }
PENSIEVE_INLINE float MaxLanes(F32 x) { return ReduceLanes(x, MaxHalves()); }

}  // namespace pensieve::backend::cpu::PENSIEVE_ISA
