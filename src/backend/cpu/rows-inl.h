// Kernels on one row of f32: norms, rotary embedding, elementwise. Limited by memory or, in caches, by load ports.
// Sums: four accumulators of one vector each, taken in turn and added in a fixed order. No alignment is asked for;
// tails are masked. Input and output may be the same row, never partly overlapping ones.
#pragma once

#include "backend/cpu/math-inl.h"

namespace pensieve::backend::cpu::PENSIEVE_ISA {

// The sum of term(vector, lanes in use) over n floats; term must give zero in unused lanes.
template <typename Term>
PENSIEVE_INLINE float SumOver(const float* x, int64_t n, Term term) {
  F32 sums[4] = {Zero(), Zero(), Zero(), Zero()};
  int64_t i = 0;
  for (int turn = 0; i + kLanes <= n; i += kLanes, turn = (turn + 1) & 3) {
    sums[turn] = term(Load(x + i), kLanes, sums[turn]);
  }
  F32 total = (sums[0] + sums[1]) + (sums[2] + sums[3]);
  if (i < n) total = term(LoadN(x + i, static_cast<int>(n - i)), static_cast<int>(n - i), total);
  return SumLanes(total);
}

// out = map(x) where map(vector, index, lanes).
template <typename Map>
PENSIEVE_INLINE void MapRow(const float* x, int64_t n, float* out, Map map) {
  int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) Store(out + i, map(Load(x + i), i, kLanes));
  const int left = static_cast<int>(n - i);
  if (left > 0) StoreN(out + i, map(LoadN(x + i, left), i, left), left);
}

PENSIEVE_INLINE F32 LoadUpTo(const float* p, int n) { return n == kLanes ? Load(p) : LoadN(p, n); }

static void RmsNorm(const float* x, const float* weight, float eps, int64_t n, float* out) {
  const float squares = SumOver(x, n, [](F32 v, int, F32 sum) { return Fma(v, v, sum); });
  const F32 inverse = Set(1.0f / __builtin_sqrtf(squares / static_cast<float>(n) + eps));
  MapRow(x, n, out, [&](F32 v, int64_t i, int lanes) { return v * inverse * LoadUpTo(weight + i, lanes); });
}

static void LayerNorm(const float* x, const float* weight, const float* bias, float eps, int64_t n, float* out) {
  const auto count = static_cast<float>(n);
  const float mean = SumOver(x, n, [](F32 v, int, F32 sum) { return sum + v; }) / count;
  const F32 center = Set(mean);
  const float squares = SumOver(x, n, [&](F32 v, int lanes, F32 sum) {
    F32 d = v - center;
    if (lanes < kLanes) {
      float kept[kLanes];
      Store(kept, d);
      d = LoadN(kept, lanes);
    }
    return Fma(d, d, sum);
  });
  const F32 inverse = Set(1.0f / __builtin_sqrtf(squares / count + eps));
  MapRow(x, n, out, [&](F32 v, int64_t i, int lanes) {
    const F32 shift = bias == nullptr ? Zero() : LoadUpTo(bias + i, lanes);
    return Fma((v - center) * inverse, LoadUpTo(weight + i, lanes), shift);
  });
}

// (a, b) -> (a cos - b sin, b cos + a sin).
static void Rope(float* head, int64_t rotated, bool interleaved, const float* cosines, const float* sines) {
  const int64_t pairs = rotated / 2;
  if (interleaved) {
    for (int64_t i = 0; i < pairs; ++i) {
      const float a = head[2 * i];
      const float b = head[2 * i + 1];
      head[2 * i] = a * cosines[i] - b * sines[i];
      head[2 * i + 1] = b * cosines[i] + a * sines[i];
    }
    return;
  }
  for (int64_t i = 0; i < pairs; i += kLanes) {
    const int lanes = pairs - i < kLanes ? static_cast<int>(pairs - i) : kLanes;
    const F32 c = LoadUpTo(cosines + i, lanes);
    const F32 s = LoadUpTo(sines + i, lanes);
    const F32 a = LoadUpTo(head + i, lanes);
    const F32 b = LoadUpTo(head + pairs + i, lanes);
    const F32 first = a * c - b * s;
    const F32 second = b * c + a * s;
    if (lanes == kLanes) {
      Store(head + i, first);
      Store(head + pairs + i, second);
    } else {
      StoreN(head + i, first, lanes);
      StoreN(head + pairs + i, second, lanes);
    }
  }
}

static void AddRow(const float* x, int64_t n, float* out) {
  MapRow(x, n, out, [&](F32 v, int64_t i, int lanes) { return LoadUpTo(out + i, lanes) + v; });
}

static void ScaleRow(float* x, int64_t n, float factor) {
  MapRow(x, n, x, [&](F32 v, int64_t, int) { return v * Set(factor); });
}

static void SoftcapRow(float* x, int64_t n, float cap) {
  const F32 inverse = Set(1.0f / cap);
  MapRow(x, n, x, [&](F32 v, int64_t, int) { return Set(cap) * Tanh(v * inverse); });
}

static void MaxRow(const float* x, int64_t n, float* out) {
  MapRow(x, n, out, [&](F32 v, int64_t i, int lanes) { return Max(LoadUpTo(out + i, lanes), v); });
}

static void L2NormalizeRow(float* x, int64_t n) {
  const float norm = __builtin_sqrtf(SumOver(x, n, [](F32 v, int, F32 sum) { return Fma(v, v, sum); }));
  // Written so that a NaN norm stays one.
  const F32 inverse = Set(1.0f / (norm < 1e-12f ? 1e-12f : norm));
  MapRow(x, n, x, [&](F32 v, int64_t, int) { return v * inverse; });
}

}  // namespace pensieve::backend::cpu::PENSIEVE_ISA
