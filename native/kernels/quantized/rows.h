// The kernel `quantize_rows` of docs/kernels.md: activations in bytes, a symmetric scale for each group. An
// element is multiplied and rounded once each: all variants give the same bits.
#pragma once

#include <cstring>

#include "core/kernel.h"
#include "kernels/quantized/dot.h"
#include "kernels/quantized/layout.h"

namespace slipstream {
namespace {

SLIPSTREAM_INLINE int lanes_left(int64_t count) { return static_cast<int>(count < kWidth ? count : kWidth); }

// The bits of the largest magnitude of a group.
template <class S>
SLIPSTREAM_INLINE uint32_t largest_magnitude(const S* x, int64_t count) {
  Lanes lanes = no_lanes();
  for (int64_t i = 0; i < count; i += kWidth) {
    lanes = larger(lanes, magnitude_bits(load(x + i, lanes_left(count - i))));
  }
  return largest_of(lanes);
}

// The factor from numbers of at most `largest` to bytes; 0 where there is none that is finite.
SLIPSTREAM_INLINE float byte_factor(float largest) {
  return largest >= 0x1p-100f && largest <= 0x1.fffffep127f ? 127.0f / largest : 0.0f;
}

// Quantizes one group; returns the sum of its bytes.
template <class S>
SLIPSTREAM_INLINE int32_t quantize_group(const S* x, int64_t count, float factor, int8_t* values) {
  Integers sums = splat_integer(0);
  for (int64_t i = 0; i < count; i += kWidth) {
    const int lanes = lanes_left(count - i);
    const Integers integers = nearest_integers(multiply(load(x + i, lanes), splat(factor)));
    store_bytes(values + i, integers, lanes);
    sums = add_integers(sums, integers);
  }
  return sum_of_integers(sums);
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
