// What attention needs of vectors beyond core/vector.h: a fast power of two, lanes kept by range, transposes.
#pragma once

#include "core/vector.h"

namespace slipstream {
namespace {

// 2^x = 2^floor(x) P(x - floor(x)), P minimax in relative error on [0, 1) with P(0) = 1 exactly: 3e-6 with
// degree 4 (for weights that become bf16), 8e-8 with degree 5. 2^-inf is 0; NaN stays NaN.
template <int degree>
SLIPSTREAM_INLINE Vector exp2(Vector x) {
#if defined(__AVX512F__)
  constexpr int kFloor = 0x09;
  const Vector fraction = _mm512_reduce_ps(x.value, kFloor);
#else
  // Below -126 the result is flushed to zero: the exponent field of 2^-127 is zero.
  x = min(Vector(128.0f), max(Vector(-127.0f), x));
  const Vector whole = floor(x);
  const Vector fraction = x - whole;
#endif
  Vector p;
  if constexpr (degree == 4) {
    p = Vector(0.013426685531f);
    p = fma(p, fraction, Vector(0.0522424722f));
    p = fma(p, fraction, Vector(0.2412802057f));
    p = fma(p, fraction, Vector(0.6930448448f));
  } else {
    p = Vector(0.00186713022f);
    p = fma(p, fraction, Vector(0.00901703002f));
    p = fma(p, fraction, Vector(0.05579991332f));
    p = fma(p, fraction, Vector(0.24016445010f));
    p = fma(p, fraction, Vector(0.69315131181f));
  }
  p = fma(p, fraction, Vector(1.0f));
#if defined(__AVX512F__)
  return _mm512_scalef_ps(p.value, x.value);  // takes the floor of its exponent itself
#elif defined(SLIPSTREAM_NEON)
  const int32x4_t exponent = vaddq_s32(vcvtnq_s32_f32(whole.value), vdupq_n_s32(127));
  return p * Vector(vreinterpretq_f32_s32(vshlq_n_s32(exponent, 23)));
#else
  const __m256i exponent = _mm256_add_epi32(_mm256_cvtps_epi32(whole.value), _mm256_set1_epi32(127));
  return p * Vector(_mm256_castsi256_ps(_mm256_slli_epi32(exponent, 23)));
#endif
}

// Lane i of `x` where low <= i < high, `fill` elsewhere.
SLIPSTREAM_INLINE Vector keep_lanes(Vector x, int64_t low, int64_t high, Vector fill) {
#if defined(__AVX512F__)
  const Vector indices = _mm512_setr_ps(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
#elif defined(SLIPSTREAM_NEON)
  const Vector indices = float32x4_t{0, 1, 2, 3};
#else
  const Vector indices = _mm256_setr_ps(0, 1, 2, 3, 4, 5, 6, 7);
#endif
  const Vector from = static_cast<float>(low), to = static_cast<float>(high);
  return select(less(indices, from), fill, select(less(indices, to), x, fill));
}

// rows[i] lane j becomes rows[j] lane i.
SLIPSTREAM_INLINE void transpose_lanes(Vector (&rows)[Vector::lanes]) {
#if defined(__AVX512F__)
  __m512 pairs[16], quads[16];
#pragma GCC unroll 8
  for (int i = 0; i < 16; i += 2) {
    pairs[i] = _mm512_unpacklo_ps(rows[i].value, rows[i + 1].value);
    pairs[i + 1] = _mm512_unpackhi_ps(rows[i].value, rows[i + 1].value);
  }
#pragma GCC unroll 4
  for (int i = 0; i < 16; i += 4) {
    const __m512d a = _mm512_castps_pd(pairs[i]), b = _mm512_castps_pd(pairs[i + 1]);
    const __m512d c = _mm512_castps_pd(pairs[i + 2]), d = _mm512_castps_pd(pairs[i + 3]);
    quads[i] = _mm512_castpd_ps(_mm512_unpacklo_pd(a, c));
    quads[i + 1] = _mm512_castpd_ps(_mm512_unpackhi_pd(a, c));
    quads[i + 2] = _mm512_castpd_ps(_mm512_unpacklo_pd(b, d));
    quads[i + 3] = _mm512_castpd_ps(_mm512_unpackhi_pd(b, d));
  }
#pragma GCC unroll 4
  for (int i = 0; i < 4; i++) {
    const __m512 a = _mm512_shuffle_f32x4(quads[i], quads[i + 4], 0x88);
    const __m512 b = _mm512_shuffle_f32x4(quads[i], quads[i + 4], 0xdd);
    const __m512 c = _mm512_shuffle_f32x4(quads[i + 8], quads[i + 12], 0x88);
    const __m512 d = _mm512_shuffle_f32x4(quads[i + 8], quads[i + 12], 0xdd);
    rows[i] = _mm512_shuffle_f32x4(a, c, 0x88);
    rows[i + 8] = _mm512_shuffle_f32x4(a, c, 0xdd);
    rows[i + 4] = _mm512_shuffle_f32x4(b, d, 0x88);
    rows[i + 12] = _mm512_shuffle_f32x4(b, d, 0xdd);
  }
#elif defined(SLIPSTREAM_NEON)
  const float32x4_t low = vtrn1q_f32(rows[0].value, rows[1].value);
  const float32x4_t low_odd = vtrn2q_f32(rows[0].value, rows[1].value);
  const float32x4_t high = vtrn1q_f32(rows[2].value, rows[3].value);
  const float32x4_t high_odd = vtrn2q_f32(rows[2].value, rows[3].value);
  rows[0] = vcombine_f32(vget_low_f32(low), vget_low_f32(high));
  rows[1] = vcombine_f32(vget_low_f32(low_odd), vget_low_f32(high_odd));
  rows[2] = vcombine_f32(vget_high_f32(low), vget_high_f32(high));
  rows[3] = vcombine_f32(vget_high_f32(low_odd), vget_high_f32(high_odd));
#else
  __m256 pairs[8], quads[8];
#pragma GCC unroll 4
  for (int i = 0; i < 8; i += 2) {
    pairs[i] = _mm256_unpacklo_ps(rows[i].value, rows[i + 1].value);
    pairs[i + 1] = _mm256_unpackhi_ps(rows[i].value, rows[i + 1].value);
  }
#pragma GCC unroll 2
  for (int i = 0; i < 8; i += 4) {
    quads[i] = _mm256_shuffle_ps(pairs[i], pairs[i + 2], 0x44);
    quads[i + 1] = _mm256_shuffle_ps(pairs[i], pairs[i + 2], 0xee);
    quads[i + 2] = _mm256_shuffle_ps(pairs[i + 1], pairs[i + 3], 0x44);
    quads[i + 3] = _mm256_shuffle_ps(pairs[i + 1], pairs[i + 3], 0xee);
  }
#pragma GCC unroll 4
  for (int i = 0; i < 4; i++) {
    rows[i] = _mm256_permute2f128_ps(quads[i], quads[i + 4], 0x20);
    rows[i + 4] = _mm256_permute2f128_ps(quads[i], quads[i + 4], 0x31);
  }
#endif
}

// Lane i of the result is the sum over the lanes of rows[i]: neighbours are added pair by pair, which takes
// half the shuffles of a transpose.
SLIPSTREAM_INLINE Vector sums_of_lanes(const Vector (&rows)[Vector::lanes]) {
#if defined(__AVX512F__)
  __m512 fours[4];
#pragma GCC unroll 4
  for (int i = 0; i < 4; i++) {
    const __m512 a = rows[4 * i].value, b = rows[4 * i + 1].value;
    const __m512 c = rows[4 * i + 2].value, d = rows[4 * i + 3].value;
    const __m512d ab = _mm512_castps_pd(_mm512_add_ps(_mm512_unpacklo_ps(a, b), _mm512_unpackhi_ps(a, b)));
    const __m512d cd = _mm512_castps_pd(_mm512_add_ps(_mm512_unpacklo_ps(c, d), _mm512_unpackhi_ps(c, d)));
    fours[i] = _mm512_add_ps(_mm512_castpd_ps(_mm512_unpacklo_pd(ab, cd)),
                             _mm512_castpd_ps(_mm512_unpackhi_pd(ab, cd)));
  }
  const auto join = [](__m512 a, __m512 b) {
    return _mm512_add_ps(_mm512_shuffle_f32x4(a, b, 0x88), _mm512_shuffle_f32x4(a, b, 0xdd));
  };
  return join(join(fours[0], fours[1]), join(fours[2], fours[3]));
#elif defined(SLIPSTREAM_NEON)
  return vpaddq_f32(vpaddq_f32(rows[0].value, rows[1].value), vpaddq_f32(rows[2].value, rows[3].value));
#else
  __m256 fours[2];
#pragma GCC unroll 2
  for (int i = 0; i < 2; i++) {
    fours[i] = _mm256_hadd_ps(_mm256_hadd_ps(rows[4 * i].value, rows[4 * i + 1].value),
                              _mm256_hadd_ps(rows[4 * i + 2].value, rows[4 * i + 3].value));
  }
  return _mm256_add_ps(_mm256_permute2f128_ps(fours[0], fours[1], 0x20),
                       _mm256_permute2f128_ps(fours[0], fours[1], 0x31));
#endif
}

// Lane i is values[i / times]; a whole vector is read. `times` is 1, 2 or 4.
template <int times>
SLIPSTREAM_INLINE Vector repeat_each(const float* values) {
  const Vector all = Vector::load(values);
  if constexpr (times == 1) return all;
#if defined(__AVX512F__)
  const __m512i lanes = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
  return _mm512_permutexvar_ps(_mm512_srli_epi32(lanes, times / 2), all.value);
#elif defined(SLIPSTREAM_NEON)
  return times == 2 ? vzip1q_f32(all.value, all.value) : vdupq_laneq_f32(all.value, 0);
#else
  const __m256i lanes = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
  return _mm256_permutevar8x32_ps(all.value, _mm256_srli_epi32(lanes, times / 2));
#endif
}

// Elements of a cache's row as float32; the second form takes the first `count`, and zeros behind them.
template <class T>
SLIPSTREAM_INLINE Vector widen(const T* row) {
  return Vector::load(row);
}
template <class T>
SLIPSTREAM_INLINE Vector widen(const T* row, int64_t count) {
  return Vector::load(row, count);
}
SLIPSTREAM_INLINE Vector widen(const int8_t* row) {
#if defined(__AVX512F__)
  const __m128i bytes = _mm_loadu_si128(reinterpret_cast<const __m128i*>(row));
  return _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(bytes));
#elif defined(SLIPSTREAM_NEON)
  int32_t bytes;
  __builtin_memcpy(&bytes, row, sizeof(bytes));
  const int8x8_t words = vreinterpret_s8_s32(vdup_n_s32(bytes));
  return vcvtq_f32_s32(vmovl_s16(vget_low_s16(vmovl_s8(words))));
#else
  const __m128i bytes = _mm_loadl_epi64(reinterpret_cast<const __m128i*>(row));
  return _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(bytes));
#endif
}
SLIPSTREAM_INLINE Vector widen(const int8_t* row, int64_t count) {
  int8_t copy[Vector::lanes] = {};
  for (int64_t i = 0; i < count; i++) copy[i] = row[i];
  return widen(copy);
}

}  // namespace
}  // namespace slipstream
