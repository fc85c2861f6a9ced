// One float32 vector type, `Vector`, as wide as the instruction set that this file is compiled for: 16 lanes
// (AVX-512), 8 lanes (AVX2 with FMA), or 1 lane (everything else, and every file that defines
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
#include "core/tensor.h"

#if !defined(SLIPSTREAM_SCALAR_VECTORS) && defined(__AVX512F__) && defined(__AVX512BW__) && \
    defined(__AVX512DQ__) && defined(__AVX512VL__)
#define SLIPSTREAM_AVX512_VECTORS 1
#include "core/vector_avx512.h"
#elif !defined(SLIPSTREAM_SCALAR_VECTORS) && defined(__AVX2__) && defined(__FMA__) && defined(__F16C__)
#define SLIPSTREAM_AVX2_VECTORS 1
#include "core/vector_avx2.h"
#else
#define SLIPSTREAM_ONE_LANE 1
#include "core/vector_scalar.h"
#endif

namespace slipstream {
namespace {

// min(a, b) and max(a, b) give b where either is NaN (as x86's instructions do); these give NaN.
SLIPSTREAM_INLINE Vector minimum_or_nan(Vector a, Vector b) { return select(is_nan(a), a, min(a, b)); }
SLIPSTREAM_INLINE Vector maximum_or_nan(Vector a, Vector b) { return select(is_nan(a), a, max(a, b)); }

}  // namespace
}  // namespace slipstream
