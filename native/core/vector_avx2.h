// Vectors of 8 lanes. See core/vector.h for the contract.
#pragma once

#include "core/float16.h"
#include "core/tensor.h"
#include "core/x86_intrinsics.h"

namespace slipstream {
namespace {

struct Mask {
  __m256 value;
};

SLIPSTREAM_INLINE __m256i first_lanes(int64_t count) {
  return _mm256_cmpgt_epi32(_mm256_set1_epi32(static_cast<int>(count)),
                            _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
}

SLIPSTREAM_INLINE __m256 widen_bf16(__m128i halves) {
  return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(halves), 16));
}

// Ties to even; a NaN keeps its upper bits and becomes quiet.
SLIPSTREAM_INLINE __m128i narrow_bf16(__m256 value) {
  const __m256i bits = _mm256_castps_si256(value);
  const __m256i upper = _mm256_srli_epi32(bits, 16);
  const __m256i odd = _mm256_and_si256(upper, _mm256_set1_epi32(1));
  const __m256i rounded =
      _mm256_srli_epi32(_mm256_add_epi32(_mm256_add_epi32(bits, _mm256_set1_epi32(0x7fff)), odd), 16);
  const __m256i quiet = _mm256_or_si256(upper, _mm256_set1_epi32(0x40));
  const __m256i nan = _mm256_castps_si256(_mm256_cmp_ps(value, value, _CMP_UNORD_Q));
  const __m256i words = _mm256_blendv_epi8(rounded, quiet, nan);
  return _mm_packus_epi32(_mm256_castsi256_si128(words), _mm256_extracti128_si256(words, 1));
}

struct Vector {
  static constexpr int64_t lanes = 8;
  __m256 value;

  Vector() = default;
  SLIPSTREAM_INLINE Vector(__m256 native) : value(native) {}
  SLIPSTREAM_INLINE Vector(float scalar) : value(_mm256_set1_ps(scalar)) {}

  static SLIPSTREAM_INLINE Vector load(const float* p) { return _mm256_loadu_ps(p); }
  static SLIPSTREAM_INLINE Vector load(const bf16* p) {
    return widen_bf16(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
  }
  static SLIPSTREAM_INLINE Vector load(const f16* p) {
    return _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
  }
  static SLIPSTREAM_INLINE Vector load(const int32_t* p) {
    return _mm256_cvtepi32_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)));
  }
  static SLIPSTREAM_INLINE Vector load(const uint8_t* p) {
    return _mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(p))));
  }

  static SLIPSTREAM_INLINE Vector load(const float* p, int64_t count) {
    return _mm256_maskload_ps(p, first_lanes(count));
  }
  static SLIPSTREAM_INLINE Vector load(const int32_t* p, int64_t count) {
    return _mm256_cvtepi32_ps(_mm256_maskload_epi32(p, first_lanes(count)));
  }
  template <class T>
  static SLIPSTREAM_INLINE Vector load(const T* p, int64_t count) {
    T copy[lanes] = {};
    for (int64_t i = 0; i < count; i++) copy[i] = p[i];
    return load(copy);
  }

  SLIPSTREAM_INLINE void store(float* p) const { _mm256_storeu_ps(p, value); }
  SLIPSTREAM_INLINE void store(bf16* p) const {
    _mm_storeu_si128(reinterpret_cast<__m128i*>(p), narrow_bf16(value));
  }
  SLIPSTREAM_INLINE void store(f16* p) const {
    _mm_storeu_si128(reinterpret_cast<__m128i*>(p), _mm256_cvtps_ph(value, _MM_FROUND_TO_NEAREST_INT));
  }
  SLIPSTREAM_INLINE void store(int32_t* p) const {
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), _mm256_cvttps_epi32(value));
  }
  SLIPSTREAM_INLINE void store(uint8_t* p) const {
    int32_t words[lanes];
    store(words);
    for (int64_t i = 0; i < lanes; i++) p[i] = static_cast<uint8_t>(words[i]);
  }

  SLIPSTREAM_INLINE void store(float* p, int64_t count) const {
    _mm256_maskstore_ps(p, first_lanes(count), value);
  }
  SLIPSTREAM_INLINE void store(int32_t* p, int64_t count) const {
    _mm256_maskstore_epi32(p, first_lanes(count), _mm256_cvttps_epi32(value));
  }
  template <class T>
  SLIPSTREAM_INLINE void store(T* p, int64_t count) const {
    T copy[lanes];
    store(copy);
    for (int64_t i = 0; i < count; i++) p[i] = copy[i];
  }
};

SLIPSTREAM_INLINE Vector operator+(Vector a, Vector b) { return _mm256_add_ps(a.value, b.value); }
SLIPSTREAM_INLINE Vector operator-(Vector a, Vector b) { return _mm256_sub_ps(a.value, b.value); }
SLIPSTREAM_INLINE Vector operator*(Vector a, Vector b) { return _mm256_mul_ps(a.value, b.value); }
SLIPSTREAM_INLINE Vector operator/(Vector a, Vector b) { return _mm256_div_ps(a.value, b.value); }
SLIPSTREAM_INLINE Vector operator-(Vector a) { return _mm256_xor_ps(a.value, _mm256_set1_ps(-0.0f)); }

