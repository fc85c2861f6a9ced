// bf16 products by vdpbf16ps: pairs of elements multiplied and added to float32.
#pragma once

#include "kernels/attention/engine.h"

namespace slipstream {
namespace {

struct Bf16Engine {
  using Element = bf16;
  using Packed = __m512bh;
  static constexpr int kPair = 2;
  static constexpr int64_t kRowMultiple = 4;
  static constexpr int64_t kColumnMultiple = 16;
  static constexpr int64_t kReductionMultiple = 2;
  static constexpr int64_t kPitchMultiple = 32;
  static constexpr int kExponentialDegree = 4;

  struct Session {};

  static SLIPSTREAM_INLINE Packed load(const bf16* p) { return (__m512bh)_mm512_loadu_si512(p); }
  static SLIPSTREAM_INLINE Packed broadcast(const bf16* p) {
    int32_t pair;
    __builtin_memcpy(&pair, p, 4);
    return (__m512bh)_mm512_set1_epi32(pair);
  }
  static SLIPSTREAM_INLINE Vector multiply_add(Packed a, Packed b, Vector c) {
    return _mm512_dpbf16_ps(c.value, a, b);
  }

  static SLIPSTREAM_INLINE void store_row(bf16* row, Vector value) {
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(row), (__m256i)_mm512_cvtneps_pbh(value.value));
  }
  static SLIPSTREAM_INLINE void store_group(bf16* group, const Vector (&values)[2]) {
    const __m512i halves = (__m512i)_mm512_cvtne2ps_pbh(values[1].value, values[0].value);
    const __m512i order = _mm512_set_epi16(31, 15, 30, 14, 29, 13, 28, 12, 27, 11, 26, 10, 25, 9, 24, 8, 23,
                                           7, 22, 6, 21, 5, 20, 4, 19, 3, 18, 2, 17, 1, 16, 0);
    _mm512_storeu_si512(group, _mm512_permutexvar_epi16(order, halves));
  }

  // 16 elements of two rows as they stand in a b operand.
  static SLIPSTREAM_INLINE void join(const bf16* even, const bf16* odd, bf16* group) {
    const __m512i low = _mm512_cvtepu16_epi32(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(even)));
    const __m512i high = _mm512_cvtepu16_epi32(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(odd)));
    _mm512_storeu_si512(group, _mm512_or_si512(low, _mm512_slli_epi32(high, 16)));
  }

  template <Keep keep>
  static void multiply(int64_t rows, int64_t columns, int64_t reduction, const bf16* a, int64_t a_pitch,
                       const bf16* b, int64_t b_pitch, float* c, int64_t c_pitch,
                       const float* factors = nullptr) {
    multiply_vectors<Bf16Engine, keep>(rows, columns, reduction, a, a_pitch, b, b_pitch, c, c_pitch, factors);
  }
};

}  // namespace
}  // namespace slipstream
