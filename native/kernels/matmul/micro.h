// The micro-kernels: c[rows][32] (+)= a strip times b panel, accumulators in registers, one multiply-add
// chain along K an element. A strip is [lanes][kRows] (pack.h), a panel [lanes][32].
#pragma once

#include <utility>

#include "kernels/matmul/pack.h"

#if defined(__AMX_BF16__) || defined(SLIPSTREAM_AMX_EMULATED)
#define SLIPSTREAM_TILES
#include "kernels/matmul/tile.h"
#endif

namespace slipstream {
namespace {

#if defined(__AVX2__) || defined(SLIPSTREAM_NEON)
using Wide = Vector;
SLIPSTREAM_INLINE Wide wide_splat(float value) { return splat(value); }
SLIPSTREAM_INLINE Wide wide_load(const float* p) { return load(p); }
SLIPSTREAM_INLINE void wide_store(float* p, Wide a) { store(p, a); }
SLIPSTREAM_INLINE Wide wide_multiply_add(Wide a, Wide b, Wide c) { return multiply_add(a, b, c); }
#else
typedef float Wide __attribute__((vector_size(16)));
typedef uint32_t WideBits __attribute__((vector_size(16)));
SLIPSTREAM_INLINE Wide wide_splat(float value) { return Wide{value, value, value, value}; }
SLIPSTREAM_INLINE Wide wide_load(const float* p) {
  Wide a;
  std::memcpy(&a, p, sizeof(a));
  return a;
}
SLIPSTREAM_INLINE void wide_store(float* p, Wide a) { std::memcpy(p, &a, sizeof(a)); }
SLIPSTREAM_INLINE Wide wide_multiply_add(Wide a, Wide b, Wide c) { return a * b + c; }
#endif

// The first and the second of each pair of bf16, as float32.
SLIPSTREAM_INLINE Wide wide_even(const uint32_t* p) {
#if defined(__AVX512F__)
  return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_loadu_si512(p), 16));
#elif defined(__AVX2__)
  return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)), 16));
#elif defined(SLIPSTREAM_NEON)
  return vreinterpretq_f32_u32(vshlq_n_u32(vld1q_u32(p), 16));
#else
  WideBits bits;
  std::memcpy(&bits, p, sizeof(bits));
  return reinterpret_cast<Wide>(bits << 16);
#endif
}
SLIPSTREAM_INLINE Wide wide_odd(const uint32_t* p) {
#if defined(__AVX512F__)
  return _mm512_castsi512_ps(_mm512_and_si512(_mm512_loadu_si512(p), _mm512_set1_epi32(-65536)));
#elif defined(__AVX2__)
  const __m256i bits = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p));
  return _mm256_castsi256_ps(_mm256_and_si256(bits, _mm256_set1_epi32(-65536)));
#elif defined(SLIPSTREAM_NEON)
  return vreinterpretq_f32_u32(vandq_u32(vld1q_u32(p), vdupq_n_u32(0xffff0000u)));
#else
  WideBits bits;
  std::memcpy(&bits, p, sizeof(bits));
  return reinterpret_cast<Wide>(bits & 0xffff0000u);
#endif
}

constexpr int kWideWidth = static_cast<int>(sizeof(Wide) / 4);
constexpr int kTileColumns = 2 * kWideWidth;
// Two vectors a row: 28 (AVX-512), 12 (AVX2), 24 (NEON) or 8 accumulators, beside two of b and one of a.
#if defined(__AVX512F__)
constexpr int kStripRows = 14;
#elif defined(__AVX2__)
constexpr int kStripRows = 6;
#elif defined(SLIPSTREAM_NEON)
constexpr int kStripRows = 12;
#else
constexpr int kStripRows = 4;
#endif

template <int R>
SLIPSTREAM_INLINE void start_tile(Wide sums[R][2], const float* c, int64_t stride, bool first_block) {
#pragma GCC unroll 16
  for (int r = 0; r < R; r++) {
    sums[r][0] = first_block ? wide_splat(0) : wide_load(c + r * stride);
    sums[r][1] = first_block ? wide_splat(0) : wide_load(c + r * stride + kWideWidth);
  }
}

template <int R>
SLIPSTREAM_INLINE void end_tile(const Wide sums[R][2], float* c, int64_t stride) {
#pragma GCC unroll 16
  for (int r = 0; r < R; r++) {
    wide_store(c + r * stride, sums[r][0]);
    wide_store(c + r * stride + kWideWidth, sums[r][1]);
  }
}

