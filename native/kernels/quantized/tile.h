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
  // What comes from memory next: the first pass over each group asks for so many cache lines of it.
  const uint8_t* ahead = nullptr;
  int64_t ahead_lines = 0;
};

// Asks for the share of what comes next that belongs to group `g`.
SLIPSTREAM_INLINE void prefetch_ahead(const PanelBlock& block, int64_t g) {
  const uint8_t* line = block.ahead + g * block.ahead_lines * 64;
  for (int64_t i = 0; i < block.ahead_lines; i++) __builtin_prefetch(line + 64 * i, 0, 2);
}

// Register blocking: kMostRows rows by kPassVectors vectors, integer and float sums both in registers.
#if defined(__AVX512F__)
constexpr int kPassVectors = 2, kMostRows = 6;
#elif defined(__AVX2__)
constexpr int kPassVectors = 2, kMostRows = 2;
#elif defined(SLIPSTREAM_NEON)
constexpr int kPassVectors = 2, kMostRows = 4;
#else
constexpr int kPassVectors = 1, kMostRows = 1;
#endif
constexpr int kPasses = kColumns / (kPassVectors * kWidth);

// The activations of kRows rows: one pointer for three rows, which an address reaches by adding the stride
// once or twice, so that the pointers of all rows fit the registers.
template <int kRows>
struct RowPointers {
  const int8_t* first[(kRows + 2) / 3];
  int64_t stride;

  SLIPSTREAM_INLINE RowPointers(const int8_t* values, int64_t row_stride) : stride(row_stride) {
#pragma GCC unroll 4
    for (int i = 0; i < (kRows + 2) / 3; i++) first[i] = values + 3 * i * row_stride;
  }
  SLIPSTREAM_INLINE Activations at(int row, int64_t k) const {
    return spread(first[row / 3] + row % 3 * stride + k);
  }
};

// Adds one step of four k of each row to the integer sums.
template <int kRows>
SLIPSTREAM_INLINE void add_step(const Bytes bytes[kPassVectors], const RowPointers<kRows>& rows, int64_t k,
                                Integers sums[kRows][kPassVectors]) {
#pragma GCC unroll 8
  for (int row = 0; row < kRows; row++) {
    const Activations a = rows.at(row, k);
#pragma GCC unroll 4
    for (int v = 0; v < kPassVectors; v++) sums[row][v] = dot(sums[row][v], bytes[v], a);
  }
}

// Adds step `step` of the weights of a pass; with nibbles, each byte holds two k, `far` apart.
template <int kRows, int kBits>
SLIPSTREAM_INLINE void add_weights(const uint8_t* weights, int64_t step, const RowPointers<kRows>& rows,
                                   int64_t far, Integers sums[kRows][kPassVectors]) {
  Bytes bytes[kPassVectors];
#pragma GCC unroll 4
  for (int v = 0; v < kPassVectors; v++)
    bytes[v] = load_bytes(weights + step * 4 * kColumns + 4 * kWidth * v);
  if constexpr (kBits == 8) {
    add_step<kRows>(bytes, rows, 4 * step, sums);
  } else {
    Bytes half[kPassVectors];
#pragma GCC unroll 4
    for (int v = 0; v < kPassVectors; v++) half[v] = low_nibbles(bytes[v]);
    add_step<kRows>(half, rows, 4 * step, sums);
#pragma GCC unroll 4
    for (int v = 0; v < kPassVectors; v++) half[v] = high_nibbles(bytes[v]);
    add_step<kRows>(half, rows, 4 * step + far, sums);
  }
}

// All steps of a group: kSteps of them, known when this is compiled, or `steps` where kSteps is 0.
template <int kRows, int kBits, int kSteps>
SLIPSTREAM_INLINE void add_group(const uint8_t* weights, int64_t steps, const int8_t* values, int64_t stride,
                                 int64_t far, Integers sums[kRows][kPassVectors]) {
  RowPointers<kRows> rows(values, stride);
  if constexpr (kSteps > 0) {
#pragma GCC unroll 8
    for (int step = 0; step < kSteps; step++) {
      add_weights<kRows, kBits>(weights, step, rows, kSteps * 32 / kBits / 2, sums);
    }
  } else {
    // Groups are multiples of 16: steps are even.
    for (int64_t step = 0; step < steps; step += 2) {
      add_weights<kRows, kBits>(weights, step, rows, far, sums);
      add_weights<kRows, kBits>(weights, step + 1, rows, far, sums);
    }
  }
}

