// The micro-kernels: a few rows of activations times one panel (layout.h), in passes over kPassVectors
// vectors of columns with the integer sums of a group in registers. Sums over groups are float32 and added in
// the order of the groups in every one of them, so an element's bits depend neither on the rows beside it nor
// on where the groups are cut into blocks.
#pragma once

#include "kernels/quantized/dot.h"
#include "kernels/quantized/layout.h"

namespace slipstream {
namespace {

// Rows of activations as `quantize_rows` leaves them, from the first group of a block on.
struct QuantizedRows {
  const int8_t* values;
  const float* scales;
  const int32_t* sums;
  int64_t value_stride;  // from row to row
  int64_t group_stride;

  SLIPSTREAM_INLINE QuantizedRows from(int64_t row, int64_t group, int64_t group_size) const {
    return {values + row * value_stride + group * group_size, scales + row * group_stride + group,
            sums + row * group_stride + group, value_stride, group_stride};
  }
};

// A block of a panel's groups.
struct PanelBlock {
  const uint8_t* groups;  // the first one
  int64_t count;
  int64_t group;  // k of each
  int64_t header_bytes, group_bytes;
  bool first, last;  // of the panel
};

// Register blocking: kMostRows rows by kPassVectors vectors. Float sums stay in registers up to kKeptRows
// rows, and in memory (the first-level cache) beyond.
#if defined(__AVX512F__)
constexpr int kPassVectors = 2, kKeptRows = 6, kMostRows = 12;
#elif defined(__AVX2__)
constexpr int kPassVectors = 2, kKeptRows = 2, kMostRows = 3;
#elif defined(SLIPSTREAM_NEON)
constexpr int kPassVectors = 4, kKeptRows = 2, kMostRows = 4;
#else
constexpr int kPassVectors = 1, kKeptRows = 1, kMostRows = 1;
#endif
constexpr int kPasses = kColumns / (kPassVectors * kWidth);

// Adds `steps` steps of four k of a pass to the integer sums. With nibbles, each byte holds two k: `far`
// elements apart in the activations.
template <int kRows, int kBits>
SLIPSTREAM_INLINE void add_steps(const uint8_t* weights, int64_t steps, const int8_t* values, int64_t stride,
                                 int64_t far, Integers sums[kRows][kPassVectors]) {
#pragma GCC unroll 2
  for (int64_t step = 0; step < steps; step++, weights += 4 * kColumns, values += 4) {
    Bytes bytes[kPassVectors];
#pragma GCC unroll 4
    for (int v = 0; v < kPassVectors; v++) bytes[v] = load_bytes(weights + 4 * kWidth * v);
    if constexpr (kBits == 8) {
#pragma GCC unroll 16
      for (int row = 0; row < kRows; row++) {
        const Activations a = spread(values + row * stride);
#pragma GCC unroll 4
        for (int v = 0; v < kPassVectors; v++) sums[row][v] = dot(sums[row][v], bytes[v], a);
      }
    } else {
      Bytes half[kPassVectors];
#pragma GCC unroll 4
      for (int v = 0; v < kPassVectors; v++) half[v] = low_nibbles(bytes[v]);
#pragma GCC unroll 16
      for (int row = 0; row < kRows; row++) {
        const Activations a = spread(values + row * stride);
#pragma GCC unroll 4
        for (int v = 0; v < kPassVectors; v++) sums[row][v] = dot(sums[row][v], half[v], a);
      }
#pragma GCC unroll 4
      for (int v = 0; v < kPassVectors; v++) half[v] = high_nibbles(bytes[v]);
#pragma GCC unroll 16
      for (int row = 0; row < kRows; row++) {
        const Activations a = spread(values + row * stride + far);
#pragma GCC unroll 4
        for (int v = 0; v < kPassVectors; v++) sums[row][v] = dot(sums[row][v], half[v], a);
      }
    }
  }
}

// Columns [pass, pass + 1) * kPassVectors * kWidth of `out` [rows][kColumns], in groups.
template <int kRows, int kBits, bool kMinimum>
SLIPSTREAM_INLINE void grouped_pass(const QuantizedRows& rows, const PanelBlock& block, int pass,
                                    float* out) {
  constexpr bool kKept = kRows <= kKeptRows;
  constexpr int32_t kZero = kMinimum ? 0 : (kBits == 8 ? 128 : 8);
  const int64_t column = static_cast<int64_t>(pass) * kPassVectors * kWidth;
  out += column;
  Vector sums[kKept ? kRows : 1][kPassVectors];
  if constexpr (kKept) {
#pragma GCC unroll 16
    for (int row = 0; row < kRows; row++) {
#pragma GCC unroll 4
      for (int v = 0; v < kPassVectors; v++) {
        sums[row][v] = block.first ? splat(0.0f) : load(out + row * kColumns + v * kWidth);
      }
    }
  } else if (block.first) {
    for (int row = 0; row < kRows; row++) {
      for (int v = 0; v < kPassVectors; v++) store(out + row * kColumns + v * kWidth, splat(0.0f));
    }
  }
  const int64_t steps = block.group * kBits / 32, far = block.group / 2;
  const uint8_t* header = block.groups;
  const int8_t* values = rows.values;
  for (int64_t g = 0; g < block.count; g++, header += block.group_bytes, values += block.group) {
    Integers dots[kRows][kPassVectors];
#pragma GCC unroll 16
    for (int row = 0; row < kRows; row++) {
      const Integers start = splat_integer(kZero == 0 ? 0 : -kZero * rows.sums[row * rows.group_stride + g]);
#pragma GCC unroll 4
      for (int v = 0; v < kPassVectors; v++) dots[row][v] = start;
    }
    add_steps<kRows, kBits>(header + block.header_bytes + 4 * column, steps, values, rows.value_stride, far,
                            dots);
    Vector scales[kPassVectors], minimums[kPassVectors];
#pragma GCC unroll 4
    for (int v = 0; v < kPassVectors; v++) {
      const f16* place = reinterpret_cast<const f16*>(header) + column + v * kWidth;
      scales[v] = load(place, kWidth);
      if constexpr (kMinimum) minimums[v] = load(place + kColumns, kWidth);
    }
#pragma GCC unroll 16
    for (int row = 0; row < kRows; row++) {
      const float row_scale = rows.scales[row * rows.group_stride + g];
      const Vector scale = splat(row_scale);
#pragma GCC unroll 4
      for (int v = 0; v < kPassVectors; v++) {
        Vector sum = kKept ? sums[kKept ? row : 0][v] : load(out + row * kColumns + v * kWidth);
        sum = multiply_add(to_vector(dots[row][v]), multiply(scales[v], scale), sum);
        if constexpr (kMinimum) {
          const float row_sum = static_cast<float>(rows.sums[row * rows.group_stride + g]);
          sum = negative_multiply_add(minimums[v], splat(row_scale * row_sum), sum);
        }
        if constexpr (kKept) {
          sums[row][v] = sum;
        } else {
          store(out + row * kColumns + v * kWidth, sum);
        }
      }
    }
  }
  if constexpr (kKept) {
#pragma GCC unroll 16
    for (int row = 0; row < kRows; row++) {
#pragma GCC unroll 4
      for (int v = 0; v < kPassVectors; v++) store(out + row * kColumns + v * kWidth, sums[row][v]);
    }
  }
}

// The same where one scale serves a whole column: sums stay integers (in the memory of `out`) to the end. The
// block is [begin, begin + k) of the one group; `groups` is at its first weight.
template <int kRows>
SLIPSTREAM_INLINE void whole_pass(const QuantizedRows& rows, const PanelBlock& block, const float* scales,
                                  int pass, float* out) {
  const int64_t column = static_cast<int64_t>(pass) * kPassVectors * kWidth;
  out += column;
  Integers dots[kRows][kPassVectors];
#pragma GCC unroll 16
  for (int row = 0; row < kRows; row++) {
    const Integers start = splat_integer(-128 * rows.sums[row]);
#pragma GCC unroll 4
    for (int v = 0; v < kPassVectors; v++) {
      dots[row][v] = block.first ? start : load_integers(out + row * kColumns + v * kWidth);
    }
  }
  add_steps<kRows, 8>(block.groups + 4 * column, block.group / 4, rows.values, rows.value_stride, 0, dots);
#pragma GCC unroll 16
  for (int row = 0; row < kRows; row++) {
#pragma GCC unroll 4
    for (int v = 0; v < kPassVectors; v++) {
      float* place = out + row * kColumns + v * kWidth;
      if (block.last) {
        const Vector scale = multiply(load(scales + column + v * kWidth), splat(rows.scales[row]));
        store(place, multiply(to_vector(dots[row][v]), scale));
      } else {
        store_integers(place, dots[row][v]);
      }
    }
  }
}

using GroupedTile = void (*)(const QuantizedRows&, const PanelBlock&, float*);
using WholeTile = void (*)(const QuantizedRows&, const PanelBlock&, const float*, float*);

template <int kRows, int kBits, bool kMinimum>
void grouped_tile(const QuantizedRows& rows, const PanelBlock& block, float* out) {
  for (int pass = 0; pass < kPasses; pass++) grouped_pass<kRows, kBits, kMinimum>(rows, block, pass, out);
}
template <int kRows>
void whole_tile(const QuantizedRows& rows, const PanelBlock& block, const float* scales, float* out) {
  for (int pass = 0; pass < kPasses; pass++) whole_pass<kRows>(rows, block, scales, pass, out);
}

// The numbers of rows that have a tile of their own.
template <int kRows>
constexpr bool kHasTile = kRows <= kMostRows;

// The tile for at most `rows` rows (at least 1), and for how many it is.
template <int kBits, bool kMinimum>
SLIPSTREAM_INLINE GroupedTile choose_tile(int64_t rows, int* tile_rows) {
#define SLIPSTREAM_TILE(count)                     \
  if constexpr (kHasTile<count>) {                 \
    if (rows >= count) {                           \
      *tile_rows = count;                          \
      return grouped_tile<count, kBits, kMinimum>; \
    }                                              \
  }
  SLIPSTREAM_TILE(12)
  SLIPSTREAM_TILE(8)
  SLIPSTREAM_TILE(6)
  SLIPSTREAM_TILE(4)
  SLIPSTREAM_TILE(3)
  SLIPSTREAM_TILE(2)
#undef SLIPSTREAM_TILE
  *tile_rows = 1;
  return grouped_tile<1, kBits, kMinimum>;
}

SLIPSTREAM_INLINE WholeTile choose_whole_tile(int64_t rows, int* tile_rows) {
#define SLIPSTREAM_TILE(count)     \
  if constexpr (kHasTile<count>) { \
    if (rows >= count) {           \
      *tile_rows = count;          \
      return whole_tile<count>;    \
    }                              \
  }
  SLIPSTREAM_TILE(12)
  SLIPSTREAM_TILE(8)
  SLIPSTREAM_TILE(6)
  SLIPSTREAM_TILE(4)
  SLIPSTREAM_TILE(3)
  SLIPSTREAM_TILE(2)
#undef SLIPSTREAM_TILE
  *tile_rows = 1;
  return whole_tile<1>;
}

}  // namespace
}  // namespace slipstream