// With few rows the panel streams from memory: a tile asks for it this far ahead.
template <int R>
SLIPSTREAM_INLINE void prefetch_panel(const void* b) {
  if constexpr (R <= 8) {
    __builtin_prefetch(static_cast<const char*>(b) + 4096);
    __builtin_prefetch(static_cast<const char*>(b) + 4096 + 64);
  }
}

#if defined(SLIPSTREAM_NEON)
// Four elements of a to a register, as multiply-adds by lane take them: one register each would leave too few
// for the sums. Strips are whole fours wide.
template <int R, int r = 0>
SLIPSTREAM_INLINE void add_products(Wide sums[R][2], const float* a, Wide b0, Wide b1) {
  const Wide four = wide_load(a + r);
  const auto add = [&]<int lane>() {
    if constexpr (r + lane < R) {
      sums[r + lane][0] = vfmaq_laneq_f32(sums[r + lane][0], b0, four, lane);
      sums[r + lane][1] = vfmaq_laneq_f32(sums[r + lane][1], b1, four, lane);
    }
  };
  add.template operator()<0>();
  add.template operator()<1>();
  add.template operator()<2>();
  add.template operator()<3>();
  if constexpr (r + 4 < R) add_products<R, r + 4>(sums, a, b0, b1);
}
#else
template <int R>
SLIPSTREAM_INLINE void add_products(Wide sums[R][2], const float* a, Wide b0, Wide b1) {
#pragma GCC unroll 16
  for (int r = 0; r < R; r++) {
    const Wide value = wide_splat(a[r]);
    sums[r][0] = wide_multiply_add(value, b0, sums[r][0]);
    sums[r][1] = wide_multiply_add(value, b1, sums[r][1]);
  }
}
#endif

struct FloatTile {
  template <int R>
  static void run(const char* a_strip, const char* b_panel, int64_t lanes, float* c, int64_t stride,
                  bool first_block) {
    for (int column = 0; column < kPanel; column += kTileColumns) {
      const float* a = reinterpret_cast<const float*>(a_strip);
      const float* b = reinterpret_cast<const float*>(b_panel) + column;
      Wide sums[R][2];
      start_tile<R>(sums, c + column, stride, first_block);
      for (int64_t k = 0; k < lanes; k++, a += kStripRows, b += kPanel) {
        prefetch_panel<R>(b);
        add_products<R>(sums, a, wide_load(b), wide_load(b + kWideWidth));
      }
      end_tile<R>(sums, c + column, stride);
    }
  }
};

// a in float32, b in pairs of bf16: `lanes` counts pairs.
struct MixedTile {
  template <int R>
  static void run(const char* a_strip, const char* b_panel, int64_t lanes, float* c, int64_t stride,
                  bool first_block) {
    for (int column = 0; column < kPanel; column += kTileColumns) {
      const float* a = reinterpret_cast<const float*>(a_strip);
      const uint32_t* b = reinterpret_cast<const uint32_t*>(b_panel) + column;
      Wide sums[R][2];
      start_tile<R>(sums, c + column, stride, first_block);
      for (int64_t k = 0; k < lanes; k++, a += 2 * kStripRows, b += kPanel) {
        prefetch_panel<R>(b);
        add_products<R>(sums, a, wide_even(b), wide_even(b + kWideWidth));
        add_products<R>(sums, a + kStripRows, wide_odd(b), wide_odd(b + kWideWidth));
      }
      end_tile<R>(sums, c + column, stride);
    }
  }
};

#if defined(__AVX512BF16__)
// a and b in pairs of bf16.
struct PairTile {
  template <int R>
  static void run(const char* a_strip, const char* b_panel, int64_t lanes, float* c, int64_t stride,
                  bool first_block) {
    const uint32_t* a = reinterpret_cast<const uint32_t*>(a_strip);
    Wide sums[R][2];
    start_tile<R>(sums, c, stride, first_block);
    for (int64_t k = 0; k < lanes; k++, a += kStripRows, b_panel += 4 * kPanel) {
      prefetch_panel<R>(b_panel);
      const __m512bh b0 = reinterpret_cast<__m512bh>(_mm512_loadu_si512(b_panel));
      const __m512bh b1 = reinterpret_cast<__m512bh>(_mm512_loadu_si512(b_panel + 64));
#pragma GCC unroll 16
      for (int r = 0; r < R; r++) {
        const __m512bh value = reinterpret_cast<__m512bh>(_mm512_set1_epi32(static_cast<int>(a[r])));
        sums[r][0] = _mm512_dpbf16_ps(sums[r][0], value, b0);
        sums[r][1] = _mm512_dpbf16_ps(sums[r][1], value, b1);
      }
    }
    end_tile<R>(sums, c, stride);
  }
};
#endif

