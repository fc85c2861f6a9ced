// Vectors of 16 lanes. See core/vector.h for the contract.
#pragma once

#include "core/float16.h"
#include "core/tensor.h"
#include "core/x86_intrinsics.h"

namespace slipstream {
namespace {

struct Mask {
  __mmask16 value;
};

SLIPSTREAM_INLINE __mmask16 first_lanes(int64_t count) {
  return static_cast<__mmask16>(_bzhi_u32(0xffffu, static_cast<uint32_t>(count)));
}

SLIPSTREAM_INLINE __m512 widen_bf16(__m256i halves) {
  return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(halves), 16));
}

// Ties to even; a NaN keeps its upper bits and becomes quiet. The instruction takes subnormal numbers for 0.
SLIPSTREAM_INLINE __m256i narrow_bf16(__m512 value) {
#if defined(__AVX512BF16__)
  return reinterpret_cast<__m256i>(_mm512_cvtneps_pbh(value));
#else
  const __m512i bits = _mm512_castps_si512(value);
  const __m512i upper = _mm512_srli_epi32(bits, 16);
  const __m512i odd = _mm512_and_si512(upper, _mm512_set1_epi32(1));
  const __m512i rounded =
      _mm512_srli_epi32(_mm512_add_epi32(_mm512_add_epi32(bits, _mm512_set1_epi32(0x7fff)), odd), 16);
  const __mmask16 nan = _mm512_cmp_ps_mask(value, value, _CMP_UNORD_Q);
  return _mm512_cvtepi32_epi16(_mm512_mask_or_epi32(rounded, nan, upper, _mm512_set1_epi32(0x40)));
#endif
}

struct Vector {
  static constexpr int64_t lanes = 16;
  __m512 value;

  Vector() = default;
  SLIPSTREAM_INLINE Vector(__m512 native) : value(native) {}
  SLIPSTREAM_INLINE Vector(float scalar) : value(_mm512_set1_ps(scalar)) {}

  static SLIPSTREAM_INLINE Vector load(const float* p) { return _mm512_loadu_ps(p); }
  static SLIPSTREAM_INLINE Vector load(const bf16* p) {
    return widen_bf16(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)));
  }
  static SLIPSTREAM_INLINE Vector load(const f16* p) {
    return _mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)));
  }
  static SLIPSTREAM_INLINE Vector load(const int32_t* p) { return _mm512_cvtepi32_ps(_mm512_loadu_si512(p)); }
  static SLIPSTREAM_INLINE Vector load(const uint8_t* p) {
    return _mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p))));
  }

  static SLIPSTREAM_INLINE Vector load(const float* p, int64_t count) {
    return _mm512_maskz_loadu_ps(first_lanes(count), p);
  }
  static SLIPSTREAM_INLINE Vector load(const bf16* p, int64_t count) {
    return widen_bf16(_mm256_maskz_loadu_epi16(first_lanes(count), p));
  }
  static SLIPSTREAM_INLINE Vector load(const f16* p, int64_t count) {
    return _mm512_cvtph_ps(_mm256_maskz_loadu_epi16(first_lanes(count), p));
  }
  static SLIPSTREAM_INLINE Vector load(const int32_t* p, int64_t count) {
    return _mm512_cvtepi32_ps(_mm512_maskz_loadu_epi32(first_lanes(count), p));
  }
  static SLIPSTREAM_INLINE Vector load(const uint8_t* p, int64_t count) {
    return _mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(_mm_maskz_loadu_epi8(first_lanes(count), p)));
  }

  SLIPSTREAM_INLINE void store(float* p) const { _mm512_storeu_ps(p, value); }
  SLIPSTREAM_INLINE void store(bf16* p) const {
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), narrow_bf16(value));
  }
  SLIPSTREAM_INLINE void store(f16* p) const {
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), _mm512_cvtps_ph(value, _MM_FROUND_TO_NEAREST_INT));
  }
  SLIPSTREAM_INLINE void store(int32_t* p) const { _mm512_storeu_si512(p, _mm512_cvttps_epi32(value)); }
  SLIPSTREAM_INLINE void store(uint8_t* p) const {
    _mm_storeu_si128(reinterpret_cast<__m128i*>(p), _mm512_cvtepi32_epi8(_mm512_cvttps_epi32(value)));
  }

  SLIPSTREAM_INLINE void store(float* p, int64_t count) const {
    _mm512_mask_storeu_ps(p, first_lanes(count), value);
  }
  SLIPSTREAM_INLINE void store(bf16* p, int64_t count) const {
    _mm256_mask_storeu_epi16(p, first_lanes(count), narrow_bf16(value));
  }
  SLIPSTREAM_INLINE void store(f16* p, int64_t count) const {
    _mm256_mask_storeu_epi16(p, first_lanes(count), _mm512_cvtps_ph(value, _MM_FROUND_TO_NEAREST_INT));
  }
  SLIPSTREAM_INLINE void store(int32_t* p, int64_t count) const {
    _mm512_mask_storeu_epi32(p, first_lanes(count), _mm512_cvttps_epi32(value));
  }
  SLIPSTREAM_INLINE void store(uint8_t* p, int64_t count) const {
    _mm_mask_storeu_epi8(p, first_lanes(count), _mm512_cvtepi32_epi8(_mm512_cvttps_epi32(value)));
  }
};

