// Byte dot products on the vectors of kernels/matmul/simd.h: kWidth sums of 32 bits, each over four products
// of unsigned weights and signed activations. Every variant is exact, so all give the same integers.
#pragma once

#include "kernels/matmul/simd.h"

namespace slipstream {
namespace {

#if defined(__AVX512VNNI__)

using Integers = __m512i;
using Bytes = __m512i;        // four weights of kWidth columns
using Activations = __m512i;  // four activations, for every column

SLIPSTREAM_INLINE Bytes load_bytes(const uint8_t* p) { return _mm512_loadu_si512(p); }
SLIPSTREAM_INLINE Bytes low_nibbles(Bytes a) { return _mm512_and_si512(a, _mm512_set1_epi8(15)); }
SLIPSTREAM_INLINE Bytes high_nibbles(Bytes a) {
  return _mm512_and_si512(_mm512_srli_epi16(a, 4), _mm512_set1_epi8(15));
}
SLIPSTREAM_INLINE Activations spread(const int8_t* p) {
  int32_t four;
  std::memcpy(&four, p, 4);
  return _mm512_set1_epi32(four);
}
SLIPSTREAM_INLINE Integers dot(Integers sums, Bytes weights, Activations a) {
  return _mm512_dpbusd_epi32(sums, weights, a);
}

#elif defined(__AVX512F__)

using Integers = __m512i;
using Bytes = __m512i;
// As 16-bit numbers: the first and third, and the second and fourth, of the four.
struct Activations {
  __m512i even, odd;
};

SLIPSTREAM_INLINE Bytes load_bytes(const uint8_t* p) { return _mm512_loadu_si512(p); }
SLIPSTREAM_INLINE Bytes low_nibbles(Bytes a) { return _mm512_and_si512(a, _mm512_set1_epi8(15)); }
SLIPSTREAM_INLINE Bytes high_nibbles(Bytes a) {
  return _mm512_and_si512(_mm512_srli_epi16(a, 4), _mm512_set1_epi8(15));
}
SLIPSTREAM_INLINE Activations spread(const int8_t* p) {
  int32_t four;
  std::memcpy(&four, p, 4);
  const __m512i a = _mm512_set1_epi32(four);
  return {_mm512_srai_epi16(_mm512_slli_epi16(a, 8), 8), _mm512_srai_epi16(a, 8)};
}
// Products of bytes need 16 bits each: adding two of them in 16 bits could saturate.
SLIPSTREAM_INLINE Integers dot(Integers sums, Bytes weights, const Activations& a) {
  const __m512i even = _mm512_and_si512(weights, _mm512_set1_epi16(255));
  const __m512i odd = _mm512_srli_epi16(weights, 8);
  sums = _mm512_add_epi32(sums, _mm512_madd_epi16(even, a.even));
  return _mm512_add_epi32(sums, _mm512_madd_epi16(odd, a.odd));
}

#elif defined(__AVX2__)

using Integers = __m256i;
using Bytes = __m256i;
struct Activations {
  __m256i even, odd;
};

SLIPSTREAM_INLINE Bytes load_bytes(const uint8_t* p) {
  return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p));
}
SLIPSTREAM_INLINE Bytes low_nibbles(Bytes a) { return _mm256_and_si256(a, _mm256_set1_epi8(15)); }
SLIPSTREAM_INLINE Bytes high_nibbles(Bytes a) {
  return _mm256_and_si256(_mm256_srli_epi16(a, 4), _mm256_set1_epi8(15));
}
SLIPSTREAM_INLINE Activations spread(const int8_t* p) {
  int32_t four;
  std::memcpy(&four, p, 4);
  const __m256i a = _mm256_set1_epi32(four);
  return {_mm256_srai_epi16(_mm256_slli_epi16(a, 8), 8), _mm256_srai_epi16(a, 8)};
}
// Products of bytes need 16 bits each: adding two of them in 16 bits could saturate.
SLIPSTREAM_INLINE Integers dot(Integers sums, Bytes weights, const Activations& a) {
  const __m256i even = _mm256_and_si256(weights, _mm256_set1_epi16(255));
  const __m256i odd = _mm256_srli_epi16(weights, 8);
  sums = _mm256_add_epi32(sums, _mm256_madd_epi16(even, a.even));
  return _mm256_add_epi32(sums, _mm256_madd_epi16(odd, a.odd));
}

