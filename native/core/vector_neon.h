// Vectors of 4 lanes. See core/vector.h for the contract.
#pragma once

#include "core/float16.h"
#include "core/neon_intrinsics.h"
#include "core/tensor.h"

namespace slipstream {
namespace {

struct Mask {
  uint32x4_t value;
};

SLIPSTREAM_INLINE float32x4_t widen_bf16(uint16x4_t halves) {
  return vreinterpretq_f32_u32(vshll_n_u16(halves, 16));
}

// Ties to even; a NaN keeps its upper bits and becomes quiet.
SLIPSTREAM_INLINE uint16x4_t narrow_bf16(float32x4_t value) {
  const uint32x4_t bits = vreinterpretq_u32_f32(value);
  const uint32x4_t odd = vandq_u32(vshrq_n_u32(bits, 16), vdupq_n_u32(1));
  const uint32x4_t rounded = vaddq_u32(vaddq_u32(bits, vdupq_n_u32(0x7fff)), odd);
  const uint32x4_t quiet = vorrq_u32(bits, vdupq_n_u32(0x400000));
  return vshrn_n_u32(vbslq_u32(vceqq_f32(value, value), rounded, quiet), 16);
}

// Conversion to integers as x86 does it: what does not fit becomes the least integer.
SLIPSTREAM_INLINE int32x4_t truncate_to_int(float32x4_t value) {
  const uint32x4_t fits =
      vandq_u32(vcgeq_f32(value, vdupq_n_f32(-2147483648.0f)), vcltq_f32(value, vdupq_n_f32(2147483648.0f)));
  return vbslq_s32(fits, vcvtq_s32_f32(value), vdupq_n_s32(INT32_MIN));
}

struct Vector {
  static constexpr int64_t lanes = 4;
  float32x4_t value;

  Vector() = default;
  SLIPSTREAM_INLINE Vector(float32x4_t native) : value(native) {}
  SLIPSTREAM_INLINE Vector(float scalar) : value(vdupq_n_f32(scalar)) {}

  static SLIPSTREAM_INLINE Vector load(const float* p) { return vld1q_f32(p); }
  static SLIPSTREAM_INLINE Vector load(const bf16* p) { return widen_bf16(vld1_u16(&p->bits)); }
  static SLIPSTREAM_INLINE Vector load(const f16* p) {
    return vcvt_f32_f16(vreinterpret_f16_u16(vld1_u16(&p->bits)));
  }
  static SLIPSTREAM_INLINE Vector load(const int32_t* p) { return vcvtq_f32_s32(vld1q_s32(p)); }
  static SLIPSTREAM_INLINE Vector load(const uint8_t* p) {
    uint32_t bytes;
    __builtin_memcpy(&bytes, p, sizeof(bytes));
    const uint8x8_t words = vreinterpret_u8_u32(vdup_n_u32(bytes));
    return vcvtq_f32_u32(vmovl_u16(vget_low_u16(vmovl_u8(words))));
  }
  template <class T>
  static SLIPSTREAM_INLINE Vector load(const T* p, int64_t count) {
    T copy[lanes] = {};
    for (int64_t i = 0; i < count; i++) copy[i] = p[i];
    return load(copy);
  }