// Columns [pass, pass + 1) * kPassVectors * kWidth of `out` [rows][kColumns], in groups.
template <int kRows, int kBits, bool kMinimum, int kSteps>
SLIPSTREAM_INLINE void grouped_pass(const QuantizedRows& rows, const PanelBlock& block, int pass,
                                    float* out) {
  const int64_t column = static_cast<int64_t>(pass) * kPassVectors * kWidth;
  out += column;
  Vector sums[kRows][kPassVectors];
#pragma GCC unroll 8
  for (int row = 0; row < kRows; row++) {
#pragma GCC unroll 4
    for (int v = 0; v < kPassVectors; v++) {
      sums[row][v] = block.first ? splat(0.0f) : load(out + row * kColumns + v * kWidth);
    }
  }
  const int64_t steps = block.group * kBits / 32, far = block.group / 2;
  const int64_t group = kSteps > 0 ? kSteps * 32 / kBits : block.group;
  const uint8_t* header = block.groups;
  const int8_t* values = rows.values;
  for (int64_t g = 0; g < block.count; g++, header += block.group_bytes, values += group) {
    if (pass == 0) prefetch_ahead(block, g);
    Integers dots[kRows][kPassVectors];
#pragma GCC unroll 8
    for (int row = 0; row < kRows; row++) {
      const int32_t* sum = rows.sums + row * rows.group_stride + g;
      const Integers start = kMinimum ? splat_integer(0) : minus_zeros < kBits == 8 ? 7 : 3 > (sum);
#pragma GCC unroll 4
      for (int v = 0; v < kPassVectors; v++) dots[row][v] = start;
    }
    add_group<kRows, kBits, kSteps>(header + block.header_bytes + 4 * column, steps, values,
                                    rows.value_stride, far, dots);
    Vector scales[kPassVectors], minimums[kPassVectors];
#pragma GCC unroll 4
    for (int v = 0; v < kPassVectors; v++) {
      const f16* place = reinterpret_cast<const f16*>(header) + column + v * kWidth;
      scales[v] = load(place, kWidth);
      if constexpr (kMinimum) minimums[v] = load(place + kColumns, kWidth);
    }
#pragma GCC unroll 8
    for (int row = 0; row < kRows; row++) {
      const Vector scale = splat(rows.scales[row * rows.group_stride + g]);
      Vector offset = scale;
      if constexpr (kMinimum) {
        offset = multiply(scale, to_vector(splat_integer(rows.sums[row * rows.group_stride + g])));
      }
#pragma GCC unroll 4
      for (int v = 0; v < kPassVectors; v++) {
        sums[row][v] = multiply_add(to_vector(dots[row][v]), multiply(scales[v], scale), sums[row][v]);
        if constexpr (kMinimum) sums[row][v] = negative_multiply_add(minimums[v], offset, sums[row][v]);
      }
    }
  }
#pragma GCC unroll 8
  for (int row = 0; row < kRows; row++) {
#pragma GCC unroll 4
    for (int v = 0; v < kPassVectors; v++) store(out + row * kColumns + v * kWidth, sums[row][v]);
  }
}

// The same where one scale serves a whole column: sums stay integers (in the memory of `out`) to the end. The
// block is a part of the one group, in pieces of kPieceSteps steps.
constexpr int kPieceSteps = 8;
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
  for (int64_t g = 0; g < block.count; g++) {
    if (pass == 0) prefetch_ahead(block, g);
    add_group<kRows, 8, kPieceSteps>(block.groups + g * block.group_bytes + 4 * column, 0,
                                     rows.values + g * block.group, rows.value_stride, 0, dots);
  }
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

template <int kRows, int kBits, bool kMinimum, int kSteps>
void grouped_tile(const QuantizedRows& rows, const PanelBlock& block, float* out) {
  for (int pass = 0; pass < kPasses; pass++) {
    grouped_pass<kRows, kBits, kMinimum, kSteps>(rows, block, pass, out);
  }
}
template <int kRows>
void whole_tile(const QuantizedRows& rows, const PanelBlock& block, const float* scales, float* out) {
  for (int pass = 0; pass < kPasses; pass++) whole_pass<kRows>(rows, block, scales, pass, out);
}

template <int kBits, bool kMinimum, int kSteps>
SLIPSTREAM_INLINE GroupedTile grouped_tile_of(int rows) {
  switch (rows) {
#define SLIPSTREAM_TILE(count)                                                             \
  case count:                                                                              \
    if constexpr (count <= kMostRows) return grouped_tile<count, kBits, kMinimum, kSteps>; \
    break;
    SLIPSTREAM_TILE(2)
    SLIPSTREAM_TILE(3)
    SLIPSTREAM_TILE(4)
    SLIPSTREAM_TILE(5)
    SLIPSTREAM_TILE(6)
#undef SLIPSTREAM_TILE
  }
  return grouped_tile<1, kBits, kMinimum, kSteps>;
}

// The tile for `rows` rows, at most kMostRows.
template <int kBits, bool kMinimum>
SLIPSTREAM_INLINE GroupedTile choose_tile(int rows, int64_t group) {
  if (group == 32) return grouped_tile_of<kBits, kMinimum, kBits>(rows);
  if constexpr (kBits == 8 && !kMinimum) {
    if (group == 16) return grouped_tile_of<kBits, kMinimum, 4>(rows);
  }
  return grouped_tile_of<kBits, kMinimum, 0>(rows);
}

SLIPSTREAM_INLINE WholeTile choose_whole_tile(int rows) {
  switch (rows) {
#define SLIPSTREAM_TILE(count)                                  \
  case count:                                                   \
    if constexpr (count <= kMostRows) return whole_tile<count>; \
    break;
    SLIPSTREAM_TILE(2)
    SLIPSTREAM_TILE(3)
    SLIPSTREAM_TILE(4)
    SLIPSTREAM_TILE(5)
    SLIPSTREAM_TILE(6)
#undef SLIPSTREAM_TILE
  }
  return whole_tile<1>;
}

// The rows of the next tile where `rows` are left: as even as they can be cut.
SLIPSTREAM_INLINE int next_tile_rows(int64_t rows) {
  const int64_t tiles = (rows + kMostRows - 1) / kMostRows;
  return static_cast<int>((rows + tiles - 1) / tiles);
}

}  // namespace
}  // namespace slipstream
