// The micro-kernel on AMX tiles: 32 rows x 32 columns of sums in four tiles, two tiles of a and two of b for
// 32 depths. A strip is [depth / 32][2][16 rows][32 depths], so that each tile of a is 1 KiB in one piece
// (rows at the stride of a large matrix would compete for a few cache sets); tiles of b are 16 pairs by 16
// columns of a panel, 128 bytes from row to row.
#pragma once

#include "core/amx.h"
#include "kernels/matmul/pack.h"

namespace slipstream {
namespace {

constexpr int64_t kTileLanes = 16 * 16;  // of a tile: 1 KiB

SLIPSTREAM_INLINE void store_tile_row(uint32_t* strip, int64_t depth_tile, int row, Lanes pairs) {
  store_lanes(strip + (depth_tile * 2 + row / 16) * kTileLanes + row % 16 * 16, pairs, 16);
}

template <class S>
void pack_tiles(const S* source, int64_t stride, bool depth_contiguous, const Packing& packing) {
  const int64_t depth_tiles = packing.lanes / 16;
  for (int64_t tile = 0; tile < depth_tiles; tile++) {
    const int64_t k = packing.depth_begin + tile * 32;
    const int rest = static_cast<int>(packing.depth - tile * 32 < 32 ? packing.depth - tile * 32 : 32);
    for (int64_t begin = packing.begin; begin < packing.end; begin += packing.step) {
      uint32_t* strip = packing.panel(begin);
      const int count = packing.count(begin);
      for (int row = 0; row < count; row += 16) {
        const int rows = count - row < 16 ? count - row : 16;
        Lanes group[16];
        if (depth_contiguous) {
          for (int i = 0; i < 16; i++) {
            group[i] = i < rows ? load_pairs(source + (begin + row + i) * stride + k, rest) : no_lanes();
          }
        } else {
          for (int pair = 0; pair < 16; pair++) {
            const S* p = source + (k + 2 * pair) * stride + begin + row;
            group[pair] = 2 * pair < rest ? load_bf16_bits(p, rows) : no_lanes();
            if (2 * pair + 1 < rest) group[pair] = join_halves(group[pair], load_bf16_bits(p + stride, rows));
          }
          transpose(group);
        }
        for (int i = 0; i < 16; i++) store_tile_row(strip, tile, row + i, group[i]);
      }
    }
  }
}

struct TileMicro {
  static constexpr int kRows = 32;
  static constexpr bool kEvenStrips = false;
  static constexpr DType kPacked = DType::bf16;
  static constexpr int64_t kDepthBlock = 512;
  SLIPSTREAM_INLINE static int64_t left_lanes(int64_t depth) { return (depth + 31) / 32 * 16; }
  SLIPSTREAM_INLINE static void begin() { tile_configure_full(); }
  SLIPSTREAM_INLINE static void end() { tile_release(); }

  static void pack_left(const MatrixView& a, bool, const Packing& packing) {
    with_type(a.dtype, a.data,
              [&](const auto* source) { pack_tiles(source, a.stride, a.depth_contiguous, packing); });
  }

  // Sums in tiles 0 to 3, a in 4 and 5, b in 6 and 7. Four loads (8 cycles each) hide behind four products
  // (16 each). Writes whole tiles: 16 or 32 rows of c.
  static void tile(int rows, const char* a, const char* b, int64_t depth, float* c, int64_t stride,
                   bool first_block) {
    const int64_t row_bytes = stride * 4;
    float* lower = c + 16 * stride;
    const bool two = rows > 16;
    if (first_block) {
      tile_zero<0>();
      tile_zero<1>();
      tile_zero<2>();
      tile_zero<3>();
    } else {
      tile_load<0>(c, row_bytes);
      tile_load<1>(c + 16, row_bytes);
      if (two) tile_load<2>(lower, row_bytes);
      if (two) tile_load<3>(lower + 16, row_bytes);
    }
    for (int64_t k = 0; k < depth; k += 32, a += 8 * kTileLanes, b += 16 * 4 * kPanel) {
      tile_load<6>(b, 4 * kPanel);
      tile_load<4>(a, 64);
      tile_dot_bf16<0, 4, 6>();
      tile_load<7>(b + 64, 4 * kPanel);
      tile_dot_bf16<1, 4, 7>();
      if (two) {
        tile_load<5>(a + 4 * kTileLanes, 64);
        tile_dot_bf16<2, 5, 6>();
        tile_dot_bf16<3, 5, 7>();
      }
    }
    tile_store<0>(c, row_bytes);
    tile_store<1>(c + 16, row_bytes);
    if (two) tile_store<2>(lower, row_bytes);
    if (two) tile_store<3>(lower + 16, row_bytes);
  }
};

}  // namespace
}  // namespace slipstream
