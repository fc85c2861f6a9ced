// One float32 vector type, `Vector`, as wide as the instruction set that this file is compiled for: 16 lanes
// (AVX-512), 8 lanes (AVX2 with FMA), 4 lanes (NEON), or 1 lane (everything else, and every file that defines
// SLIPSTREAM_SCALAR_VECTORS before including this: the scalar twins). Kernels are written once over `Vector`
// and included into one file an instruction set.
//
// `Vector` means a different type in each of those files, so all of it sits in an anonymous namespace: never
// name it in a header that more than kernels' own files include.
//
// load(p), load(p, count), store(p), store(p, count): `count` <= lanes elements; the missing lanes are zero
// and no memory behind them is touched. Element types: float, bf16, f16, int32_t, uint8_t. Stores round
// floats to nearest even; integers are truncated toward zero, and a u8 keeps the low 8 bits.
#pragma once

#include "core/float16.h"
#include "core/isa.h"
#include "core/neon_intrinsics.h"
#include "core/tensor.h"

#if !defined(SLIPSTREAM_SCALAR_VECTORS) && defined(__AVX512F__) && defined(__AVX512BW__) && \
    defined(__AVX512DQ__) && defined(__AVX512VL__)
#include "core/vector_avx512.h"
#elif !defined(SLIPSTREAM_SCALAR_VECTORS) && defined(__AVX2__) && defined(__FMA__) && defined(__F16C__)
#include "core/vector_avx2.h"
#elif defined(SLIPSTREAM_NEON)
#include "core/vector_neon.h"
#else
#define SLIPSTREAM_ONE_LANE 1
#include "core/vector_scalar.h"
#endif

namespace slipstream {
namespace {

// The instruction set under which kernels written over `Vector` register themselves.
#if defined(SLIPSTREAM_ONE_LANE)
constexpr Isa kVectorIsa = Isa::scalar;
#elif defined(SLIPSTREAM_NEON)
constexpr Isa kVectorIsa = Isa::neon;
#elif defined(__AVX512BF16__)
constexpr Isa kVectorIsa = Isa::avx512bf16;
#else
constexpr Isa kVectorIsa = Vector::lanes == 16 ? Isa::avx512 : Isa::avx2;
#endif

// How many lanes of a step take part: all, or the first ones of a row's last step.
struct AllLanes {};
struct FirstLanes {
  int64_t count;
};
template <class T>
SLIPSTREAM_INLINE Vector load(const T* p, AllLanes) {
  return Vector::load(p);
}
template <class T>
SLIPSTREAM_INLINE Vector load(const T* p, FirstLanes lanes) {
  return Vector::load(p, lanes.count);
}
template <class T>
SLIPSTREAM_INLINE void store(T* p, Vector value, AllLanes) {
  value.store(p);
}
template <class T>
SLIPSTREAM_INLINE void store(T* p, Vector value, FirstLanes lanes) {
  value.store(p, lanes.count);
}

// body(offset, lanes) for every vector of a row of `count` elements.
template <class Body>
SLIPSTREAM_INLINE void for_each_vector(int64_t count, const Body& body) {
  int64_t i = 0;
  for (; i + Vector::lanes <= count; i += Vector::lanes) body(i, AllLanes{});
  if (i < count) body(i, FirstLanes{count - i});
}

// The sum of term(offset, lanes) over a row, in four interleaved partial sums; lanes beyond the row are to
// give zero terms.
template <class Term>
SLIPSTREAM_INLINE float sum_of(int64_t count, const Term& term) {
  constexpr int64_t step = Vector::lanes;
  Vector a(0.0f), b(0.0f), c(0.0f), d(0.0f);
  int64_t i = 0;
  for (; i + 4 * step <= count; i += 4 * step) {
    a = a + term(i, AllLanes{});
    b = b + term(i + step, AllLanes{});
    c = c + term(i + 2 * step, AllLanes{});
    d = d + term(i + 3 * step, AllLanes{});
  }
  for (; i + step <= count; i += step) a = a + term(i, AllLanes{});
  if (i < count) b = b + term(i, FirstLanes{count - i});
  return sum((a + b) + (c + d));
}

// The largest element of a row; minus infinity for an empty one. NaNs are passed over: the bound comes
// second, and max gives its second argument where either is NaN.
SLIPSTREAM_INLINE float row_maximum(const float* row, int64_t count) {
  constexpr int64_t step = Vector::lanes;
  const float lowest = -__builtin_inff();
  Vector a(lowest), b(lowest);
  int64_t i = 0;
  for (; i + 2 * step <= count; i += 2 * step) {
    a = max(Vector::load(row + i), a);
    b = max(Vector::load(row + i + step), b);
  }
  float result = maximum(max(a, b));
  for (; i < count; i++) result = row[i] > result ? row[i] : result;
  return result;
}

// min(a, b) and max(a, b) give b where either is NaN (as x86's instructions do); these give NaN.
SLIPSTREAM_INLINE Vector minimum_or_nan(Vector a, Vector b) { return select(is_nan(a), a, min(a, b)); }
SLIPSTREAM_INLINE Vector maximum_or_nan(Vector a, Vector b) { return select(is_nan(a), a, max(a, b)); }

}  // namespace
}  // namespace slipstream