// Tile::run for a number of rows known at run time.
template <class Tile, int... kRowsMinusOne>
SLIPSTREAM_INLINE void run_tile(int rows, const char* a, const char* b, int64_t lanes, float* c,
                                int64_t stride, bool first_block,
                                std::integer_sequence<int, kRowsMinusOne...>) {
  using Function = void (*)(const char*, const char*, int64_t, float*, int64_t, bool);
  static constexpr Function kFunctions[] = {&Tile::template run<kRowsMinusOne + 1>...};
  kFunctions[rows - 1](a, b, lanes, c, stride, first_block);
}

// What the blocking (driver.h) needs to know of a micro-kernel:
//   kRows          rows of a strip
//   kEvenStrips    strips of a block are made equally high (the last one would be slow otherwise)
//   kPacked        dtype of the panels
//   kDepthBlock    depths of a block, a multiple of 32: a panel of 32 KiB
//   left_lanes     lanes of a packed strip
//   pack_left      packs strips; `rounded`: to bf16
//   tile           c (+)= strip times panel
//   begin, end     around the tiles of a task
template <class Tile>
struct RegisterMicro {
  static constexpr int kRows = kStripRows;
  static constexpr bool kEvenStrips = true;
  SLIPSTREAM_INLINE static void begin() {}
  SLIPSTREAM_INLINE static void end() {}
  SLIPSTREAM_INLINE static void run(int rows, const char* a, const char* b, int64_t lanes, float* c,
                                    int64_t stride, bool first_block) {
    run_tile<Tile>(rows, a, b, lanes, c, stride, first_block, std::make_integer_sequence<int, kStripRows>());
  }
};

struct FloatMicro : RegisterMicro<FloatTile> {
  static constexpr DType kPacked = DType::f32;
  static constexpr int64_t kDepthBlock = 256;
  SLIPSTREAM_INLINE static int64_t left_lanes(int64_t depth) { return depth; }
  static void pack_left(const MatrixView& a, bool, const Packing& packing) {
    pack_operand<Lane::float32, kRows>(a, packing);
  }
  static void tile(int rows, const char* a, const char* b, int64_t depth, float* c, int64_t stride,
                   bool first_block) {
    run(rows, a, b, depth, c, stride, first_block);
  }
};

struct MixedMicro : RegisterMicro<MixedTile> {
  static constexpr DType kPacked = DType::bf16;
  static constexpr int64_t kDepthBlock = 256;
  SLIPSTREAM_INLINE static int64_t left_lanes(int64_t depth) { return (depth + 1) / 2 * 2; }
  static void pack_left(const MatrixView& a, bool rounded, const Packing& packing) {
    if (rounded && a.dtype != DType::bf16) {
      pack_operand<Lane::rounded, kRows>(a, packing);
    } else {
      pack_operand<Lane::float32, kRows>(a, packing);
    }
  }
  static void tile(int rows, const char* a, const char* b, int64_t depth, float* c, int64_t stride,
                   bool first_block) {
    run(rows, a, b, (depth + 1) / 2, c, stride, first_block);
  }
};

#if defined(__AVX512BF16__)
struct PairMicro : RegisterMicro<PairTile> {
  static constexpr DType kPacked = DType::bf16;
  static constexpr int64_t kDepthBlock = 512;
  SLIPSTREAM_INLINE static int64_t left_lanes(int64_t depth) { return (depth + 1) / 2; }
  static void pack_left(const MatrixView& a, bool, const Packing& packing) {
    pack_operand<Lane::pair, kRows>(a, packing);
  }
  static void tile(int rows, const char* a, const char* b, int64_t depth, float* c, int64_t stride,
                   bool first_block) {
    run(rows, a, b, (depth + 1) / 2, c, stride, first_block);
  }
};
#endif

#if defined(SLIPSTREAM_TILES)
using Bf16Micro = TileMicro;
#elif defined(__AVX512BF16__)
using Bf16Micro = PairMicro;
#else
// Without an instruction for it, products of bf16 are float32 products of numbers that are exact in bf16.
using Bf16Micro = MixedMicro;
#endif

}  // namespace
}  // namespace slipstream
