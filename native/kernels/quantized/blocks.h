// The kernels `quantize_blocks` and `dequantize_blocks` of docs/kernels.md: numbers as they are sent between
// ranks. Rows of K elements in blocks of `block` neighbours that share a symmetric scale; the last block of a
// row may be shorter. Values of 8 bits are a byte each, 128 added; values of 4 bits are two a byte, 8 added,
// the first in the low half, an odd last one beside a zero. A task takes whole blocks; an element is
// multiplied and rounded once, so that all variants give the same bits.
#pragma once

#include <cstring>

#include "core/float_rows.h"
#include "core/kernel.h"
#include "core/vector.h"

namespace slipstream {
namespace {

struct Blocks {
  int64_t columns, block, per_row, width;
  int bits;
  float zero;

  Blocks(const KernelCall& call, int64_t columns)
      : columns(columns),
        block(static_cast<int64_t>(call.attributes[1])),
        per_row((columns + block - 1) / block),
        width(call.attributes[0] == 8 ? columns : (columns + 1) / 2),
        bits(static_cast<int>(call.attributes[0])),
        zero(bits == 8 ? 128.0f : 8.0f) {}

  int64_t count(int64_t index) const {
    const int64_t rest = columns - index % per_row * block;
    return rest < block ? rest : block;
  }
  int64_t element(int64_t index) const { return index / per_row * columns + index % per_row * block; }
  int64_t byte(int64_t index) const {
    const int64_t start = index % per_row * block;
    return index / per_row * width + (bits == 8 ? start : start / 2);
  }
};

// Elements that are worked on at a time: they stay in the first-level cache.
constexpr int64_t kStretch = 512;

SLIPSTREAM_INLINE int64_t lanes_left(int64_t count) { return count < Vector::lanes ? count : Vector::lanes; }

// The largest magnitude; NaN where one is.
template <class S>
SLIPSTREAM_INLINE float largest_magnitude(const S* x, int64_t count) {
  Vector largest(0.0f);
  bool nan = false;
  for (int64_t i = 0; i < count; i += Vector::lanes) {
    const Vector value = load(x + i, FirstLanes{lanes_left(count - i)});
    nan = nan || any(is_nan(value));
    largest = max(largest, abs(value));
  }
  return nan ? __builtin_nanf("") : maximum(largest);
}

template <class S>
SLIPSTREAM_INLINE void quantize_stretch(const S* x, int64_t count, float factor, float zero, uint8_t* bytes) {
  // Adding and taking away 1.5 * 2^23 rounds to the nearest whole number, ties to even. The limits, which no
  // product passes by more than a rounding, keep compilers from fusing the product with the addition.
  const Vector rounder(12582912.0f), limit(zero - 1);
  for (int64_t i = 0; i < count; i += Vector::lanes) {
    const FirstLanes lanes{lanes_left(count - i)};
    const Vector scaled = max(min(load(x + i, lanes) * Vector(factor), limit), -limit);
    store(bytes + i, (scaled + rounder) - rounder + Vector(zero), lanes);
  }
}

// Attributes: bits, block. Input: x [.., K]. Outputs: values u8 [.., K or K / 2], scales f32 [.., blocks].
void quantize_blocks(const KernelCall& call) {
  const Tensor& x = call.inputs[0];
  const Blocks blocks(call, x.size(-1));
  const int64_t count = blocks.columns == 0 ? 0 : x.rows() * blocks.per_row;
  const int64_t grain = (16384 + blocks.block - 1) / blocks.block;
  call.threads.parallel_for(count, grain, [&](int64_t begin, int64_t end, int) {
    with_typed(x, 0, [&](const auto* data) {
      for (int64_t index = begin; index < end; index++) {
        const auto* source = data + blocks.element(index);
        uint8_t* target = call.outputs[0].as<uint8_t>() + blocks.byte(index);
        const int64_t length = blocks.count(index);
        const float largest = largest_magnitude(source, length), limit = blocks.zero - 1;
        // No number survives infinities or NaN: the scale carries them.
        call.outputs[1].as<float>()[index] = largest / limit;
        const bool usable = largest >= 0x1p-100f && largest <= 0x1.fffffep127f;
        const float factor = usable ? limit / largest : 0.0f;
        uint8_t bytes[kStretch + 1];
        for (int64_t start = 0; start < length; start += kStretch) {
          const int64_t stretch = length - start < kStretch ? length - start : kStretch;
          uint8_t* place = blocks.bits == 8 ? target + start : bytes;
          if (usable) {
            quantize_stretch(source + start, stretch, factor, blocks.zero, place);
          } else {
            std::memset(place, static_cast<int>(blocks.zero), static_cast<size_t>(stretch));
          }
          if (blocks.bits == 8) continue;
          bytes[stretch] = 8;
          for (int64_t i = 0; i < stretch; i += 2) {
            target[(start + i) / 2] = static_cast<uint8_t>(bytes[i] | bytes[i + 1] << 4);
          }
        }
      }
    });
  });
}

// Attributes: bits, block. Inputs: values and scales as above. Output: y [.., K].
void dequantize_blocks(const KernelCall& call) {
  const Tensor& y = call.outputs[0];
  const Blocks blocks(call, y.size(-1));
  const int64_t count = blocks.columns == 0 ? 0 : y.rows() * blocks.per_row;
  const int64_t grain = (16384 + blocks.block - 1) / blocks.block;
  call.threads.parallel_for(count, grain, [&](int64_t begin, int64_t end, int) {
    with_typed(y, 0, [&](auto* data) {
      for (int64_t index = begin; index < end; index++) {
        auto* target = data + blocks.element(index);
        const uint8_t* source = call.inputs[0].as<uint8_t>() + blocks.byte(index);
        const int64_t length = blocks.count(index);
        const Vector scale(call.inputs[1].as<float>()[index]), zero(blocks.zero);
        uint8_t bytes[kStretch + 1];
        for (int64_t start = 0; start < length; start += kStretch) {
          const int64_t stretch = length - start < kStretch ? length - start : kStretch;
          const uint8_t* place = source + start;
          if (blocks.bits == 4) {
            for (int64_t i = 0; i < stretch; i += 2) {
              const uint8_t pair = source[(start + i) / 2];
              bytes[i] = pair & 15;
              bytes[i + 1] = pair >> 4;
            }
            place = bytes;
          }
          for (int64_t i = 0; i < stretch; i += Vector::lanes) {
            const FirstLanes lanes{lanes_left(stretch - i)};
            store(target + start + i, (load(place + i, lanes) - zero) * scale, lanes);
          }
        }
      }
    });
  });
}

}  // namespace
}  // namespace slipstream
