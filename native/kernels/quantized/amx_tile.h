// The micro-kernels on AMX tiles, for 16 rows at a time. A tile of activations is 16 rows of a step of k as
// they lie in memory; a tile of weights is the same step of 16 columns of a panel, whose layout is that of
// the tile unit. A step is the whole group, at most 64 k.
//
// Grouped weights: a tile of integer sums lives for one group; it goes through the first-level cache to the
// vector unit, which scales it and adds it to 16 vectors of float sums in registers, while the tile unit is
// at the next group. So that no correction is due there, the weights of a block are copied as signed bytes
// first, once for all rows. Whole columns: sums stay in tiles over a block.
//
// Integers are exact and floats are added in the order of the groups, as in tile.h: results have the same
// bits.
#pragma once

#include "core/amx.h"
#include "kernels/quantized/tile.h"

namespace slipstream {
namespace {

constexpr int64_t kTileRows = 16;

SLIPSTREAM_INLINE int64_t tile_step(int64_t group) {
  return group % 64 == 0 ? 64 : (group % 32 == 0 ? 32 : 16);
}

// Tiles 0 and 1 are sums, 4 activations, 6 and 7 weights.
SLIPSTREAM_INLINE void configure_byte_tiles(int64_t step) {
  TileConfiguration configuration;
  for (int tile = 0; tile < 8; tile++) {
    configuration.row_bytes[tile] = static_cast<uint16_t>(tile == 4 ? step : 64);
    configuration.rows[tile] = static_cast<uint8_t>(tile >= 6 ? step / 4 : 16);
  }
  tile_configure(configuration);
}

// The weights of a block as bytes [group][group / 4][kColumns][4], signed but for formats with minimums.
template <int kBits, bool kMinimum>
inline void widen_block(const PanelBlock& block, uint8_t* target) {
  const int64_t group_bytes = block.group * kColumns;
  for (int64_t g = 0; g < block.count; g++, target += group_bytes) {
    const uint8_t* weights = block.groups + g * block.group_bytes + block.header_bytes;
    if constexpr (kBits == 8) {
      const __m512i flip = _mm512_set1_epi8(kMinimum ? 0 : -128);
      for (int64_t i = 0; i < group_bytes; i += 64) {
        _mm512_store_si512(target + i, _mm512_xor_si512(_mm512_loadu_si512(weights + i), flip));
      }
    } else {
      const __m512i zero = _mm512_set1_epi8(kMinimum ? 0 : 8);
      for (int64_t i = 0; i < group_bytes / 2; i += 64) {
        const Bytes bytes = load_bytes(weights + i);
        _mm512_store_si512(target + i, _mm512_sub_epi8(low_nibbles(bytes), zero));
        _mm512_store_si512(target + group_bytes / 2 + i, _mm512_sub_epi8(high_nibbles(bytes), zero));
      }
    }
  }
}

// 16 rows by half a panel's columns.
template <bool kMinimum>
SLIPSTREAM_INLINE void amx_grouped_half(const QuantizedRows& rows, const PanelBlock& block,
                                        const uint8_t* weights, int half, float* out) {
  alignas(64) float products[2][kTileRows * 16];
  Vector sums[kTileRows];
#pragma GCC unroll 16
  for (int row = 0; row < kTileRows; row++) {
    sums[row] = block.first ? splat(0.0f) : load(out + row * kColumns + half * 16);
  }
  const int64_t step = tile_step(block.group);
  for (int64_t g = 0; g < block.count; g++) {
    const int8_t* values = rows.values + g * block.group;
    const uint8_t* bytes = weights + g * block.group * kColumns + half * 64;
    if (half == 0) prefetch_ahead(block, g);
    tile_zero<0>();
    for (int64_t k = 0; k < block.group; k += step) {
      tile_load<4>(values + k, rows.value_stride);
      tile_load<6>(bytes + k * kColumns, 4 * kColumns);
      if constexpr (kMinimum) {
        tile_dot_i8_u8<0, 4, 6>();
      } else {
        tile_dot_i8_i8<0, 4, 6>();
      }
    }
    float* dots = products[g % 2];
    tile_store<0>(dots, 64);
    const f16* header = reinterpret_cast<const f16*>(block.groups + g * block.group_bytes) + half * 16;
    const Vector scales = load(header, 16);
    Vector minimums = scales;
    if constexpr (kMinimum) minimums = load(header + kColumns, 16);
    const float* row_scales = rows.scales + g;
    const int32_t* row_sums = rows.sums + g;
#pragma GCC unroll 16
    for (int row = 0; row < kTileRows; row++) {
      const Vector scale = splat(row_scales[row * rows.group_stride]);
      sums[row] = multiply_add(to_vector(load_integers(dots + row * 16)), multiply(scales, scale), sums[row]);
      if constexpr (kMinimum) {
        const Vector offset = multiply(scale, to_vector(splat_integer(row_sums[row * rows.group_stride])));
        sums[row] = negative_multiply_add(minimums, offset, sums[row]);
      }
    }
  }
#pragma GCC unroll 16
  for (int row = 0; row < kTileRows; row++) store(out + row * kColumns + half * 16, sums[row]);
}

template <bool kMinimum>
void amx_grouped_tile(const QuantizedRows& rows, const PanelBlock& block, const uint8_t* weights,
                      float* out) {
  amx_grouped_half<kMinimum>(rows, block, weights, 0, out);
  amx_grouped_half<kMinimum>(rows, block, weights, 1, out);
}

// 16 rows by a panel of which one scale serves a whole column; `block` as in whole_pass.
inline void amx_whole_tile(const QuantizedRows& rows, const PanelBlock& block, const float* scales,
                           float* out) {
  constexpr int64_t kRowBytes = kColumns * sizeof(float);
  if (block.first) {
    tile_zero<0>();
    tile_zero<1>();
  } else {
    tile_load<0>(out, kRowBytes);
    tile_load<1>(out + 16, kRowBytes);
  }
  for (int64_t k = 0; k < block.count * block.group; k += 64) {
    prefetch_ahead(block, k / block.group);
    tile_load<4>(rows.values + k, rows.value_stride);
    tile_load<6>(block.groups + k * kColumns, 4 * kColumns);
    tile_dot_i8_u8<0, 4, 6>();
    tile_load<7>(block.groups + k * kColumns + 64, 4 * kColumns);
    tile_dot_i8_u8<1, 4, 7>();
  }
  tile_store<0>(out, kRowBytes);
  tile_store<1>(out + 16, kRowBytes);
  if (!block.last) return;
  for (int row = 0; row < kTileRows; row++) {
    const Integers correction = minus_zeros<7>(rows.sums + row);
    for (int v = 0; v < 2; v++) {
      float* place = out + row * kColumns + v * 16;
      const Integers dots = _mm512_add_epi32(load_integers(place), correction);
      const Vector scale = multiply(load(scales + v * 16), splat(rows.scales[row]));
      store(place, multiply(to_vector(dots), scale));
    }
  }
}

}  // namespace
}  // namespace slipstream