SLIPSTREAM_INLINE Vector fma(Vector a, Vector b, Vector c) {
  return _mm256_fmadd_ps(a.value, b.value, c.value);
}
SLIPSTREAM_INLINE Vector min(Vector a, Vector b) { return _mm256_min_ps(a.value, b.value); }
SLIPSTREAM_INLINE Vector max(Vector a, Vector b) { return _mm256_max_ps(a.value, b.value); }
SLIPSTREAM_INLINE Vector abs(Vector a) { return _mm256_andnot_ps(_mm256_set1_ps(-0.0f), a.value); }
SLIPSTREAM_INLINE Vector sqrt(Vector a) { return _mm256_sqrt_ps(a.value); }
SLIPSTREAM_INLINE Vector floor(Vector a) { return _mm256_floor_ps(a.value); }
SLIPSTREAM_INLINE Vector round_even(Vector a) {
  return _mm256_round_ps(a.value, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
}
SLIPSTREAM_INLINE Vector copy_sign(Vector magnitude, Vector sign) {
  const __m256 bit = _mm256_set1_ps(-0.0f);
  return _mm256_or_ps(_mm256_andnot_ps(bit, magnitude.value), _mm256_and_ps(bit, sign.value));
}

SLIPSTREAM_INLINE Mask less(Vector a, Vector b) { return {_mm256_cmp_ps(a.value, b.value, _CMP_LT_OQ)}; }
SLIPSTREAM_INLINE Mask less_equal(Vector a, Vector b) {
  return {_mm256_cmp_ps(a.value, b.value, _CMP_LE_OQ)};
}
SLIPSTREAM_INLINE Mask equal(Vector a, Vector b) { return {_mm256_cmp_ps(a.value, b.value, _CMP_EQ_OQ)}; }
SLIPSTREAM_INLINE Mask is_nan(Vector a) { return {_mm256_cmp_ps(a.value, a.value, _CMP_UNORD_Q)}; }
SLIPSTREAM_INLINE bool any(Mask mask) { return _mm256_movemask_ps(mask.value) != 0; }
SLIPSTREAM_INLINE Vector select(Mask mask, Vector a, Vector b) {
  return _mm256_blendv_ps(b.value, a.value, mask.value);
}

// value * 2^exponent for integral exponents in [-252, 254], exact but for overflow and subnormal results:
// in two steps, because 2^exponent itself may not be a float.
SLIPSTREAM_INLINE Vector scale(Vector value, Vector exponent) {
  const __m256i whole = _mm256_cvtps_epi32(exponent.value);
  const __m256i half = _mm256_srai_epi32(whole, 1);
  const __m256i bias = _mm256_set1_epi32(127);
  const __m256i first = _mm256_slli_epi32(_mm256_add_epi32(half, bias), 23);
  const __m256i second = _mm256_slli_epi32(_mm256_add_epi32(_mm256_sub_epi32(whole, half), bias), 23);
  return _mm256_mul_ps(_mm256_mul_ps(value.value, _mm256_castsi256_ps(first)), _mm256_castsi256_ps(second));
}

// For positive finite a: a = mantissa * 2^exponent with the mantissa in [0.75, 1.5).
SLIPSTREAM_INLINE Vector split(Vector a, Vector* exponent) {
  const Mask subnormal = less(a, Vector(0x1p-126f));
  const __m256i bits = _mm256_castps_si256(select(subnormal, a * Vector(0x1p24f), a).value);
  const __m256i steps = _mm256_srai_epi32(_mm256_sub_epi32(bits, _mm256_set1_epi32(0x3f400000)), 23);
  *exponent = Vector(_mm256_cvtepi32_ps(steps)) - select(subnormal, Vector(24.0f), Vector(0.0f));
  return _mm256_castsi256_ps(_mm256_sub_epi32(bits, _mm256_slli_epi32(steps, 23)));
}

SLIPSTREAM_INLINE float sum(Vector a) {
  __m128 half = _mm_add_ps(_mm256_castps256_ps128(a.value), _mm256_extractf128_ps(a.value, 1));
  half = _mm_add_ps(half, _mm_movehl_ps(half, half));
  return _mm_cvtss_f32(_mm_add_ss(half, _mm_shuffle_ps(half, half, 1)));
}
SLIPSTREAM_INLINE float maximum(Vector a) {
  __m128 half = _mm_max_ps(_mm256_castps256_ps128(a.value), _mm256_extractf128_ps(a.value, 1));
  half = _mm_max_ps(half, _mm_movehl_ps(half, half));
  return _mm_cvtss_f32(_mm_max_ss(half, _mm_shuffle_ps(half, half, 1)));
}

}  // namespace
}  // namespace slipstream