SLIPSTREAM_INLINE Vector operator+(Vector a, Vector b) { return _mm512_add_ps(a.value, b.value); }
SLIPSTREAM_INLINE Vector operator-(Vector a, Vector b) { return _mm512_sub_ps(a.value, b.value); }
SLIPSTREAM_INLINE Vector operator*(Vector a, Vector b) { return _mm512_mul_ps(a.value, b.value); }
SLIPSTREAM_INLINE Vector operator/(Vector a, Vector b) { return _mm512_div_ps(a.value, b.value); }
SLIPSTREAM_INLINE Vector operator-(Vector a) { return _mm512_xor_ps(a.value, _mm512_set1_ps(-0.0f)); }

SLIPSTREAM_INLINE Vector fma(Vector a, Vector b, Vector c) {
  return _mm512_fmadd_ps(a.value, b.value, c.value);
}
SLIPSTREAM_INLINE Vector min(Vector a, Vector b) { return _mm512_min_ps(a.value, b.value); }
SLIPSTREAM_INLINE Vector max(Vector a, Vector b) { return _mm512_max_ps(a.value, b.value); }
SLIPSTREAM_INLINE Vector abs(Vector a) { return _mm512_andnot_ps(_mm512_set1_ps(-0.0f), a.value); }
SLIPSTREAM_INLINE Vector sqrt(Vector a) { return _mm512_sqrt_ps(a.value); }
SLIPSTREAM_INLINE Vector floor(Vector a) {
  return _mm512_roundscale_ps(a.value, _MM_FROUND_TO_NEG_INF | _MM_FROUND_NO_EXC);
}
SLIPSTREAM_INLINE Vector round_even(Vector a) {
  return _mm512_roundscale_ps(a.value, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
}
SLIPSTREAM_INLINE Vector copy_sign(Vector magnitude, Vector sign) {
  const __m512i bit = _mm512_set1_epi32(INT32_MIN);
  return _mm512_castsi512_ps(_mm512_ternarylogic_epi32(bit, _mm512_castps_si512(sign.value),
                                                       _mm512_castps_si512(magnitude.value), 0xca));
}

SLIPSTREAM_INLINE Mask less(Vector a, Vector b) { return {_mm512_cmp_ps_mask(a.value, b.value, _CMP_LT_OQ)}; }
SLIPSTREAM_INLINE Mask less_equal(Vector a, Vector b) {
  return {_mm512_cmp_ps_mask(a.value, b.value, _CMP_LE_OQ)};
}
SLIPSTREAM_INLINE Mask equal(Vector a, Vector b) {
  return {_mm512_cmp_ps_mask(a.value, b.value, _CMP_EQ_OQ)};
}
SLIPSTREAM_INLINE Mask is_nan(Vector a) { return {_mm512_cmp_ps_mask(a.value, a.value, _CMP_UNORD_Q)}; }
SLIPSTREAM_INLINE bool any(Mask mask) { return mask.value != 0; }
SLIPSTREAM_INLINE Vector select(Mask mask, Vector a, Vector b) {
  return _mm512_mask_blend_ps(mask.value, b.value, a.value);
}

// value * 2^exponent for integral exponents, exact but for overflow and subnormal results.
SLIPSTREAM_INLINE Vector scale(Vector value, Vector exponent) {
  return _mm512_scalef_ps(value.value, exponent.value);
}

// For positive finite a: a = mantissa * 2^exponent with the mantissa in [0.75, 1.5).
SLIPSTREAM_INLINE Vector split(Vector a, Vector* exponent) {
  const __m512 mantissa = _mm512_getmant_ps(a.value, _MM_MANT_NORM_p75_1p5, _MM_MANT_SIGN_src);
  *exponent = _mm512_sub_ps(_mm512_getexp_ps(a.value), _mm512_getexp_ps(mantissa));
  return mantissa;
}

SLIPSTREAM_INLINE float sum(Vector a) {
  const __m256 half = _mm256_add_ps(_mm512_castps512_ps256(a.value), _mm512_extractf32x8_ps(a.value, 1));
  __m128 quarter = _mm_add_ps(_mm256_castps256_ps128(half), _mm256_extractf128_ps(half, 1));
  quarter = _mm_add_ps(quarter, _mm_movehl_ps(quarter, quarter));
  return _mm_cvtss_f32(_mm_add_ss(quarter, _mm_shuffle_ps(quarter, quarter, 1)));
}
SLIPSTREAM_INLINE float maximum(Vector a) {
  const __m256 half = _mm256_max_ps(_mm512_castps512_ps256(a.value), _mm512_extractf32x8_ps(a.value, 1));
  __m128 quarter = _mm_max_ps(_mm256_castps256_ps128(half), _mm256_extractf128_ps(half, 1));
  quarter = _mm_max_ps(quarter, _mm_movehl_ps(quarter, quarter));
  return _mm_cvtss_f32(_mm_max_ss(quarter, _mm_shuffle_ps(quarter, quarter, 1)));
}

}  // namespace
}  // namespace slipstream
