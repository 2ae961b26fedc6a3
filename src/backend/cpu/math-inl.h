// exp, tanh, erf and the activations, shared by all kernels so that equal inputs give equal results everywhere.
// Polynomials are own least-squares fits at Chebyshev nodes; the errors named are largest relative ones in f32.
#pragma once

#include "backend/cpu/simd.h"

namespace pensieve::backend::cpu::PENSIEVE_ISA {

// e^x, 2 ulp. Below -87.3 the result is 0 and above 88.3 it stops growing (2.2e38); NaN stays NaN.
PENSIEVE_INLINE F32 Exp(F32 x) {
  const F32 clamped = Min(Set(88.3f), Max(Set(-87.3f), x));
  const I32 n = RoundToInt(clamped * Set(1.44269504f));
  const F32 whole = ToFloat(n);
  // ln 2 in two parts, the first with 12 trailing zero bits: n times it is exact.
  F32 r = Fma(whole, Set(-0.693359375f), clamped);
  r = Fma(whole, Set(2.12194440e-4f), r);
  F32 p = Set(0.00139345439f);
  p = Fma(p, r, Set(0.00836377647f));
  p = Fma(p, r, Set(0.0416664568f));
  p = Fma(p, r, Set(0.166665734f));
  p = Fma(p, r, Set(0.5f));
  p = Fma(p * r, r, r) + Set(1.0f);
  const F32 power = BitsToFloat(ShiftLeft<23>(AddInt(n, SetInt(127))));
  const F32 result = p * power;
  return IfLess(x, Set(-87.3f), Zero(), result);
}

// tanh x, 3 ulp.
PENSIEVE_INLINE F32 Tanh(F32 x) {
  const F32 square = x * x;
  F32 p = Set(0.00227270491f);
  p = Fma(p, square, Set(-0.00832640231f));
  p = Fma(p, square, Set(0.0217636337f));
  p = Fma(p, square, Set(-0.0539586242f));
  p = Fma(p, square, Set(0.13333301f));
  p = Fma(p, square, Set(-0.333333332f));
  const F32 small = Fma(p * square, x, x);
  const F32 magnitude = Abs(x);
  const F32 large = Set(1.0f) - Set(2.0f) / (Exp(magnitude + magnitude) + Set(1.0f));
  const F32 signed_large = IfLess(x, Zero(), Zero() - large, large);
  return IfLess(magnitude, Set(0.6f), small, signed_large);
}

// erf x; 3e-7 absolute.
PENSIEVE_INLINE F32 Erf(F32 x) {
  const F32 magnitude = Abs(x);
  const F32 square = x * x;
  F32 p = Set(7.88249712e-05f);
  p = Fma(p, square, Set(-0.0008018855f));
  p = Fma(p, square, Set(0.00518931194f));
  p = Fma(p, square, Set(-0.0268543288f));
  p = Fma(p, square, Set(0.112835975f));
  p = Fma(p, square, Set(-0.376126269f));
  p = Fma(p, square, Set(1.12837917f));
  // erfc x = e^(-x^2) / x * q(1 / x) from 1 on; beyond 10 the exponential is zero.
  const F32 t = Set(1.0f) / Max(Set(1.0f), magnitude);
  F32 q = Set(0.0813245932f);
  q = Fma(q, t, Set(-0.445165192f));
  q = Fma(q, t, Set(1.03903464f));
  q = Fma(q, t, Set(-1.30551681f));
  q = Fma(q, t, Set(0.849657735f));
  q = Fma(q, t, Set(-0.0827122556f));
  q = Fma(q, t, Set(-0.272667569f));
  q = Fma(q, t, Set(-0.000575373041f));
  q = Fma(q, t, Set(0.564203915f));
  const F32 large = Set(1.0f) - Exp(Zero() - square) * t * q;
  const F32 signed_large = IfLess(x, Zero(), Zero() - large, large);
  return IfLess(magnitude, Set(1.0f), p * x, signed_large);
}

PENSIEVE_INLINE F32 Activate(F32 x, Activation activation) {
  switch (activation) {
    case Activation::kNone: return x;
    case Activation::kSilu: return x / (Set(1.0f) + Exp(Zero() - x));
    case Activation::kGeluTanh: {
      const F32 inner = Set(0.797884561f) * Fma(Set(0.044715f) * x * x, x, x);
      return Set(0.5f) * x * (Set(1.0f) + Tanh(inner));
    }
    case Activation::kGeluErf: return Set(0.5f) * x * (Set(1.0f) + Erf(x * Set(0.707106781f)));
    case Activation::kRelu: return Max(Zero(), x);
    case Activation::kQuickGelu: return x / (Set(1.0f) + Exp(Set(-1.702f) * x));
  }
  return x;
}

}  // namespace pensieve::backend::cpu::PENSIEVE_ISA
