// Elementary functions over `Vector` (core/vector.h): relative errors of about 1e-7 (2e-7 where two functions
// are composed), right at infinities, NaN in gives NaN out. One lane calls the C library; wider vectors
// evaluate minimax polynomials after an exact range reduction, with coefficients fitted for the purpose
// (Remez exchange in 40 digits; each comment states the range and the polynomial's own error).
#pragma once

#include "core/vector.h"

namespace slipstream {
namespace {

#if defined(SLIPSTREAM_ONE_LANE)

SLIPSTREAM_INLINE Vector exp(Vector x) { return __builtin_expf(x.value); }
SLIPSTREAM_INLINE Vector log(Vector x) { return __builtin_logf(x.value); }
SLIPSTREAM_INLINE Vector tanh(Vector x) { return __builtin_tanhf(x.value); }
SLIPSTREAM_INLINE Vector erf(Vector x) { return __builtin_erff(x.value); }

// Sine and cosine of the unevaluated sum high + low.
SLIPSTREAM_INLINE void sine_cosine(Vector high, Vector low, Vector* sine, Vector* cosine) {
  const double angle = static_cast<double>(high.value) + static_cast<double>(low.value);
  *sine = static_cast<float>(__builtin_sin(angle));
  *cosine = static_cast<float>(__builtin_cos(angle));
}

// a * b as the sum of a float and what its rounding lost.
SLIPSTREAM_INLINE Vector exact_product(Vector a, Vector b, Vector* low) {
  const double product = static_cast<double>(a.value) * static_cast<double>(b.value);
  const float high = static_cast<float>(product);
  *low = static_cast<float>(product - high);
  return high;
}

#else

// e^x = 2^n e^r with |r| <= log(2) / 2. e^r = 1 + r + r^2 P(r), error 3.1e-9.
SLIPSTREAM_INLINE Vector exp(Vector x) {
  const Vector bounded = max(Vector(-104.0f), min(Vector(89.0f), x));
  const Vector n = round_even(bounded * Vector(1.44269504f));
  Vector r = fma(n, Vector(-0.693147182f), bounded);
  r = fma(n, Vector(1.90465421e-9f), r);
  Vector p = 0.001382124343f;
  p = fma(p, r, 0.00836883897f);
  p = fma(p, r, 0.04166831028f);
  p = fma(p, r, 0.1666651963f);
  p = fma(p, r, 0.4999999361f);
  return scale(fma(r * r, p, r) + Vector(1.0f), n);
}

// x = m 2^n with f = m - 1 in [-0.25, 0.5). log(1 + f) = f - f^2 / 2 + f^3 P(f), error 9e-10.
SLIPSTREAM_INLINE Vector log(Vector x) {
  Vector n;
  const Vector f = split(x, &n) - Vector(1.0f);
  Vector p = 0.03880690827f;
  p = fma(p, f, -0.0925257756f);
  p = fma(p, f, 0.1173588343f);
  p = fma(p, f, -0.127147862f);
  p = fma(p, f, 0.1427052826f);
  p = fma(p, f, -0.1665556537f);
  p = fma(p, f, 0.1999984446f);
  p = fma(p, f, -0.2500016598f);
  p = fma(p, f, 0.3333333708f);
  const Vector square = f * f;
  Vector low = fma(p, f, Vector(-0.5f)) * square;
  low = fma(n, Vector(-1.90465421e-9f), low);
  const Vector result = fma(n, Vector(0.693147182f), f + low);
  const float infinity = __builtin_inff();
  const Vector upper = select(less(x, Vector(infinity)), result, x);
  const Vector positive = select(equal(x, Vector(0.0f)), Vector(-infinity), upper);
  return select(less(x, Vector(0.0f)), Vector(__builtin_nanf("")), positive);
}

// |x| < 0.6: x + x^3 P(x^2), error 2.7e-9; above: 1 - 2 / (e^2|x| + 1).
SLIPSTREAM_INLINE Vector tanh(Vector x) {
  const Vector a = abs(x), square = a * a;
  Vector p = -0.00590586769f;
  p = fma(p, square, 0.02080538392f);
  p = fma(p, square, -0.05378668335f);
  p = fma(p, square, 0.1333195824f);
  p = fma(p, square, -0.3333329927f);
  const Vector small = fma(a * square, p, a);
  const Vector large = Vector(1.0f) - Vector(2.0f) / (exp(a + a) + Vector(1.0f));
  return copy_sign(select(less(a, Vector(0.6f)), small, large), x);
}

// |x| < 1: x P(x^2), error 1.2e-9; above: 1 - e^-G(|x|), G fitted to -log(erfc) on [1, 4], error 2.1e-11.
SLIPSTREAM_INLINE Vector erf(Vector x) {
  const Vector a = abs(x), square = a * a;
  Vector p = 7.889123246e-5f;
  p = fma(p, square, -0.0008020842332f);
  p = fma(p, square, 0.005189535449f);
  p = fma(p, square, -0.02685444464f);
  p = fma(p, square, 0.1128360018f);
  p = fma(p, square, -0.3761262714f);
  p = fma(p, square, 1.128379166f);
  const Vector t = min(Vector(4.0f), a);
  Vector g = 2.168674143e-5f;
  g = fma(g, t, -0.0004413350262f);
  g = fma(g, t, 0.00420455481f);
  g = fma(g, t, -0.02520823662f);
  g = fma(g, t, 0.1084185436f);
  g = fma(g, t, 0.6332199264f);
  g = fma(g, t, 1.129578406f);
  g = fma(g, t, -0.000188036167f);
  const Vector large = Vector(1.0f) - exp(-g);
  return copy_sign(select(less(a, Vector(1.0f)), a * p, large), x);
}

// Lane by lane through the C library: arguments beyond the reach of the reduction below.
SLIPSTREAM_INLINE void sine_cosine_of_large(Vector high, Vector low, Vector* sine, Vector* cosine) {
  float highs[Vector::lanes], lows[Vector::lanes], sines[Vector::lanes], cosines[Vector::lanes];
  high.store(highs);
  low.store(lows);
  for (int64_t lane = 0; lane < Vector::lanes; lane++) {
    const double angle = static_cast<double>(highs[lane]) + static_cast<double>(lows[lane]);
    sines[lane] = static_cast<float>(__builtin_sin(angle));
    cosines[lane] = static_cast<float>(__builtin_cos(angle));
  }
  *sine = Vector::load(sines);
  *cosine = Vector::load(cosines);
}

// Sine and cosine of the unevaluated sum high + low, |low| <= ulp(high). With r = high + low - n pi / 2 and
// pi / 2 in three floats (the first subtraction is exact under a fused multiply-add):
// sin r = r + r^3 P(r^2), error 5.4e-12; cos r = 1 - r^2 / 2 + r^4 Q(r^2), error 1.1e-13.
SLIPSTREAM_INLINE void sine_cosine(Vector high, Vector low, Vector* sine, Vector* cosine) {
  const Vector n = round_even(high * Vector(0.636619747f));
  Vector r = fma(n, Vector(-1.57079637f), high);
  r = r + low;
  r = fma(n, Vector(4.37113883e-8f), r);
  r = fma(n, Vector(1.71512451e-15f), r);
  const Vector square = r * r;
  Vector p = 2.717568206e-6f;
  p = fma(p, square, -0.0001983925703f);
  p = fma(p, square, 0.008333329145f);
  p = fma(p, square, -0.1666666664f);
  const Vector s = fma(r * square, p, r);
  Vector q = -2.720333931e-7f;
  q = fma(q, square, 2.479943684e-5f);
  q = fma(q, square, -0.001388888344f);
  q = fma(q, square, 0.04166666662f);
  const Vector c = fma(square * square, q, fma(square, Vector(-0.5f), Vector(1.0f)));
  // The quadrant, exact in floats: 0 (s, c), 1 (c, -s), 2 (-s, -c), 3 (-c, s).
  const Vector quadrant = n - floor(n * Vector(0.25f)) * Vector(4.0f);
  const Vector half = floor(quadrant * Vector(0.5f));
  const Mask even = equal(quadrant, half + half);
  const Vector swapped_sine = select(even, s, c), swapped_cosine = select(even, c, s);
  const Mask one_or_two = equal(abs(quadrant - Vector(1.5f)), Vector(0.5f));
  *sine = select(equal(half, Vector(0.0f)), swapped_sine, -swapped_sine);
  *cosine = select(one_or_two, -swapped_cosine, swapped_cosine);
  const Mask reduced = less(abs(high), Vector(4.0e6f));
  if (any(less_equal(select(reduced, Vector(1.0f), Vector(0.0f)), Vector(0.0f)))) {
    Vector far_sine, far_cosine;
    sine_cosine_of_large(high, low, &far_sine, &far_cosine);
    *sine = select(reduced, *sine, far_sine);
    *cosine = select(reduced, *cosine, far_cosine);
  }
}

SLIPSTREAM_INLINE Vector exact_product(Vector a, Vector b, Vector* low) {
  const Vector high = a * b;
  *low = fma(a, b, -high);
  return high;
}

#endif

// 1 / a for a in [1, 2^126]: the processor's estimate with a Newton step, error 1.3e-7 (AVX2) or 1e-7, at a
// fraction of a division's time.
SLIPSTREAM_INLINE Vector reciprocal(Vector a) {
#if defined(SLIPSTREAM_ONE_LANE)
  return Vector(1.0f) / a;
#elif defined(__AVX512F__)
  const Vector estimate = _mm512_rcp14_ps(a.value);
  return fma(estimate, fma(-a, estimate, Vector(1.0f)), estimate);
#elif defined(__AVX2__)
  const Vector estimate = _mm256_rcp_ps(a.value);
  return fma(estimate, fma(-a, estimate, Vector(1.0f)), estimate);
#else
  return Vector(1.0f) / a;
#endif
}

SLIPSTREAM_INLINE Vector sin(Vector x) {
  Vector sine, cosine;
  sine_cosine(x, Vector(0.0f), &sine, &cosine);
  return sine;
}

SLIPSTREAM_INLINE Vector cos(Vector x) {
  Vector sine, cosine;
  sine_cosine(x, Vector(0.0f), &sine, &cosine);
  return cosine;
}

// 1 / (1 + e^-x), with the small exponential on top for negative x so that nothing overflows.
SLIPSTREAM_INLINE Vector sigmoid(Vector x) {
  const Vector e = exp(-abs(x));
  return select(less(x, Vector(0.0f)), e, Vector(1.0f)) * reciprocal(Vector(1.0f) + e);
}

// x sigmoid(x); 0 at minus infinity (the bound keeps infinity times zero away).
SLIPSTREAM_INLINE Vector silu(Vector x) { return max(Vector(-200.0f), x) * sigmoid(x); }

// x Phi(x), Phi the standard normal distribution (Hendrycks and Gimpel, arXiv:1606.08415).
SLIPSTREAM_INLINE Vector gelu(Vector x) {
  const Vector bounded = max(Vector(-16.0f), x);
  return bounded * fma(erf(bounded * Vector(0.707106781f)), Vector(0.5f), Vector(0.5f));
}

// The tanh form of the same paper: x / 2 (1 + tanh u) = x sigmoid(2 u), u = sqrt(2 / pi) (x + 0.044715 x^3).
SLIPSTREAM_INLINE Vector gelu_tanh(Vector x) {
  const Vector bounded = max(Vector(-16.0f), x);
  const Vector cubic = fma(bounded * bounded, Vector(0.044715f), Vector(1.0f)) * bounded;
  return bounded * sigmoid(cubic * Vector(1.595769122f));
}

}  // namespace
}  // namespace slipstream
