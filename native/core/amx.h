// The AMX tile unit: eight tiles of up to 16 rows x 64 bytes, with tile numbers known at compile time. Every
// thread that uses tiles configures them first and releases them when it is done.
//
// With SLIPSTREAM_AMX_EMULATED the same names are a software model that computes what the instruction set
// reference says, so that code for tiles can be tested on processors without them. Everything here is in an
// anonymous namespace: the two never meet in one file.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>

#include "core/float16.h"
#include "core/isa.h"

namespace slipstream {
namespace {

struct alignas(64) TileConfiguration {
  uint8_t palette = 1;
  uint8_t start_row = 0;
  uint8_t reserved[14] = {};
  uint16_t row_bytes[16] = {};
  uint8_t rows[16] = {};
};

#if defined(SLIPSTREAM_AMX_EMULATED)

constexpr Isa kTileIsa = Isa::amx_emulated;

struct EmulatedTiles {
  TileConfiguration configuration;
  alignas(64) uint8_t data[8][16][64];
};
thread_local EmulatedTiles emulated_tiles;

inline void tile_configure(const TileConfiguration& configuration) {
  emulated_tiles.configuration = configuration;
  std::memset(emulated_tiles.data, 0, sizeof(emulated_tiles.data));
}
inline void tile_release() {
  emulated_tiles.configuration = TileConfiguration{};
  std::memset(emulated_tiles.data, 0, sizeof(emulated_tiles.data));
}

template <int kTile>
inline void tile_zero() {
  std::memset(emulated_tiles.data[kTile], 0, sizeof(emulated_tiles.data[kTile]));
}

template <int kTile>
inline void tile_load(const void* memory, int64_t stride) {
  const TileConfiguration& shape = emulated_tiles.configuration;
  tile_zero<kTile>();
  for (int row = 0; row < shape.rows[kTile]; row++) {
    std::memcpy(emulated_tiles.data[kTile][row], static_cast<const char*>(memory) + row * stride,
                shape.row_bytes[kTile]);
  }
}

template <int kTile>
inline void tile_store(void* memory, int64_t stride) {
  const TileConfiguration& shape = emulated_tiles.configuration;
  for (int row = 0; row < shape.rows[kTile]; row++) {
    std::memcpy(static_cast<char*>(memory) + row * stride, emulated_tiles.data[kTile][row],
                shape.row_bytes[kTile]);
  }
}

// The tile unit takes subnormal numbers for zero and gives zero for them.
inline float flush_subnormal(float value) {
  return std::fabs(value) < 0x1p-126f ? std::copysign(0.0f, value) : value;
}

// TDPBF16PS: even and odd products along K accumulate apart, are added, and then added to the sum.
template <int kSum, int kLeft, int kRight>
inline void tile_dot_bf16() {
  EmulatedTiles& tiles = emulated_tiles;
  const TileConfiguration& shape = tiles.configuration;
  const int columns = shape.row_bytes[kSum] / 4, pairs = shape.row_bytes[kLeft] / 4;
  for (int m = 0; m < shape.rows[kSum]; m++) {
    float products[2][16] = {};
    for (int k = 0; k < pairs; k++) {
      bf16 left[2], right[16][2];
      std::memcpy(left, tiles.data[kLeft][m] + 4 * k, sizeof(left));
      std::memcpy(right, tiles.data[kRight][k], sizeof(right));
      for (int half = 0; half < 2; half++) {
        const float factor = flush_subnormal(to_float(left[half]));
        for (int n = 0; n < columns; n++) {
          const float other = flush_subnormal(to_float(right[n][half]));
          products[half][n] = flush_subnormal(std::fma(factor, other, products[half][n]));
        }
      }
    }
    float sums[16];
    std::memcpy(sums, tiles.data[kSum][m], sizeof(sums));
    for (int n = 0; n < columns; n++) {
      const float both = flush_subnormal(products[0][n] + products[1][n]);
      sums[n] = flush_subnormal(flush_subnormal(sums[n]) + both);
    }
    std::memcpy(tiles.data[kSum][m], sums, sizeof(sums));
  }
}

// Products of bytes, four along K a lane, summed in 32 bits that wrap around.
template <int kSum, int kLeft, int kRight, class Left, class Right>
inline void emulate_tile_dot_bytes() {
  EmulatedTiles& tiles = emulated_tiles;
  const TileConfiguration& shape = tiles.configuration;
  for (int m = 0; m < shape.rows[kSum]; m++) {
    uint32_t sums[16];
    std::memcpy(sums, tiles.data[kSum][m], sizeof(sums));
    for (int k = 0; k < shape.row_bytes[kLeft] / 4; k++) {
      for (int n = 0; n < shape.row_bytes[kSum] / 4; n++) {
        for (int i = 0; i < 4; i++) {
          const int32_t left = static_cast<Left>(tiles.data[kLeft][m][4 * k + i]);
          const int32_t right = static_cast<Right>(tiles.data[kRight][k][4 * n + i]);
          sums[n] += static_cast<uint32_t>(left * right);
        }
      }
    }
    std::memcpy(tiles.data[kSum][m], sums, sizeof(sums));
  }
}

// TDPBSSD: signed by signed bytes.
template <int kSum, int kLeft, int kRight>
inline void tile_dot_i8_i8() {
  emulate_tile_dot_bytes<kSum, kLeft, kRight, int8_t, int8_t>();
}

// TDPBUSD: unsigned by signed bytes.
template <int kSum, int kLeft, int kRight>
inline void tile_dot_u8_i8() {
  emulate_tile_dot_bytes<kSum, kLeft, kRight, uint8_t, int8_t>();
}

// TDPBSUD: signed by unsigned bytes.
template <int kSum, int kLeft, int kRight>
inline void tile_dot_i8_u8() {
  emulate_tile_dot_bytes<kSum, kLeft, kRight, int8_t, uint8_t>();
}

#else

constexpr Isa kTileIsa = Isa::amx;

SLIPSTREAM_INLINE void tile_configure(const TileConfiguration& configuration) {
  __asm__ volatile("ldtilecfg %0" : : "m"(configuration));
}
SLIPSTREAM_INLINE void tile_release() { __asm__ volatile("tilerelease" : : : "memory"); }

template <int kTile>
SLIPSTREAM_INLINE void tile_zero() {
  __asm__ volatile("tilezero %%tmm%c0" : : "i"(kTile));
}

// `stride`: bytes from a row to the next.
template <int kTile>
SLIPSTREAM_INLINE void tile_load(const void* memory, int64_t stride) {
  __asm__ volatile("tileloadd (%0,%1,1), %%tmm%c2" : : "r"(memory), "r"(stride), "i"(kTile) : "memory");
}
template <int kTile>
SLIPSTREAM_INLINE void tile_store(void* memory, int64_t stride) {
  __asm__ volatile("tilestored %%tmm%c2, (%0,%1,1)" : : "r"(memory), "r"(stride), "i"(kTile) : "memory");
}

// sum [m, n] += left [m, 2k] right [k, n, 2] in bf16.
template <int kSum, int kLeft, int kRight>
SLIPSTREAM_INLINE void tile_dot_bf16() {
  __asm__ volatile("tdpbf16ps %%tmm%c2, %%tmm%c1, %%tmm%c0" : : "i"(kSum), "i"(kLeft), "i"(kRight));
}
// sum [m, n] += left [m, 4k] right [k, n, 4]: signed by signed bytes.
template <int kSum, int kLeft, int kRight>
SLIPSTREAM_INLINE void tile_dot_i8_i8() {
  __asm__ volatile("tdpbssd %%tmm%c2, %%tmm%c1, %%tmm%c0" : : "i"(kSum), "i"(kLeft), "i"(kRight));
}
// The same, unsigned (left) by signed bytes.
template <int kSum, int kLeft, int kRight>
SLIPSTREAM_INLINE void tile_dot_u8_i8() {
  __asm__ volatile("tdpbusd %%tmm%c2, %%tmm%c1, %%tmm%c0" : : "i"(kSum), "i"(kLeft), "i"(kRight));
}
// The same, signed (left) by unsigned bytes.
template <int kSum, int kLeft, int kRight>
SLIPSTREAM_INLINE void tile_dot_i8_u8() {
  __asm__ volatile("tdpbsud %%tmm%c2, %%tmm%c1, %%tmm%c0" : : "i"(kSum), "i"(kLeft), "i"(kRight));
}

#endif

// All eight tiles at their full size.
SLIPSTREAM_INLINE void tile_configure_full() {
  TileConfiguration configuration;
  for (int tile = 0; tile < 8; tile++) {
    configuration.row_bytes[tile] = 64;
    configuration.rows[tile] = 16;
  }
  tile_configure(configuration);
}

}  // namespace
}  // namespace slipstream
