// Vectors of one lane: the scalar twin of every kernel. See core/vector.h for the contract.
#pragma once

#include "core/float16.h"
#include "core/tensor.h"

namespace slipstream {
namespace {

struct Mask {
  bool value;
};

// Conversion to an integer as x86 does it: what does not fit becomes the least integer.
SLIPSTREAM_INLINE int32_t truncate_to_int(float value) {
  return value >= -2147483648.0f && value < 2147483648.0f ? static_cast<int32_t>(value) : INT32_MIN;
}

struct Vector {
  static constexpr int64_t lanes = 1;
  float value;

  Vector() = default;
  SLIPSTREAM_INLINE Vector(float scalar) : value(scalar) {}

  template <class T>
  static SLIPSTREAM_INLINE Vector load(const T* p) {
    return to_float(*p);
  }
  static SLIPSTREAM_INLINE Vector load(const int32_t* p) { return static_cast<float>(*p); }
  static SLIPSTREAM_INLINE Vector load(const uint8_t* p) { return static_cast<float>(*p); }
  template <class T>
  static SLIPSTREAM_INLINE Vector load(const T* p, int64_t count) {
    return count > 0 ? load(p) : Vector(0.0f);
  }

  template <class T>
  SLIPSTREAM_INLINE void store(T* p) const {
    *p = from_float<T>(value);
  }
  SLIPSTREAM_INLINE void store(int32_t* p) const { *p = truncate_to_int(value); }
  SLIPSTREAM_INLINE void store(uint8_t* p) const { *p = static_cast<uint8_t>(truncate_to_int(value)); }
  template <class T>
  SLIPSTREAM_INLINE void store(T* p, int64_t count) const {
    if (count > 0) store(p);
  }
};

SLIPSTREAM_INLINE Vector operator+(Vector a, Vector b) { return a.value + b.value; }
SLIPSTREAM_INLINE Vector operator-(Vector a, Vector b) { return a.value - b.value; }
SLIPSTREAM_INLINE Vector operator*(Vector a, Vector b) { return a.value * b.value; }
SLIPSTREAM_INLINE Vector operator/(Vector a, Vector b) { return a.value / b.value; }
SLIPSTREAM_INLINE Vector operator-(Vector a) { return -a.value; }

// a * b + c; rounded twice here, once where the instruction set fuses it.
SLIPSTREAM_INLINE Vector fma(Vector a, Vector b, Vector c) { return a.value * b.value + c.value; }
SLIPSTREAM_INLINE Vector min(Vector a, Vector b) { return a.value < b.value ? a.value : b.value; }
SLIPSTREAM_INLINE Vector max(Vector a, Vector b) { return a.value > b.value ? a.value : b.value; }
SLIPSTREAM_INLINE Vector abs(Vector a) { return __builtin_fabsf(a.value); }
SLIPSTREAM_INLINE Vector sqrt(Vector a) { return __builtin_sqrtf(a.value); }
SLIPSTREAM_INLINE Vector floor(Vector a) { return __builtin_floorf(a.value); }
SLIPSTREAM_INLINE Vector copy_sign(Vector magnitude, Vector sign) {
  return __builtin_copysignf(magnitude.value, sign.value);
}

SLIPSTREAM_INLINE Mask less(Vector a, Vector b) { return {a.value < b.value}; }
SLIPSTREAM_INLINE Mask less_equal(Vector a, Vector b) { return {a.value <= b.value}; }
SLIPSTREAM_INLINE Mask equal(Vector a, Vector b) { return {a.value == b.value}; }
SLIPSTREAM_INLINE Mask is_nan(Vector a) { return {a.value != a.value}; }
SLIPSTREAM_INLINE bool any(Mask mask) { return mask.value; }
// a where the mask is set, b elsewhere.
SLIPSTREAM_INLINE Vector select(Mask mask, Vector a, Vector b) { return mask.value ? a : b; }

SLIPSTREAM_INLINE float sum(Vector a) { return a.value; }
SLIPSTREAM_INLINE float maximum(Vector a) { return a.value; }

}  // namespace
}  // namespace slipstream