#elif defined(SLIPSTREAM_NEON)

using Integers = int32x4_t;
using Bytes = uint8x16_t;
using Activations = int8x16_t;

SLIPSTREAM_INLINE Bytes load_bytes(const uint8_t* p) { return vld1q_u8(p); }
SLIPSTREAM_INLINE Bytes low_nibbles(Bytes a) { return vandq_u8(a, vdupq_n_u8(15)); }
SLIPSTREAM_INLINE Bytes high_nibbles(Bytes a) { return vshrq_n_u8(a, 4); }
SLIPSTREAM_INLINE Activations spread(const int8_t* p) {
  int32_t four;
  std::memcpy(&four, p, 4);
  return vreinterpretq_s8_s32(vdupq_n_s32(four));
}
SLIPSTREAM_INLINE Integers dot(Integers sums, Bytes weights, Activations a) {
  const int16x8_t low = vreinterpretq_s16_u16(vmovl_u8(vget_low_u8(weights)));
  const int16x8_t high = vreinterpretq_s16_u16(vmovl_high_u8(weights));
  const int16x8_t four = vmovl_s8(vget_low_s8(a));
  const int32x4_t first =
      vpaddq_s32(vmull_s16(vget_low_s16(low), vget_low_s16(four)), vmull_high_s16(low, four));
  const int32x4_t second =
      vpaddq_s32(vmull_s16(vget_low_s16(high), vget_low_s16(four)), vmull_high_s16(high, four));
  return vaddq_s32(sums, vpaddq_s32(first, second));
}

#else

using Integers = int32_t;
struct Bytes {
  uint8_t at[4];
};
struct Activations {
  int8_t at[4];
};

SLIPSTREAM_INLINE Bytes load_bytes(const uint8_t* p) { return {{p[0], p[1], p[2], p[3]}}; }
SLIPSTREAM_INLINE Bytes low_nibbles(Bytes a) {
  for (uint8_t& byte : a.at) byte &= 15;
  return a;
}
SLIPSTREAM_INLINE Bytes high_nibbles(Bytes a) {
  for (uint8_t& byte : a.at) byte >>= 4;
  return a;
}
SLIPSTREAM_INLINE Activations spread(const int8_t* p) { return {{p[0], p[1], p[2], p[3]}}; }
SLIPSTREAM_INLINE Integers dot(Integers sum, Bytes weights, Activations a) {
  for (int i = 0; i < 4; i++) sum += weights.at[i] * a.at[i];
  return sum;
}

#endif

