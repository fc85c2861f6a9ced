// 16-bit floats in scalar code: bf16 and IEEE half, ties to even.
#pragma once

#include <bit>
#include <cstdint>

#include "core/tensor.h"

namespace slipstream {

struct bf16 {
  uint16_t bits;
};
struct f16 {
  uint16_t bits;
};

SLIPSTREAM_INLINE float to_float(bf16 value) {
  return std::bit_cast<float>(static_cast<uint32_t>(value.bits) << 16);
}

SLIPSTREAM_INLINE bf16 to_bf16(float value) {
  const uint32_t bits = std::bit_cast<uint32_t>(value);
  if ((bits & 0x7fffffffu) > 0x7f800000u) return {static_cast<uint16_t>((bits >> 16) | 0x40)};
  return {static_cast<uint16_t>((bits + 0x7fff + ((bits >> 16) & 1)) >> 16)};
}

SLIPSTREAM_INLINE float to_float(f16 value) {
  const uint32_t sign = static_cast<uint32_t>(value.bits & 0x8000) << 16;
  const uint32_t exponent = (value.bits >> 10) & 0x1f, mantissa = value.bits & 0x3ff;
  if (exponent == 31) return std::bit_cast<float>(sign | 0x7f800000u | (mantissa << 13));
  if (exponent != 0) return std::bit_cast<float>(sign | ((exponent + 112) << 23) | (mantissa << 13));
  const float magnitude = static_cast<float>(mantissa) * 0x1p-24f;
  return sign ? -magnitude : magnitude;
}

SLIPSTREAM_INLINE f16 to_f16(float value) {
  const uint32_t bits = std::bit_cast<uint32_t>(value);
  const uint16_t sign = static_cast<uint16_t>((bits >> 16) & 0x8000);
  const uint32_t magnitude = bits & 0x7fffffffu;
  if (magnitude > 0x7f800000u) return {static_cast<uint16_t>(sign | 0x7e00)};
  if (magnitude >= 0x477ff000u) return {static_cast<uint16_t>(sign | 0x7c00)};
  if (magnitude < 0x38800000u) {
    // Adding 0.5 aligns the value so that the hardware's rounding leaves the subnormal's bits at the end.
    const float aligned = std::bit_cast<float>(magnitude) + 0.5f;
    return {static_cast<uint16_t>(sign | (std::bit_cast<uint32_t>(aligned) & 0x7ff))};
  }
  const uint32_t rounded = magnitude + 0xfff + ((magnitude >> 13) & 1) - 0x38000000u;
  return {static_cast<uint16_t>(sign | (rounded >> 13))};
}

SLIPSTREAM_INLINE float to_float(float value) { return value; }
template <class T>
T from_float(float value);
template <>
SLIPSTREAM_INLINE float from_float<float>(float value) {
  return value;
}
template <>
SLIPSTREAM_INLINE bf16 from_float<bf16>(float value) {
  return to_bf16(value);
}
template <>
SLIPSTREAM_INLINE f16 from_float<f16>(float value) {
  return to_f16(value);
}

}  // namespace slipstream