  SLIPSTREAM_INLINE void store(float* p) const { vst1q_f32(p, value); }
  SLIPSTREAM_INLINE void store(bf16* p) const { vst1_u16(&p->bits, narrow_bf16(value)); }
  SLIPSTREAM_INLINE void store(f16* p) const {
    vst1_u16(&p->bits, vreinterpret_u16_f16(vcvt_f16_f32(value)));
  }
  SLIPSTREAM_INLINE void store(int32_t* p) const { vst1q_s32(p, truncate_to_int(value)); }
  SLIPSTREAM_INLINE void store(uint8_t* p) const {
    const uint16x4_t halves = vmovn_u32(vreinterpretq_u32_s32(truncate_to_int(value)));
    const uint32x2_t bytes = vreinterpret_u32_u8(vmovn_u16(vcombine_u16(halves, halves)));
    const uint32_t word = vget_lane_u32(bytes, 0);
    __builtin_memcpy(p, &word, sizeof(word));
  }
  template <class T>
  SLIPSTREAM_INLINE void store(T* p, int64_t count) const {
    T copy[lanes];
    store(copy);
    for (int64_t i = 0; i < count; i++) p[i] = copy[i];
  }
};

SLIPSTREAM_INLINE Vector operator+(Vector a, Vector b) { return vaddq_f32(a.value, b.value); }
SLIPSTREAM_INLINE Vector operator-(Vector a, Vector b) { return vsubq_f32(a.value, b.value); }
SLIPSTREAM_INLINE Vector operator*(Vector a, Vector b) { return vmulq_f32(a.value, b.value); }
SLIPSTREAM_INLINE Vector operator/(Vector a, Vector b) { return vdivq_f32(a.value, b.value); }
SLIPSTREAM_INLINE Vector operator-(Vector a) { return vnegq_f32(a.value); }

SLIPSTREAM_INLINE Vector fma(Vector a, Vector b, Vector c) { return vfmaq_f32(c.value, a.value, b.value); }
// By comparing: the instructions of this name give NaN where either operand is.
SLIPSTREAM_INLINE Vector min(Vector a, Vector b) {
  return vbslq_f32(vcltq_f32(a.value, b.value), a.value, b.value);
}
SLIPSTREAM_INLINE Vector max(Vector a, Vector b) {
  return vbslq_f32(vcgtq_f32(a.value, b.value), a.value, b.value);
}
SLIPSTREAM_INLINE Vector abs(Vector a) { return vabsq_f32(a.value); }
SLIPSTREAM_INLINE Vector sqrt(Vector a) { return vsqrtq_f32(a.value); }
SLIPSTREAM_INLINE Vector floor(Vector a) { return vrndmq_f32(a.value); }
SLIPSTREAM_INLINE Vector round_even(Vector a) { return vrndnq_f32(a.value); }
SLIPSTREAM_INLINE Vector copy_sign(Vector magnitude, Vector sign) {
  return vbslq_f32(vdupq_n_u32(0x80000000u), sign.value, magnitude.value);
}

SLIPSTREAM_INLINE Mask less(Vector a, Vector b) { return {vcltq_f32(a.value, b.value)}; }
SLIPSTREAM_INLINE Mask less_equal(Vector a, Vector b) { return {vcleq_f32(a.value, b.value)}; }
SLIPSTREAM_INLINE Mask equal(Vector a, Vector b) { return {vceqq_f32(a.value, b.value)}; }
SLIPSTREAM_INLINE Mask is_nan(Vector a) { return {vmvnq_u32(vceqq_f32(a.value, a.value))}; }
SLIPSTREAM_INLINE bool any(Mask mask) { return vmaxvq_u32(mask.value) != 0; }
SLIPSTREAM_INLINE Vector select(Mask mask, Vector a, Vector b) {
  return vbslq_f32(mask.value, a.value, b.value);
}

// value * 2^exponent for integral exponents in [-252, 254], exact but for overflow and subnormal results:
// in two steps, because 2^exponent itself may not be a float.
SLIPSTREAM_INLINE Vector scale(Vector value, Vector exponent) {
  const int32x4_t whole = vcvtnq_s32_f32(exponent.value), half = vshrq_n_s32(whole, 1);
  const int32x4_t bias = vdupq_n_s32(127);
  const int32x4_t first = vshlq_n_s32(vaddq_s32(half, bias), 23);
  const int32x4_t second = vshlq_n_s32(vaddq_s32(vsubq_s32(whole, half), bias), 23);
  return vmulq_f32(vmulq_f32(value.value, vreinterpretq_f32_s32(first)), vreinterpretq_f32_s32(second));
}

// For positive finite a: a = mantissa * 2^exponent with the mantissa in [0.75, 1.5).
SLIPSTREAM_INLINE Vector split(Vector a, Vector* exponent) {
  const Mask subnormal = less(a, Vector(0x1p-126f));
  const int32x4_t bits = vreinterpretq_s32_f32(select(subnormal, a * Vector(0x1p24f), a).value);
  const int32x4_t steps = vshrq_n_s32(vsubq_s32(bits, vdupq_n_s32(0x3f400000)), 23);
  *exponent = Vector(vcvtq_f32_s32(steps)) - select(subnormal, Vector(24.0f), Vector(0.0f));
  return vreinterpretq_f32_s32(vsubq_s32(bits, vshlq_n_s32(steps, 23)));
}

SLIPSTREAM_INLINE float sum(Vector a) { return vaddvq_f32(a.value); }
SLIPSTREAM_INLINE float maximum(Vector a) { return vmaxvq_f32(a.value); }

}  // namespace
}  // namespace slipstream