// minus_zeros<n>(sum): -(2^n) * sum in every lane, what weights that are offset by 2^n bring too much.
#if defined(__AVX512F__)
template <int kShift>
SLIPSTREAM_INLINE Integers minus_zeros(const int32_t* sum) {
  return _mm512_sub_epi32(_mm512_setzero_si512(), _mm512_slli_epi32(_mm512_set1_epi32(*sum), kShift));
}
SLIPSTREAM_INLINE Integers splat_integer(int32_t a) { return _mm512_set1_epi32(a); }
SLIPSTREAM_INLINE Vector to_vector(Integers a) { return _mm512_cvtepi32_ps(a); }
SLIPSTREAM_INLINE Integers load_integers(const float* p) { return _mm512_loadu_si512(p); }
SLIPSTREAM_INLINE void store_integers(float* p, Integers a) { _mm512_storeu_si512(p, a); }
#elif defined(__AVX2__)
template <int kShift>
SLIPSTREAM_INLINE Integers minus_zeros(const int32_t* sum) {
  return _mm256_sub_epi32(_mm256_setzero_si256(), _mm256_slli_epi32(_mm256_set1_epi32(*sum), kShift));
}
SLIPSTREAM_INLINE Integers splat_integer(int32_t a) { return _mm256_set1_epi32(a); }
SLIPSTREAM_INLINE Vector to_vector(Integers a) { return _mm256_cvtepi32_ps(a); }
SLIPSTREAM_INLINE Integers load_integers(const float* p) {
  return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p));
}
SLIPSTREAM_INLINE void store_integers(float* p, Integers a) {
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), a);
}
#elif defined(SLIPSTREAM_NEON)
template <int kShift>
SLIPSTREAM_INLINE Integers minus_zeros(const int32_t* sum) {
  return vdupq_n_s32(-*sum * (1 << kShift));
}
SLIPSTREAM_INLINE Integers splat_integer(int32_t a) { return vdupq_n_s32(a); }
SLIPSTREAM_INLINE Vector to_vector(Integers a) { return vcvtq_f32_s32(a); }
SLIPSTREAM_INLINE Integers load_integers(const float* p) { return vreinterpretq_s32_f32(vld1q_f32(p)); }
SLIPSTREAM_INLINE void store_integers(float* p, Integers a) { vst1q_f32(p, vreinterpretq_f32_s32(a)); }
#else
template <int kShift>
SLIPSTREAM_INLINE Integers minus_zeros(const int32_t* sum) {
  return -*sum * (1 << kShift);
}
SLIPSTREAM_INLINE Integers splat_integer(int32_t a) { return a; }
SLIPSTREAM_INLINE Vector to_vector(Integers a) { return {static_cast<float>(a)}; }
SLIPSTREAM_INLINE Integers load_integers(const float* p) { return std::bit_cast<int32_t>(*p); }
SLIPSTREAM_INLINE void store_integers(float* p, Integers a) { *p = std::bit_cast<float>(a); }
// Rounded once, as the vectors' instructions do, so that all variants give the same bits.
SLIPSTREAM_INLINE Vector multiply_add(Vector a, Vector b, Vector c) {
  return {std::fmaf(a.value, b.value, c.value)};
}
SLIPSTREAM_INLINE Vector negative_multiply_add(Vector a, Vector b, Vector c) {
  return {std::fmaf(-a.value, b.value, c.value)};
}
#endif

