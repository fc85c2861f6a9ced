// The kernel `quantize_rows` of docs/kernels.md: activations in bytes, a symmetric scale for each group.
// Plain loops over pieces of fixed length, which compilers turn into vectors: every operation is rounded by
// itself, so that all variants give the same bits.
#pragma once

#include <cstring>

#include "core/kernel.h"
#include "kernels/matmul/simd.h"
#include "kernels/quantized/layout.h"

namespace slipstream {
namespace {

constexpr int kPiece = 16;
// Adding and taking away 1.5 * 2^23 rounds a float of at most 2^22 to the nearest integer, ties to even.
constexpr float kRounder = 12582912.0f;

// The bits of the largest magnitude: as integers, magnitudes are ordered like the numbers, and NaN is above
// all.
template <class S>
SLIPSTREAM_INLINE uint32_t largest_magnitude(const S* x, int64_t count) {
  uint32_t lanes[kPiece] = {};
  int64_t i = 0;
  for (; i + kPiece <= count; i += kPiece) {
    for (int lane = 0; lane < kPiece; lane++) {
      const uint32_t bits = std::bit_cast<uint32_t>(to_float(x[i + lane])) & 0x7fffffffu;
      lanes[lane] = bits > lanes[lane] ? bits : lanes[lane];
    }
  }
  uint32_t largest = 0;
  for (const uint32_t lane : lanes) largest = lane > largest ? lane : largest;
  for (; i < count; i++) {
    const uint32_t bits = std::bit_cast<uint32_t>(to_float(x[i])) & 0x7fffffffu;
    largest = bits > largest ? bits : largest;
  }
  return largest;
}

// The factor from numbers of at most `largest` to bytes; 0 where there is none that is finite.
SLIPSTREAM_INLINE float byte_factor(float largest) {
  return largest >= 0x1p-100f && largest <= 0x1.fffffep127f ? 127.0f / largest : 0.0f;
}

// Quantizes one group; returns the sum of its bytes.
template <class S>
SLIPSTREAM_INLINE int32_t quantize_group(const S* x, int64_t count, float factor, int8_t* values) {
  int32_t lanes[kPiece] = {};
  int64_t i = 0;
  for (; i + kPiece <= count; i += kPiece) {
    for (int lane = 0; lane < kPiece; lane++) {
      const float rounded = (to_float(x[i + lane]) * factor + kRounder) - kRounder;
      const int32_t value = static_cast<int32_t>(rounded);
      values[i + lane] = static_cast<int8_t>(value);
      lanes[lane] += value;
    }
  }
  int32_t sum = 0;
  for (const int32_t lane : lanes) sum += lane;
  for (; i < count; i++) {
    const int32_t value = static_cast<int32_t>((to_float(x[i]) * factor + kRounder) - kRounder);
    values[i] = static_cast<int8_t>(value);
    sum += value;
  }
  return sum;
}

template <class S>
void quantize_row(const S* x, int64_t inner, int64_t group, int8_t* values, float* scales, int32_t* sums) {
  const int64_t groups = group_count(group, inner), step = group == 0 ? inner : group;
  for (int64_t g = 0; g < groups; g++) {
    const int64_t begin = g * step, count = inner - begin < step ? inner - begin : step;
    const float largest = std::bit_cast<float>(largest_magnitude(x + begin, count));
    // No number survives infinities or NaN: the scale carries them into the products.
    scales[g] = largest / 127.0f;
    const float factor = byte_factor(largest);
    if (factor == 0) {
      std::memset(values + begin, 0, static_cast<size_t>(count));
      sums[g] = 0;
    } else {
      sums[g] = quantize_group(x + begin, count, factor, values + begin);
    }
  }
  const int64_t padded = padded_inner(group, inner);
  std::memset(values + inner, 0, static_cast<size_t>(padded - inner));
}

// Attributes: group. Input: x [.., K]. Outputs: values i8 [.., padded K], scales f32 and sums i32 [..,
// groups].
void quantize_rows(const KernelCall& call) {
  const Tensor& x = call.inputs[0];
  const int64_t group = static_cast<int64_t>(call.attributes[0]), inner = x.size(-1);
  const int64_t groups = group_count(group, inner), padded = padded_inner(group, inner);
  const int64_t rows = inner == 0 ? call.outputs[1].rows() : x.rows();
  const int64_t grain = inner == 0 ? rows + 1 : (16384 + inner - 1) / inner;
  call.threads.parallel_for(rows, grain, [&](int64_t begin, int64_t end, int) {
    with_type(x.dtype, static_cast<const void*>(x.data), [&](const auto* data) {
      for (int64_t row = begin; row < end; row++) {
        quantize_row(data + row * inner, inner, group, call.outputs[0].as<int8_t>() + row * padded,
                     call.outputs[1].as<float>() + row * groups,
                     call.outputs[2].as<int32_t>() + row * groups);
      }
    });
  });
}

}  // namespace
}  // namespace slipstream
