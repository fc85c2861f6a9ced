// Packing: rewrites a block of an operand as panels of 32-bit lanes, lane-major: panel[lane][column], where a
// lane is one float32, or two bf16 that are adjacent along the depth K. A panel holds `width` columns of the
// right operand or rows of the left one (both are "columns" here); those that the operand lacks are zeros.
#pragma once

#include "kernels/matmul/gemm.h"
#include "kernels/matmul/simd.h"

namespace slipstream {
namespace {

// What a lane holds: a float32, a float32 that was rounded to bf16, or a pair of bf16.
enum class Lane { float32, rounded, pair };

template <Lane kLane>
SLIPSTREAM_INLINE Lanes lanes_of(Vector value) {
  if constexpr (kLane == Lane::rounded) return join_halves(no_lanes(), to_bf16_bits(value));
  return bits_of(value);
}

// One group of kWidth rows by kWidth lanes, from memory in which the depth is contiguous.
template <Lane kLane, class S>
SLIPSTREAM_INLINE void load_group(const S* source, int64_t stride, int count, int64_t depth,
                                  Lanes group[kWidth]) {
  constexpr int kElements = kLane == Lane::pair ? 2 * kWidth : kWidth;
  const int length = static_cast<int>(depth < kElements ? depth : kElements);
#pragma GCC unroll 16
  for (int i = 0; i < kWidth; i++) {
    if (i >= count) {
      group[i] = no_lanes();
    } else if constexpr (kLane == Lane::pair) {
      group[i] = load_pairs(source + i * stride, length);
    } else {
      group[i] = lanes_of<kLane>(load(source + i * stride, length));
    }
  }
}

// Packs columns [begin, begin + count) and depths [depth_begin, depth_begin + depth) into
// destination[lanes][width]; lanes beyond the depth are zeros.
template <Lane kLane, class S>
void pack_panel(const S* source, int64_t stride, bool depth_contiguous, int64_t begin, int count,
                int64_t depth_begin, int64_t depth, int64_t lanes, int width, uint32_t* destination) {
  constexpr int kDepthPerLane = kLane == Lane::pair ? 2 : 1;
  if (depth_contiguous) {
    for (int column = 0; column < width; column += kWidth) {
      const int stored = width - column < kWidth ? width - column : kWidth;
      const int loaded = count - column < 0 ? 0 : count - column;
      const S* rows = source + (begin + column) * stride + depth_begin;
      for (int64_t lane = 0; lane < lanes; lane += kWidth) {
        Lanes group[kWidth];
        const int64_t rest = depth - lane * kDepthPerLane;
        load_group<kLane>(rows + lane * kDepthPerLane, stride, rest > 0 ? loaded : 0, rest, group);
        transpose(group);
        const int limit = static_cast<int>(lanes - lane < kWidth ? lanes - lane : kWidth);
#pragma GCC unroll 16
        for (int i = 0; i < kWidth; i++) {
          if (i < limit) store_lanes(destination + (lane + i) * width + column, group[i], stored);
        }
      }
    }
    return;
  }
  for (int64_t lane = 0; lane < lanes; lane++) {
    const int64_t k = lane * kDepthPerLane;
    const S* row = source + (depth_begin + k) * stride + begin;
    for (int column = 0; column < width; column += kWidth) {
      const int stored = width - column < kWidth ? width - column : kWidth;
      const int loaded = k >= depth || count < column ? 0 : count - column;
      Lanes value;
      if constexpr (kLane == Lane::pair) {
        const Lanes low = loaded > 0 ? load_bf16_bits(row + column, loaded) : no_lanes();
        const Lanes high =
            k + 1 < depth && loaded > 0 ? load_bf16_bits(row + stride + column, loaded) : no_lanes();
        value = join_halves(low, high);
      } else {
        value = loaded > 0 ? lanes_of<kLane>(load(row + column, loaded)) : no_lanes();
      }
      store_lanes(destination + lane * width + column, value, stored);
    }
  }
}

// pack_panel of an operand of any float type.
template <Lane kLane>
void pack_operand(const MatrixView& view, int64_t begin, int count, int64_t depth_begin, int64_t depth,
                  int64_t lanes, int width, uint32_t* destination) {
  with_type(view.dtype, view.data, [&](const auto* source) {
    pack_panel<kLane>(source, view.stride, view.depth_contiguous, begin, count, depth_begin, depth, lanes,
                      width, destination);
  });
}

// Packs columns [begin, end) of the right operand, a multiple of 32 but for the last, into consecutive panels
// of `panel_bytes`.
SLIPSTREAM_INLINE void pack_right(const MatrixView& view, DType packed, int64_t begin, int64_t end,
                                  int64_t depth_begin, int64_t depth, int64_t lanes, int64_t panel_bytes,
                                  char* destination) {
  for (int64_t column = begin; column < end; column += kPanel, destination += panel_bytes) {
    const int count = static_cast<int>(end - column < kPanel ? end - column : kPanel);
    uint32_t* panel = reinterpret_cast<uint32_t*>(destination);
    if (packed == DType::bf16) {
      pack_operand<Lane::pair>(view, column, count, depth_begin, depth, lanes, kPanel, panel);
    } else {
      pack_operand<Lane::float32>(view, column, count, depth_begin, depth, lanes, kPanel, panel);
    }
  }
}

}  // namespace
}  // namespace slipstream