// Rounding to bytes: magnitudes as integers (ordered like the numbers, NaN above all), and integers nearest
// to floats, ties to even, as bytes. `count` lanes take part in stores.
#if defined(__AVX512F__)
SLIPSTREAM_INLINE Lanes magnitude_bits(Vector a) {
  return _mm512_and_si512(_mm512_castps_si512(a), _mm512_set1_epi32(0x7fffffff));
}
SLIPSTREAM_INLINE Lanes larger(Lanes a, Lanes b) { return _mm512_max_epu32(a, b); }
SLIPSTREAM_INLINE uint32_t largest_of(Lanes a) { return _mm512_reduce_max_epu32(a); }
SLIPSTREAM_INLINE Integers nearest_integers(Vector a) { return _mm512_cvtps_epi32(a); }
SLIPSTREAM_INLINE Integers add_integers(Integers a, Integers b) { return _mm512_add_epi32(a, b); }
SLIPSTREAM_INLINE int32_t sum_of_integers(Integers a) { return _mm512_reduce_add_epi32(a); }
SLIPSTREAM_INLINE void store_bytes(int8_t* p, Integers a, int count) {
  _mm_mask_storeu_epi8(p, first(count), _mm512_cvtepi32_epi8(a));
}
#elif defined(__AVX2__)
SLIPSTREAM_INLINE Lanes magnitude_bits(Vector a) {
  return _mm256_and_si256(_mm256_castps_si256(a), _mm256_set1_epi32(0x7fffffff));
}
SLIPSTREAM_INLINE Lanes larger(Lanes a, Lanes b) { return _mm256_max_epu32(a, b); }
SLIPSTREAM_INLINE uint32_t largest_of(Lanes a) {
  __m128i four = _mm_max_epu32(_mm256_castsi256_si128(a), _mm256_extracti128_si256(a, 1));
  four = _mm_max_epu32(four, _mm_shuffle_epi32(four, 0x4e));
  four = _mm_max_epu32(four, _mm_shuffle_epi32(four, 0xb1));
  return static_cast<uint32_t>(_mm_cvtsi128_si32(four));
}
SLIPSTREAM_INLINE Integers nearest_integers(Vector a) { return _mm256_cvtps_epi32(a); }
SLIPSTREAM_INLINE Integers add_integers(Integers a, Integers b) { return _mm256_add_epi32(a, b); }
SLIPSTREAM_INLINE int32_t sum_of_integers(Integers a) {
  __m128i four = _mm_add_epi32(_mm256_castsi256_si128(a), _mm256_extracti128_si256(a, 1));
  four = _mm_add_epi32(four, _mm_shuffle_epi32(four, 0x4e));
  four = _mm_add_epi32(four, _mm_shuffle_epi32(four, 0xb1));
  return _mm_cvtsi128_si32(four);
}
SLIPSTREAM_INLINE void store_bytes(int8_t* p, Integers a, int count) {
  const __m128i halves = _mm_packs_epi32(_mm256_castsi256_si128(a), _mm256_extracti128_si256(a, 1));
  int64_t bytes = _mm_cvtsi128_si64(_mm_packs_epi16(halves, halves));
  std::memcpy(p, &bytes, static_cast<size_t>(count < 8 ? count : 8));
}
#elif defined(SLIPSTREAM_NEON)
SLIPSTREAM_INLINE Lanes magnitude_bits(Vector a) { return vreinterpretq_u32_f32(vabsq_f32(a)); }
SLIPSTREAM_INLINE Lanes larger(Lanes a, Lanes b) { return vmaxq_u32(a, b); }
SLIPSTREAM_INLINE uint32_t largest_of(Lanes a) { return vmaxvq_u32(a); }
SLIPSTREAM_INLINE Integers nearest_integers(Vector a) { return vcvtnq_s32_f32(a); }
SLIPSTREAM_INLINE Integers add_integers(Integers a, Integers b) { return vaddq_s32(a, b); }
SLIPSTREAM_INLINE int32_t sum_of_integers(Integers a) { return vaddvq_s32(a); }
SLIPSTREAM_INLINE void store_bytes(int8_t* p, Integers a, int count) {
  const int16x4_t halves = vmovn_s32(a);
  int8_t bytes[8];
  vst1_s8(bytes, vmovn_s16(vcombine_s16(halves, halves)));
  for (int i = 0; i < count && i < 4; i++) p[i] = bytes[i];
}
#else
SLIPSTREAM_INLINE Lanes magnitude_bits(Vector a) { return {std::bit_cast<uint32_t>(a.value) & 0x7fffffffu}; }
SLIPSTREAM_INLINE Lanes larger(Lanes a, Lanes b) { return a.bits > b.bits ? a : b; }
SLIPSTREAM_INLINE uint32_t largest_of(Lanes a) { return a.bits; }
SLIPSTREAM_INLINE Integers nearest_integers(Vector a) {
  // Adding and taking away 1.5 * 2^23 rounds a float of at most 2^22 to the nearest integer, ties to even.
  constexpr float kRounder = 12582912.0f;
  return static_cast<int32_t>((a.value + kRounder) - kRounder);
}
SLIPSTREAM_INLINE Integers add_integers(Integers a, Integers b) { return a + b; }
SLIPSTREAM_INLINE int32_t sum_of_integers(Integers a) { return a; }
SLIPSTREAM_INLINE void store_bytes(int8_t* p, Integers a, int count) {
  if (count > 0) *p = static_cast<int8_t>(a);
}
#endif

}  // namespace
}  // namespace slipstream
