// The kernel `quantize_matrix` of docs/kernels.md: weights in floats to panels (layout.h). Sixteen columns at
// a time, one a lane, in plain loops that compilers turn into vectors: lanes do not meet and every operation
// is rounded by itself, so that all variants give the same bits.
//
// 8 bits: the largest magnitude of a group becomes 127. 4 bits: a few step sizes around the plain one are
// tried; for each, the scale (and minimum) of least squared error for its rounding is solved for, and the
// step size with the least error is kept.
#pragma once

#include "core/kernel.h"
#include "kernels/matmul/simd.h"
#include "kernels/quantized/repack.h"

namespace slipstream {
namespace {

constexpr int kLane = 16;        // columns at a time
constexpr int kCandidates = 20;  // step sizes that 4 bits try
constexpr float kCandidateStep = 0.125f;

// Adding and taking away 1.5 * 2^23 rounds a float of at most 2^22 to the nearest integer, ties to even.
constexpr float kRounder = 12582912.0f;

using LaneFloats = float[kLane];

// What a group of every lane is quantized with: q = round(w * factor + shift), to [low, high].
struct GroupScales {
  LaneFloats scale, minimum, factor, shift;
};

SLIPSTREAM_INLINE float round_between(float value, float low, float high) {
  float limited = value > low ? value : low;
  limited = limited < high ? limited : high;
  return (limited + kRounder) - kRounder;
}

SLIPSTREAM_INLINE float inverse_or_zero(float value) {
  const float magnitude = value < 0 ? -value : value;
  return magnitude >= 0x1p-100f ? 1.0f / value : 0.0f;
}

SLIPSTREAM_INLINE float stored_scale(float value, bool whole) {
  return whole ? value : to_float(to_f16(value));
}

// The largest magnitude becomes 127.
inline void scale_bytes(const LaneFloats* w, int64_t count, bool whole, GroupScales* result) {
  LaneFloats largest = {};
  for (int64_t k = 0; k < count; k++) {
    for (int lane = 0; lane < kLane; lane++) {
      const float magnitude = w[k][lane] < 0 ? -w[k][lane] : w[k][lane];
      largest[lane] = magnitude > largest[lane] ? magnitude : largest[lane];
    }
  }
  for (int lane = 0; lane < kLane; lane++) {
    const float scale = stored_scale(largest[lane] / 127.0f, whole);
    result->scale[lane] = scale;
    result->factor[lane] = inverse_or_zero(scale);
    result->minimum[lane] = result->shift[lane] = 0;
  }
}

// w = scale * q with q from -8 to 7.
inline void fit_nibbles(const LaneFloats* w, int64_t count, GroupScales* result) {
  LaneFloats extreme = {}, best = {}, best_scale = {};
  for (int64_t k = 0; k < count; k++) {
    for (int lane = 0; lane < kLane; lane++) {
      const float a = w[k][lane] < 0 ? -w[k][lane] : w[k][lane];
      const float b = extreme[lane] < 0 ? -extreme[lane] : extreme[lane];
      extreme[lane] = a > b ? w[k][lane] : extreme[lane];
    }
  }
  for (int candidate = 0; candidate < kCandidates; candidate++) {
    // The extreme becomes about -8, the end that reaches further.
    const float steps = -(6.5f + kCandidateStep * static_cast<float>(candidate));
    LaneFloats factor, products = {}, squares = {};
    for (int lane = 0; lane < kLane; lane++) factor[lane] = steps * inverse_or_zero(extreme[lane]);
    for (int64_t k = 0; k < count; k++) {
      for (int lane = 0; lane < kLane; lane++) {
        const float q = round_between(w[k][lane] * factor[lane], -8, 7);
        products[lane] += w[k][lane] * q;
        squares[lane] += q * q;
      }
    }
    for (int lane = 0; lane < kLane; lane++) {
      const float scale = products[lane] * inverse_or_zero(squares[lane]);
      const float explained = scale * products[lane];
      const bool better = explained > best[lane];
      best[lane] = better ? explained : best[lane];
      best_scale[lane] = better ? scale : best_scale[lane];
    }
  }
  for (int lane = 0; lane < kLane; lane++) {
    result->scale[lane] = stored_scale(best_scale[lane], false);
    result->factor[lane] = inverse_or_zero(result->scale[lane]);
    result->minimum[lane] = result->shift[lane] = 0;
  }
}

// w = scale * q - minimum with q from 0 to `levels`.
inline void fit_range(const LaneFloats* w, int64_t count, float levels, GroupScales* result) {
  LaneFloats low, high, total = {}, best, best_scale = {}, best_minimum = {};
  for (int lane = 0; lane < kLane; lane++) {
    low[lane] = high[lane] = w[0][lane];
    best[lane] = -__builtin_inff();
  }
  for (int64_t k = 0; k < count; k++) {
    for (int lane = 0; lane < kLane; lane++) {
      low[lane] = w[k][lane] < low[lane] ? w[k][lane] : low[lane];
      high[lane] = w[k][lane] > high[lane] ? w[k][lane] : high[lane];
      total[lane] += w[k][lane];
    }
  }
  const float number = static_cast<float>(count);
  for (int candidate = 0; candidate < kCandidates; candidate++) {
    const float steps = levels - 1.0f + kCandidateStep * static_cast<float>(candidate);
    LaneFloats factor, sums = {}, squares = {}, products = {};
    for (int lane = 0; lane < kLane; lane++) {
      factor[lane] = steps * inverse_or_zero(high[lane] - low[lane]);
    }
    for (int64_t k = 0; k < count; k++) {
      for (int lane = 0; lane < kLane; lane++) {
        const float q = round_between((w[k][lane] - low[lane]) * factor[lane], 0, levels);
        sums[lane] += q;
        squares[lane] += q * q;
        products[lane] += w[k][lane] * q;
      }
    }
    for (int lane = 0; lane < kLane; lane++) {
      const float determinant = number * squares[lane] - sums[lane] * sums[lane];
      const float covariance = number * products[lane] - sums[lane] * total[lane];
      const float scale = covariance * inverse_or_zero(determinant);
      const float minimum = (scale * sums[lane] - total[lane]) / number;
      const float explained = scale * products[lane] - minimum * total[lane];
      const bool better = explained > best[lane];
      best[lane] = better ? explained : best[lane];
      best_scale[lane] = better ? scale : best_scale[lane];
      best_minimum[lane] = better ? minimum : best_minimum[lane];
    }
  }
  for (int lane = 0; lane < kLane; lane++) {
    result->scale[lane] = stored_scale(best_scale[lane], false);
    result->minimum[lane] = stored_scale(best_minimum[lane], false);
    result->factor[lane] = inverse_or_zero(result->scale[lane]);
    result->shift[lane] = result->minimum[lane] * result->factor[lane];
  }
}

// Writes the bytes of a group of every lane and their headers.
inline void put_group(const PanelLayout& layout, uint8_t* panel, int64_t group, int column, int columns,
                      const LaneFloats* w, int64_t count, const GroupScales& scales) {
  const Format& format = layout.format;
  const float zero = static_cast<float>(format.zero());
  const float high = format.bits == 8 ? (format.minimum ? 255.0f : 127.0f) : (format.minimum ? 15.0f : 7.0f);
  const float low = format.minimum ? 0.0f : (format.bits == 8 ? -127.0f : -8.0f);
  for (int lane = 0; lane < kLane; lane++) {
    const GroupPlace place = place_of(layout, panel, group, column + lane);
    if (column + lane >= columns) {
      clear_group(layout, place);
      continue;
    }
    if (format.whole()) {
      std::memcpy(place.header, &scales.scale[lane], 4);
    } else {
      place.scale(to_f16(scales.scale[lane]));
      if (format.minimum) place.minimum(to_f16(scales.minimum[lane]));
    }
    const auto quantized = [&](int64_t k) {
      if (k >= count) return static_cast<uint32_t>(zero);
      const float value = w[k][lane] * scales.factor[lane] + scales.shift[lane];
      return static_cast<uint32_t>(round_between(value, low, high) + zero);
    };
    const int64_t half = layout.group / 2;
    for (int64_t word = 0; word < layout.group * format.bits / 32; word++) {
      uint32_t bits = 0;
      for (int i = 0; i < 4; i++) {
        const int64_t k = 4 * word + i;
        const uint32_t byte = format.bits == 8 ? quantized(k) : quantized(k) | quantized(half + k) << 4;
        bits |= byte << (8 * i);
      }
      place.word(word, bits);
    }
  }
}

// Attributes: bits, group, minimum. Input: [N, K]. Output: u8 [packed bytes].
void quantize_matrix(const KernelCall& call) {
  const Tensor& x = call.inputs[0];
  const int64_t rows = x.size(0), inner = x.size(1);
  const PanelLayout layout({static_cast<int>(call.attributes[0]), static_cast<int64_t>(call.attributes[1]),
                            call.attributes[2] != 0},
                           inner);
  const Format& format = layout.format;
  uint8_t* packed = call.outputs[0].as<uint8_t>();
  const size_t scratch_bytes = static_cast<size_t>(layout.group > 0 ? layout.group : 1) * sizeof(LaneFloats);
  call.threads.parallel_for(panel_count(rows), 1, [&](int64_t begin, int64_t end, int thread) {
    auto* w = static_cast<LaneFloats*>(call.threads.scratch(thread, scratch_bytes));
    for (int64_t p = begin; p < end; p++) {
      uint8_t* panel = packed + p * layout.panel_bytes;
      const int columns = static_cast<int>(rows - p * kColumns < kColumns ? rows - p * kColumns : kColumns);
      for (int column = 0; column < kColumns; column += kLane) {
        for (int64_t g = 0; g < layout.groups; g++) {
          const int64_t start = g * layout.group;
          const int64_t count = inner - start < layout.group ? inner - start : layout.group;
          with_type(x.dtype, static_cast<const void*>(x.data), [&](const auto* source) {
            for (int lane = 0; lane < kLane; lane++) {
              const bool present = column + lane < columns;
              const auto* from = source + (p * kColumns + column + lane) * inner + start;
              for (int64_t k = 0; k < count; k++) w[k][lane] = present ? to_float(from[k]) : 0.0f;
            }
          });
          GroupScales scales;
          if (count == 0) {
            scales = {};
          } else if (format.minimum) {
            fit_range(w, count, format.bits == 8 ? 255.0f : 15.0f, &scales);
          } else if (format.bits == 8) {
            scale_bytes(w, count, format.whole(), &scales);
          } else {
            fit_nibbles(w, count, &scales);
          }
          put_group(layout, panel, g, column, columns, w, count, scales);
        }
      }
    }
  });
}

}  // namespace
}  // namespace slipstream
