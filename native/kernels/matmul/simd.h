// The vectors that the matrix kernels are written in: `Vector` holds kWidth float32 values, `Lanes` kWidth
// 32-bit lanes (a float32, or two bf16 that are adjacent along K). One implementation for AVX-512, one for
// AVX2, one for NEON, and one of width 1 for every processor. Partial loads read only the first `count`
// elements and fill with zeros; partial stores write only these.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>

#include "core/float16.h"
#include "core/neon_intrinsics.h"
#include "core/tensor.h"

#if defined(__AVX2__)
#if defined(__GNUC__) && !defined(__clang__)
// GCC 12 warns of the undefined registers inside its own AVX-512 header (bug 105593).
#pragma GCC diagnostic ignored "-Wuninitialized"
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#endif
#include <immintrin.h>
#endif

namespace slipstream {
namespace {

#if defined(__AVX512F__)

constexpr int kWidth = 16;
using Vector = __m512;
using Lanes = __m512i;

SLIPSTREAM_INLINE __mmask16 first(int count) {
  return static_cast<__mmask16>(count >= 16 ? 0xffff : (1u << count) - 1);
}

SLIPSTREAM_INLINE Vector splat(float value) { return _mm512_set1_ps(value); }
SLIPSTREAM_INLINE Vector add(Vector a, Vector b) { return _mm512_add_ps(a, b); }
SLIPSTREAM_INLINE Vector subtract(Vector a, Vector b) { return _mm512_sub_ps(a, b); }
SLIPSTREAM_INLINE Vector multiply(Vector a, Vector b) { return _mm512_mul_ps(a, b); }
SLIPSTREAM_INLINE Vector divide(Vector a, Vector b) { return _mm512_div_ps(a, b); }
SLIPSTREAM_INLINE Vector multiply_add(Vector a, Vector b, Vector c) { return _mm512_fmadd_ps(a, b, c); }
SLIPSTREAM_INLINE Vector negative_multiply_add(Vector a, Vector b, Vector c) {
  return _mm512_fnmadd_ps(a, b, c);
}
// The second operand where either is NaN, as the instruction does.
SLIPSTREAM_INLINE Vector maximum(Vector a, Vector b) { return _mm512_max_ps(a, b); }
SLIPSTREAM_INLINE Vector minimum(Vector a, Vector b) { return _mm512_min_ps(a, b); }
SLIPSTREAM_INLINE Vector absolute(Vector a) { return _mm512_abs_ps(a); }
SLIPSTREAM_INLINE Vector round_to_integer(Vector a) {
  return _mm512_roundscale_ps(a, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
}
// a * 2^exponent for an integral exponent.
SLIPSTREAM_INLINE Vector scale_by_power(Vector a, Vector exponent) { return _mm512_scalef_ps(a, exponent); }
// a < 0 ? b : c
SLIPSTREAM_INLINE Vector where_negative(Vector a, Vector b, Vector c) {
  return _mm512_mask_blend_ps(_mm512_cmp_ps_mask(a, _mm512_setzero_ps(), _CMP_LT_OQ), c, b);
}
// a > 0 or a is NaN ? a : 0
SLIPSTREAM_INLINE Vector positive_part(Vector a) { return _mm512_max_ps(_mm512_setzero_ps(), a); }
// Fixed trees, so that sums do not depend on anything but the values.
SLIPSTREAM_INLINE float sum_of(Vector a) { return _mm512_reduce_add_ps(a); }
SLIPSTREAM_INLINE float maximum_of(Vector a) { return _mm512_reduce_max_ps(a); }

SLIPSTREAM_INLINE Lanes bits_of(Vector a) { return _mm512_castps_si512(a); }
SLIPSTREAM_INLINE Lanes no_lanes() { return _mm512_setzero_si512(); }

SLIPSTREAM_INLINE Vector load(const float* p) { return _mm512_loadu_ps(p); }
SLIPSTREAM_INLINE Vector load(const float* p, int count) { return _mm512_maskz_loadu_ps(first(count), p); }
SLIPSTREAM_INLINE Lanes zero_extend(const uint16_t* p, int count) {
  return _mm512_cvtepu16_epi32(_mm256_maskz_loadu_epi16(first(count), p));
}
SLIPSTREAM_INLINE Vector load(const bf16* p, int count) {
  return _mm512_castsi512_ps(_mm512_slli_epi32(zero_extend(&p->bits, count), 16));
}
SLIPSTREAM_INLINE Vector load(const f16* p, int count) {
  return _mm512_cvtph_ps(_mm256_maskz_loadu_epi16(first(count), p));
}

// The bf16 bits nearest to each value, in the low half of its lane.
SLIPSTREAM_INLINE Lanes to_bf16_bits(Vector a) {
#if defined(__AVX512BF16__)
  return _mm512_cvtepu16_epi32(reinterpret_cast<__m256i>(_mm512_cvtneps_pbh(a)));
#else
  const Lanes bits = _mm512_castps_si512(a);
  const Lanes odd = _mm512_and_si512(_mm512_srli_epi32(bits, 16), _mm512_set1_epi32(1));
  const Lanes rounded =
      _mm512_srli_epi32(_mm512_add_epi32(_mm512_add_epi32(bits, _mm512_set1_epi32(0x7fff)), odd), 16);
  const Lanes quiet = _mm512_or_si512(_mm512_srli_epi32(bits, 16), _mm512_set1_epi32(0x40));
  return _mm512_mask_blend_epi32(_mm512_cmp_ps_mask(a, a, _CMP_UNORD_Q), rounded, quiet);
#endif
}

SLIPSTREAM_INLINE void store(float* p, Vector a) { _mm512_storeu_ps(p, a); }
SLIPSTREAM_INLINE void store(float* p, Vector a, int count) { _mm512_mask_storeu_ps(p, first(count), a); }
SLIPSTREAM_INLINE void store(bf16* p, Vector a, int count) {
  _mm256_mask_storeu_epi16(p, first(count), _mm512_cvtepi32_epi16(to_bf16_bits(a)));
}
SLIPSTREAM_INLINE void store(f16* p, Vector a, int count) {
  _mm256_mask_storeu_epi16(p, first(count),
                           _mm512_cvtps_ph(a, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
}
SLIPSTREAM_INLINE void store_lanes(uint32_t* p, Lanes a, int count) {
  _mm512_mask_storeu_epi32(p, first(count), a);
}

// 2 * kWidth consecutive elements rounded to bf16, two a lane.
SLIPSTREAM_INLINE Lanes load_pairs(const bf16* p, int count) {
  const __mmask32 mask = count >= 32 ? ~0u : (1u << count) - 1;
  return _mm512_maskz_loadu_epi16(mask, p);
}
template <class S>
SLIPSTREAM_INLINE Lanes load_pairs(const S* p, int count) {
  const Vector low = load(p, count);
  const Vector high = count > 16 ? load(p + 16, count - 16) : _mm512_setzero_ps();
  const __m256i low_bits = _mm512_cvtepi32_epi16(to_bf16_bits(low));
  const __m256i high_bits = _mm512_cvtepi32_epi16(to_bf16_bits(high));
  return _mm512_inserti64x4(_mm512_castsi256_si512(low_bits), high_bits, 1);
}
// low | high << 16 in each lane.
SLIPSTREAM_INLINE Lanes join_halves(Lanes low, Lanes high) {
  return _mm512_or_si512(low, _mm512_slli_epi32(high, 16));
}

// Transposes a 16 x 16 matrix of lanes in place.
SLIPSTREAM_INLINE void transpose(Lanes r[16]) {
  Lanes t[16];
#pragma GCC unroll 4
  for (int i = 0; i < 16; i += 4) {
    const Lanes ab_low = _mm512_unpacklo_epi32(r[i], r[i + 1]),
                ab_high = _mm512_unpackhi_epi32(r[i], r[i + 1]);
    const Lanes cd_low = _mm512_unpacklo_epi32(r[i + 2], r[i + 3]);
    const Lanes cd_high = _mm512_unpackhi_epi32(r[i + 2], r[i + 3]);
    // t[i + j] holds columns j, j + 4, j + 8, j + 12 of rows i .. i + 3.
    t[i] = _mm512_unpacklo_epi64(ab_low, cd_low);
    t[i + 1] = _mm512_unpackhi_epi64(ab_low, cd_low);
    t[i + 2] = _mm512_unpacklo_epi64(ab_high, cd_high);
    t[i + 3] = _mm512_unpackhi_epi64(ab_high, cd_high);
  }
#pragma GCC unroll 4
  for (int j = 0; j < 4; j++) {
    const Lanes even_low = _mm512_shuffle_i32x4(t[j], t[4 + j], 0x88);
    const Lanes odd_low = _mm512_shuffle_i32x4(t[j], t[4 + j], 0xdd);
    const Lanes even_high = _mm512_shuffle_i32x4(t[8 + j], t[12 + j], 0x88);
    const Lanes odd_high = _mm512_shuffle_i32x4(t[8 + j], t[12 + j], 0xdd);
    r[j] = _mm512_shuffle_i32x4(even_low, even_high, 0x88);
    r[j + 8] = _mm512_shuffle_i32x4(even_low, even_high, 0xdd);
    r[j + 4] = _mm512_shuffle_i32x4(odd_low, odd_high, 0x88);
    r[j + 12] = _mm512_shuffle_i32x4(odd_low, odd_high, 0xdd);
  }
}

#elif defined(__AVX2__)

constexpr int kWidth = 8;
using Vector = __m256;
using Lanes = __m256i;

SLIPSTREAM_INLINE __m256i first(int count) {
  return _mm256_cmpgt_epi32(_mm256_set1_epi32(count), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
}

SLIPSTREAM_INLINE Vector splat(float value) { return _mm256_set1_ps(value); }
SLIPSTREAM_INLINE Vector add(Vector a, Vector b) { return _mm256_add_ps(a, b); }
SLIPSTREAM_INLINE Vector subtract(Vector a, Vector b) { return _mm256_sub_ps(a, b); }
SLIPSTREAM_INLINE Vector multiply(Vector a, Vector b) { return _mm256_mul_ps(a, b); }
SLIPSTREAM_INLINE Vector divide(Vector a, Vector b) { return _mm256_div_ps(a, b); }
SLIPSTREAM_INLINE Vector multiply_add(Vector a, Vector b, Vector c) { return _mm256_fmadd_ps(a, b, c); }
SLIPSTREAM_INLINE Vector negative_multiply_add(Vector a, Vector b, Vector c) {
  return _mm256_fnmadd_ps(a, b, c);
}
SLIPSTREAM_INLINE Vector maximum(Vector a, Vector b) { return _mm256_max_ps(a, b); }
SLIPSTREAM_INLINE Vector minimum(Vector a, Vector b) { return _mm256_min_ps(a, b); }
SLIPSTREAM_INLINE Vector absolute(Vector a) { return _mm256_andnot_ps(_mm256_set1_ps(-0.0f), a); }
SLIPSTREAM_INLINE Vector round_to_integer(Vector a) {
  return _mm256_round_ps(a, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
}
SLIPSTREAM_INLINE Vector scale_by_power(Vector a, Vector exponent) {
  // Two factors, each a normal number, reach every power from underflow to overflow.
  const __m256i whole =
      _mm256_cvtps_epi32(_mm256_min_ps(_mm256_max_ps(exponent, splat(-252.0f)), splat(252.0f)));
  const __m256i half = _mm256_srai_epi32(whole, 1);
  const __m256i bias = _mm256_set1_epi32(127);
  const __m256i one = _mm256_slli_epi32(_mm256_add_epi32(half, bias), 23);
  const __m256i two = _mm256_slli_epi32(_mm256_add_epi32(_mm256_sub_epi32(whole, half), bias), 23);
  return _mm256_mul_ps(_mm256_mul_ps(a, _mm256_castsi256_ps(one)), _mm256_castsi256_ps(two));
}
SLIPSTREAM_INLINE Vector where_negative(Vector a, Vector b, Vector c) {
  return _mm256_blendv_ps(c, b, _mm256_cmp_ps(a, _mm256_setzero_ps(), _CMP_LT_OQ));
}
SLIPSTREAM_INLINE Vector positive_part(Vector a) { return _mm256_max_ps(_mm256_setzero_ps(), a); }
SLIPSTREAM_INLINE float sum_of(Vector a) {
  const __m128 four = _mm_add_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps(a, 1));
  const __m128 two = _mm_add_ps(four, _mm_movehl_ps(four, four));
  return _mm_cvtss_f32(_mm_add_ss(two, _mm_movehdup_ps(two)));
}
SLIPSTREAM_INLINE float maximum_of(Vector a) {
  const __m128 four = _mm_max_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps(a, 1));
  const __m128 two = _mm_max_ps(four, _mm_movehl_ps(four, four));
  return _mm_cvtss_f32(_mm_max_ss(two, _mm_movehdup_ps(two)));
}

SLIPSTREAM_INLINE Lanes bits_of(Vector a) { return _mm256_castps_si256(a); }
SLIPSTREAM_INLINE Lanes no_lanes() { return _mm256_setzero_si256(); }

SLIPSTREAM_INLINE __m128i load_halves(const uint16_t* p, int count) {
  if (count >= 8) return _mm_loadu_si128(reinterpret_cast<const __m128i*>(p));
  alignas(16) uint16_t buffer[8] = {};
  for (int i = 0; i < count; i++) buffer[i] = p[i];
  return _mm_load_si128(reinterpret_cast<const __m128i*>(buffer));
}
SLIPSTREAM_INLINE void store_halves(uint16_t* p, __m128i a, int count) {
  if (count >= 8) return _mm_storeu_si128(reinterpret_cast<__m128i*>(p), a);
  alignas(16) uint16_t buffer[8];
  _mm_store_si128(reinterpret_cast<__m128i*>(buffer), a);
  for (int i = 0; i < count; i++) p[i] = buffer[i];
}

SLIPSTREAM_INLINE Vector load(const float* p) { return _mm256_loadu_ps(p); }
SLIPSTREAM_INLINE Vector load(const float* p, int count) {
  return count >= 8 ? _mm256_loadu_ps(p) : _mm256_maskload_ps(p, first(count));
}
SLIPSTREAM_INLINE Lanes zero_extend(const uint16_t* p, int count) {
  return _mm256_cvtepu16_epi32(load_halves(p, count));
}
SLIPSTREAM_INLINE Vector load(const bf16* p, int count) {
  return _mm256_castsi256_ps(_mm256_slli_epi32(zero_extend(&p->bits, count), 16));
}
SLIPSTREAM_INLINE Vector load(const f16* p, int count) {
  return _mm256_cvtph_ps(load_halves(&p->bits, count));
}

SLIPSTREAM_INLINE Lanes to_bf16_bits(Vector a) {
  const Lanes bits = _mm256_castps_si256(a);
  const Lanes odd = _mm256_and_si256(_mm256_srli_epi32(bits, 16), _mm256_set1_epi32(1));
  const Lanes rounded =
      _mm256_srli_epi32(_mm256_add_epi32(_mm256_add_epi32(bits, _mm256_set1_epi32(0x7fff)), odd), 16);
  const Lanes quiet = _mm256_or_si256(_mm256_srli_epi32(bits, 16), _mm256_set1_epi32(0x40));
  return _mm256_blendv_epi8(rounded, quiet, _mm256_castps_si256(_mm256_cmp_ps(a, a, _CMP_UNORD_Q)));
}
// 16 lanes whose high halves are zero, as 16 halves in order.
SLIPSTREAM_INLINE Lanes narrow(Lanes low, Lanes high) {
  return _mm256_permute4x64_epi64(_mm256_packus_epi32(low, high), 0xd8);
}

SLIPSTREAM_INLINE void store(float* p, Vector a) { _mm256_storeu_ps(p, a); }
SLIPSTREAM_INLINE void store(float* p, Vector a, int count) {
  if (count >= 8) return _mm256_storeu_ps(p, a);
  _mm256_maskstore_ps(p, first(count), a);
}
SLIPSTREAM_INLINE void store(bf16* p, Vector a, int count) {
  const Lanes bits = to_bf16_bits(a);
  store_halves(&p->bits, _mm256_castsi256_si128(narrow(bits, bits)), count);
}
SLIPSTREAM_INLINE void store(f16* p, Vector a, int count) {
  store_halves(&p->bits, _mm256_cvtps_ph(a, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC), count);
}
SLIPSTREAM_INLINE void store_lanes(uint32_t* p, Lanes a, int count) {
  if (count >= 8) return _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), a);
  _mm256_maskstore_epi32(reinterpret_cast<int*>(p), first(count), a);
}

SLIPSTREAM_INLINE Lanes load_pairs(const bf16* p, int count) {
  const __m128i low = load_halves(&p->bits, count);
  const __m128i high = count > 8 ? load_halves(&p->bits + 8, count - 8) : _mm_setzero_si128();
  return _mm256_set_m128i(high, low);
}
template <class S>
SLIPSTREAM_INLINE Lanes load_pairs(const S* p, int count) {
  const Vector low = load(p, count);
  const Vector high = count > 8 ? load(p + 8, count - 8) : _mm256_setzero_ps();
  return narrow(to_bf16_bits(low), to_bf16_bits(high));
}
SLIPSTREAM_INLINE Lanes join_halves(Lanes low, Lanes high) {
  return _mm256_or_si256(low, _mm256_slli_epi32(high, 16));
}

// Transposes an 8 x 8 matrix of lanes in place.
SLIPSTREAM_INLINE void transpose(Lanes r[8]) {
  Lanes t[8];
#pragma GCC unroll 2
  for (int i = 0; i < 8; i += 4) {
    const Lanes ab_low = _mm256_unpacklo_epi32(r[i], r[i + 1]),
                ab_high = _mm256_unpackhi_epi32(r[i], r[i + 1]);
    const Lanes cd_low = _mm256_unpacklo_epi32(r[i + 2], r[i + 3]);
    const Lanes cd_high = _mm256_unpackhi_epi32(r[i + 2], r[i + 3]);
    t[i] = _mm256_unpacklo_epi64(ab_low, cd_low);
    t[i + 1] = _mm256_unpackhi_epi64(ab_low, cd_low);
    t[i + 2] = _mm256_unpacklo_epi64(ab_high, cd_high);
    t[i + 3] = _mm256_unpackhi_epi64(ab_high, cd_high);
  }
#pragma GCC unroll 4
  for (int j = 0; j < 4; j++) {
    r[j] = _mm256_permute2x128_si256(t[j], t[4 + j], 0x20);
    r[j + 4] = _mm256_permute2x128_si256(t[j], t[4 + j], 0x31);
  }
}

#elif defined(SLIPSTREAM_NEON)

constexpr int kWidth = 4;
using Vector = float32x4_t;
using Lanes = uint32x4_t;

SLIPSTREAM_INLINE Vector splat(float value) { return vdupq_n_f32(value); }
SLIPSTREAM_INLINE Vector add(Vector a, Vector b) { return vaddq_f32(a, b); }
SLIPSTREAM_INLINE Vector subtract(Vector a, Vector b) { return vsubq_f32(a, b); }
SLIPSTREAM_INLINE Vector multiply(Vector a, Vector b) { return vmulq_f32(a, b); }
SLIPSTREAM_INLINE Vector divide(Vector a, Vector b) { return vdivq_f32(a, b); }
SLIPSTREAM_INLINE Vector multiply_add(Vector a, Vector b, Vector c) { return vfmaq_f32(c, a, b); }
SLIPSTREAM_INLINE Vector negative_multiply_add(Vector a, Vector b, Vector c) { return vfmsq_f32(c, a, b); }
// By comparing: the instructions of this name give NaN where either operand is.
SLIPSTREAM_INLINE Vector maximum(Vector a, Vector b) { return vbslq_f32(vcgtq_f32(a, b), a, b); }
SLIPSTREAM_INLINE Vector minimum(Vector a, Vector b) { return vbslq_f32(vcltq_f32(a, b), a, b); }
SLIPSTREAM_INLINE Vector absolute(Vector a) { return vabsq_f32(a); }
SLIPSTREAM_INLINE Vector round_to_integer(Vector a) { return vrndnq_f32(a); }
SLIPSTREAM_INLINE Vector scale_by_power(Vector a, Vector exponent) {
  // Two factors, each a normal number, reach every power from underflow to overflow.
  const int32x4_t whole = vcvtnq_s32_f32(minimum(maximum(exponent, splat(-252.0f)), splat(252.0f)));
  const int32x4_t half = vshrq_n_s32(whole, 1), bias = vdupq_n_s32(127);
  const int32x4_t one = vshlq_n_s32(vaddq_s32(half, bias), 23);
  const int32x4_t two = vshlq_n_s32(vaddq_s32(vsubq_s32(whole, half), bias), 23);
  return vmulq_f32(vmulq_f32(a, vreinterpretq_f32_s32(one)), vreinterpretq_f32_s32(two));
}
SLIPSTREAM_INLINE Vector where_negative(Vector a, Vector b, Vector c) {
  return vbslq_f32(vcltzq_f32(a), b, c);
}
SLIPSTREAM_INLINE Vector positive_part(Vector a) { return vmaxq_f32(splat(0.0f), a); }
SLIPSTREAM_INLINE float sum_of(Vector a) { return vaddvq_f32(a); }
SLIPSTREAM_INLINE float maximum_of(Vector a) { return vmaxvq_f32(a); }

SLIPSTREAM_INLINE Lanes bits_of(Vector a) { return vreinterpretq_u32_f32(a); }
SLIPSTREAM_INLINE Lanes no_lanes() { return vdupq_n_u32(0); }

SLIPSTREAM_INLINE uint16x4_t load_halves(const uint16_t* p, int count) {
  if (count >= 4) return vld1_u16(p);
  uint16_t buffer[4] = {};
  for (int i = 0; i < count; i++) buffer[i] = p[i];
  return vld1_u16(buffer);
}
SLIPSTREAM_INLINE void store_halves(uint16_t* p, uint16x4_t a, int count) {
  if (count >= 4) return vst1_u16(p, a);
  uint16_t buffer[4];
  vst1_u16(buffer, a);
  for (int i = 0; i < count; i++) p[i] = buffer[i];
}

SLIPSTREAM_INLINE Vector load(const float* p) { return vld1q_f32(p); }
SLIPSTREAM_INLINE Vector load(const float* p, int count) {
  if (count >= 4) return vld1q_f32(p);
  float buffer[4] = {};
  for (int i = 0; i < count; i++) buffer[i] = p[i];
  return vld1q_f32(buffer);
}
SLIPSTREAM_INLINE Lanes zero_extend(const uint16_t* p, int count) { return vmovl_u16(load_halves(p, count)); }
SLIPSTREAM_INLINE Vector load(const bf16* p, int count) {
  return vreinterpretq_f32_u32(vshll_n_u16(load_halves(&p->bits, count), 16));
}
SLIPSTREAM_INLINE Vector load(const f16* p, int count) {
  return vcvt_f32_f16(vreinterpret_f16_u16(load_halves(&p->bits, count)));
}

SLIPSTREAM_INLINE uint16x4_t narrow_to_bf16(Vector a) {
  const Lanes bits = vreinterpretq_u32_f32(a);
  const Lanes odd = vandq_u32(vshrq_n_u32(bits, 16), vdupq_n_u32(1));
  const Lanes rounded = vaddq_u32(vaddq_u32(bits, vdupq_n_u32(0x7fff)), odd);
  const Lanes quiet = vorrq_u32(bits, vdupq_n_u32(0x400000));
  return vshrn_n_u32(vbslq_u32(vceqq_f32(a, a), rounded, quiet), 16);
}
SLIPSTREAM_INLINE Lanes to_bf16_bits(Vector a) { return vmovl_u16(narrow_to_bf16(a)); }

SLIPSTREAM_INLINE void store(float* p, Vector a) { vst1q_f32(p, a); }
SLIPSTREAM_INLINE void store_lanes(uint32_t* p, Lanes a, int count) {
  if (count >= 4) return vst1q_u32(p, a);
  uint32_t buffer[4];
  vst1q_u32(buffer, a);
  for (int i = 0; i < count; i++) p[i] = buffer[i];
}
SLIPSTREAM_INLINE void store(float* p, Vector a, int count) {
  if (count >= 4) return vst1q_f32(p, a);
  float buffer[4];
  vst1q_f32(buffer, a);
  for (int i = 0; i < count; i++) p[i] = buffer[i];
}
SLIPSTREAM_INLINE void store(bf16* p, Vector a, int count) {
  store_halves(&p->bits, narrow_to_bf16(a), count);
}
SLIPSTREAM_INLINE void store(f16* p, Vector a, int count) {
  store_halves(&p->bits, vreinterpret_u16_f16(vcvt_f16_f32(a)), count);
}

SLIPSTREAM_INLINE Lanes load_pairs(const bf16* p, int count) {
  const uint16x4_t high = count > 4 ? load_halves(&p->bits + 4, count - 4) : vdup_n_u16(0);
  return vreinterpretq_u32_u16(vcombine_u16(load_halves(&p->bits, count), high));
}
template <class S>
SLIPSTREAM_INLINE Lanes load_pairs(const S* p, int count) {
  const Vector high = count > 4 ? load(p + 4, count - 4) : splat(0.0f);
  return vreinterpretq_u32_u16(vcombine_u16(narrow_to_bf16(load(p, count)), narrow_to_bf16(high)));
}
SLIPSTREAM_INLINE Lanes join_halves(Lanes low, Lanes high) { return vsliq_n_u32(low, high, 16); }

// Transposes a 4 x 4 matrix of lanes in place.
SLIPSTREAM_INLINE void transpose(Lanes r[4]) {
  const Lanes low = vtrn1q_u32(r[0], r[1]), low_odd = vtrn2q_u32(r[0], r[1]);
  const Lanes high = vtrn1q_u32(r[2], r[3]), high_odd = vtrn2q_u32(r[2], r[3]);
  r[0] = vcombine_u32(vget_low_u32(low), vget_low_u32(high));
  r[1] = vcombine_u32(vget_low_u32(low_odd), vget_low_u32(high_odd));
  r[2] = vcombine_u32(vget_high_u32(low), vget_high_u32(high));
  r[3] = vcombine_u32(vget_high_u32(low_odd), vget_high_u32(high_odd));
}

#else

constexpr int kWidth = 1;
struct Vector {
  float value;
};
struct Lanes {
  uint32_t bits;
};

SLIPSTREAM_INLINE Vector splat(float value) { return {value}; }
SLIPSTREAM_INLINE Vector add(Vector a, Vector b) { return {a.value + b.value}; }
SLIPSTREAM_INLINE Vector subtract(Vector a, Vector b) { return {a.value - b.value}; }
SLIPSTREAM_INLINE Vector multiply(Vector a, Vector b) { return {a.value * b.value}; }
SLIPSTREAM_INLINE Vector divide(Vector a, Vector b) { return {a.value / b.value}; }
SLIPSTREAM_INLINE Vector maximum(Vector a, Vector b) { return {a.value > b.value ? a.value : b.value}; }
SLIPSTREAM_INLINE Vector positive_part(Vector a) { return {0 > a.value ? 0 : a.value}; }
SLIPSTREAM_INLINE float sum_of(Vector a) { return a.value; }
SLIPSTREAM_INLINE float maximum_of(Vector a) { return a.value; }
SLIPSTREAM_INLINE Lanes bits_of(Vector a) { return {std::bit_cast<uint32_t>(a.value)}; }
SLIPSTREAM_INLINE Lanes no_lanes() { return {0}; }
SLIPSTREAM_INLINE Vector load(const float* p) { return {*p}; }
template <class S>
SLIPSTREAM_INLINE Vector load(const S* p, int count) {
  return {count > 0 ? to_float(*p) : 0.0f};
}
SLIPSTREAM_INLINE Lanes zero_extend(const uint16_t* p, int count) { return {count > 0 ? *p : 0u}; }
SLIPSTREAM_INLINE Lanes to_bf16_bits(Vector a) { return {to_bf16(a.value).bits}; }
SLIPSTREAM_INLINE void store(float* p, Vector a) { *p = a.value; }
template <class S>
SLIPSTREAM_INLINE void store(S* p, Vector a, int count) {
  if (count > 0) *p = from_float<S>(a.value);
}
SLIPSTREAM_INLINE void store_lanes(uint32_t* p, Lanes a, int count) {
  if (count > 0) *p = a.bits;
}
SLIPSTREAM_INLINE Lanes join_halves(Lanes low, Lanes high) { return {low.bits | high.bits << 16}; }
template <class S>
SLIPSTREAM_INLINE Lanes load_pairs(const S* p, int count) {
  const uint32_t low = count > 0 ? to_bf16(to_float(p[0])).bits : 0u;
  return {low | (count > 1 ? static_cast<uint32_t>(to_bf16(to_float(p[1])).bits) << 16 : 0u)};
}
SLIPSTREAM_INLINE void transpose(Lanes*) {}

#endif

// kWidth consecutive elements rounded to bf16, each in the low half of its lane.
SLIPSTREAM_INLINE Lanes load_bf16_bits(const bf16* p, int count) { return zero_extend(&p->bits, count); }
template <class S>
SLIPSTREAM_INLINE Lanes load_bf16_bits(const S* p, int count) {
  return to_bf16_bits(load(p, count));
}

// Calls body(pointer of the element type) for a float tensor's data.
template <class Body>
SLIPSTREAM_INLINE void with_type(DType dtype, const void* data, const Body& body) {
  switch (dtype) {
    case DType::bf16:
      return body(static_cast<const bf16*>(data));
    case DType::f16:
      return body(static_cast<const f16*>(data));
    default:
      return body(static_cast<const float*>(data));
  }
}
template <class Body>
SLIPSTREAM_INLINE void with_type(DType dtype, void* data, const Body& body) {
  switch (dtype) {
    case DType::bf16:
      return body(static_cast<bf16*>(data));
    case DType::f16:
      return body(static_cast<f16*>(data));
    default:
      return body(static_cast<float*>(data));
  }
}

}  // namespace
}  // namespace slipstream
