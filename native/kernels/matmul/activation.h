// Activations on vectors, accurate to a few units in the last place of float32.
#pragma once

#include "kernels/matmul/gemm.h"
#include "kernels/matmul/simd.h"

namespace slipstream {
namespace {

#if defined(__AVX2__) || defined(SLIPSTREAM_NEON)

// e^x: x = n ln 2 + r with |r| <= ln 2 / 2, then the Taylor polynomial of degree 7 (error 5e-9) times 2^n.
// Overflows to infinity, underflows to zero, NaN stays NaN.
SLIPSTREAM_INLINE Vector exponential(Vector x) {
  const Vector clamped = minimum(splat(200.0f), maximum(splat(-200.0f), x));
  const Vector n = round_to_integer(multiply(clamped, splat(1.44269504088896341f)));
  Vector r = negative_multiply_add(n, splat(0.693359375f), clamped);
  r = negative_multiply_add(n, splat(-2.12194440054690583e-4f), r);
  Vector p = splat(1.0f / 5040);
  p = multiply_add(p, r, splat(1.0f / 720));
  p = multiply_add(p, r, splat(1.0f / 120));
  p = multiply_add(p, r, splat(1.0f / 24));
  p = multiply_add(p, r, splat(1.0f / 6));
  p = multiply_add(p, r, splat(0.5f));
  p = multiply_add(p, r, splat(1.0f));
  p = multiply_add(p, r, splat(1.0f));
  return scale_by_power(p, n);
}

// erfc(z) / 2 for z >= 0: t e^(P(t) - z^2) / 2 with t = 1 / (1 + z / 2), the form of W. J. Cody's rational
// approximations; P is a Chebyshev fit of degree 9 over z in [0, 10.5], error 5e-8.
SLIPSTREAM_INLINE Vector half_complementary_error(Vector z) {
  const Vector t = divide(splat(1.0f), multiply_add(z, splat(0.5f), splat(1.0f)));
  Vector p = splat(0.1487911492586136f);
  p = multiply_add(p, t, splat(-0.70184725522995f));
  p = multiply_add(p, t, splat(1.2061694860458374f));
  p = multiply_add(p, t, splat(-0.7619841694831848f));
  p = multiply_add(p, t, splat(-0.025994684547185898f));
  p = multiply_add(p, t, splat(-0.027512090280652046f));
  p = multiply_add(p, t, splat(0.04436234384775162f));
  p = multiply_add(p, t, splat(0.38460636138916016f));
  p = multiply_add(p, t, splat(0.9988684058189392f));
  p = multiply_add(p, t, splat(-1.2654595375061035f));
  // z^2 in two parts: its rounding error alone would cost six bits in the tail.
  const Vector square = multiply(z, z);
  const Vector error = negative_multiply_add(z, z, square);
  const Vector tail = multiply(exponential(subtract(splat(0.0f), square)), exponential(add(p, error)));
  return multiply(multiply(splat(0.5f), t), tail);
}

SLIPSTREAM_INLINE Vector sigmoid_weighted(Vector x, Vector u) {
  return divide(x, add(splat(1.0f), exponential(subtract(splat(0.0f), u))));
}

SLIPSTREAM_INLINE Vector gelu(Vector x) {
  const Vector z = minimum(splat(11.0f), multiply(absolute(x), splat(0.70710678118654752f)));
  const Vector tail = half_complementary_error(z);
  return multiply(x, where_negative(x, tail, subtract(splat(1.0f), tail)));
}

#else

SLIPSTREAM_INLINE Vector exponential(Vector x) { return {std::exp(x.value)}; }
SLIPSTREAM_INLINE Vector sigmoid_weighted(Vector x, Vector u) {
  return {x.value / (1.0f + std::exp(-u.value))};
}
SLIPSTREAM_INLINE Vector gelu(Vector x) {
  return {x.value * 0.5f * std::erfc(-x.value * 0.70710678118654752f)};
}

#endif

SLIPSTREAM_INLINE Vector activate(Activation activation, Vector x) {
  switch (activation) {
    case Activation::relu:
      return positive_part(x);
    case Activation::gelu:
      return gelu(x);
    case Activation::gelu_tanh: {
      // x (1 + tanh u) / 2 = x sigmoid(2u), u = sqrt(2 / pi) (x + 0.044715 x^3)
      const Vector cubic = multiply(multiply(x, x), multiply(x, splat(2 * 0.7978845608f * 0.044715f)));
      return sigmoid_weighted(x, add(multiply(x, splat(2 * 0.7978845608f)), cubic));
    }
    case Activation::silu:
      return sigmoid_weighted(x, x);
    default:
      return x;
  }
}

}  // namespace
}  // namespace slipstream
