// Counter-based random numbers: the twin of src/base/random.ts, where the generator and its reference are
// described. A number depends on (key, stream, position) alone.
//
// Included by kernels' own files only: the generator is as wide as each file's instruction set.
#pragma once

#include <cstdint>

#include "core/neon_intrinsics.h"
#include "core/tensor.h"
#if defined(__AVX2__)
#include "core/x86_intrinsics.h"
#endif

namespace slipstream {
namespace {

// The key is two words (seed, step), the counter (block low, block high, stream, 0).
struct RandomStream {
  uint32_t key_low, key_high, stream;
};

constexpr uint32_t kPhiloxMultiplier0 = 0xd2511f53u, kPhiloxMultiplier1 = 0xcd9e8d57u;
constexpr uint32_t kPhiloxWeyl0 = 0x9e3779b9u, kPhiloxWeyl1 = 0xbb67ae85u;

#if defined(__AVX512F__) || defined(__AVX2__) || defined(SLIPSTREAM_NEON)

// Blocks side by side in 64-bit lanes, whose upper halves may hold rubbish: products read the lower ones.
#if defined(__AVX512F__)
struct PhiloxLanes {
  static constexpr int lanes = 8;
  __m512i value;
};
SLIPSTREAM_INLINE PhiloxLanes repeat(uint32_t word) { return {_mm512_set1_epi64(word)}; }
SLIPSTREAM_INLINE PhiloxLanes load_lanes(const uint64_t* p) { return {_mm512_loadu_si512(p)}; }
SLIPSTREAM_INLINE void store_lanes(uint64_t* p, PhiloxLanes a) { _mm512_storeu_si512(p, a.value); }
SLIPSTREAM_INLINE PhiloxLanes product(PhiloxLanes a, PhiloxLanes b) {
  return {_mm512_mul_epu32(a.value, b.value)};
}
SLIPSTREAM_INLINE PhiloxLanes upper_half(PhiloxLanes a) { return {_mm512_srli_epi64(a.value, 32)}; }
SLIPSTREAM_INLINE PhiloxLanes exclusive_or(PhiloxLanes a, PhiloxLanes b) {
  return {_mm512_xor_si512(a.value, b.value)};
}
// The lower halves of two, as one 64-bit word: `a` comes first in memory.
SLIPSTREAM_INLINE PhiloxLanes pair(PhiloxLanes a, PhiloxLanes b) {
  return {_mm512_mask_blend_epi32(0xaaaa, a.value, _mm512_slli_epi64(b.value, 32))};
}
#elif defined(__AVX2__)
struct PhiloxLanes {
  static constexpr int lanes = 4;
  __m256i value;
};
SLIPSTREAM_INLINE PhiloxLanes repeat(uint32_t word) { return {_mm256_set1_epi64x(word)}; }
SLIPSTREAM_INLINE PhiloxLanes load_lanes(const uint64_t* p) {
  return {_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p))};
}
SLIPSTREAM_INLINE void store_lanes(uint64_t* p, PhiloxLanes a) {
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), a.value);
}
SLIPSTREAM_INLINE PhiloxLanes product(PhiloxLanes a, PhiloxLanes b) {
  return {_mm256_mul_epu32(a.value, b.value)};
}
SLIPSTREAM_INLINE PhiloxLanes upper_half(PhiloxLanes a) { return {_mm256_srli_epi64(a.value, 32)}; }
SLIPSTREAM_INLINE PhiloxLanes exclusive_or(PhiloxLanes a, PhiloxLanes b) {
  return {_mm256_xor_si256(a.value, b.value)};
}
SLIPSTREAM_INLINE PhiloxLanes pair(PhiloxLanes a, PhiloxLanes b) {
  return {_mm256_blend_epi32(a.value, _mm256_slli_epi64(b.value, 32), 0xaa)};
}
#else
struct PhiloxLanes {
  static constexpr int lanes = 2;
  uint64x2_t value;
};
SLIPSTREAM_INLINE PhiloxLanes repeat(uint32_t word) { return {vdupq_n_u64(word)}; }
SLIPSTREAM_INLINE PhiloxLanes load_lanes(const uint64_t* p) { return {vld1q_u64(p)}; }
SLIPSTREAM_INLINE void store_lanes(uint64_t* p, PhiloxLanes a) { vst1q_u64(p, a.value); }
SLIPSTREAM_INLINE PhiloxLanes product(PhiloxLanes a, PhiloxLanes b) {
  return {vmull_u32(vmovn_u64(a.value), vmovn_u64(b.value))};
}
SLIPSTREAM_INLINE PhiloxLanes upper_half(PhiloxLanes a) { return {vshrq_n_u64(a.value, 32)}; }
SLIPSTREAM_INLINE PhiloxLanes exclusive_or(PhiloxLanes a, PhiloxLanes b) {
  return {veorq_u64(a.value, b.value)};
}
SLIPSTREAM_INLINE PhiloxLanes pair(PhiloxLanes a, PhiloxLanes b) {
  return {vsliq_n_u64(a.value, b.value, 32)};
}
#endif

// The words of `Blocks` consecutive Philox blocks from `first` on: words[4 * b + w].
template <int Blocks>
SLIPSTREAM_INLINE void philox_blocks(const RandomStream& random, uint64_t first, uint32_t* words) {
  constexpr int kLanes = PhiloxLanes::lanes, kGroups = Blocks / kLanes;
  static_assert(Blocks % kLanes == 0);
  const PhiloxLanes m0 = repeat(kPhiloxMultiplier0), m1 = repeat(kPhiloxMultiplier1);
  PhiloxLanes c0[kGroups], c1[kGroups], c2[kGroups], c3[kGroups];
  for (int group = 0; group < kGroups; group++) {
    uint64_t blocks[kLanes];
    for (int lane = 0; lane < kLanes; lane++)
      blocks[lane] = first + static_cast<uint64_t>(group * kLanes + lane);
    c0[group] = load_lanes(blocks);
    c1[group] = upper_half(c0[group]);
    c2[group] = repeat(random.stream);
    c3[group] = repeat(0);
  }
  uint32_t k0 = random.key_low, k1 = random.key_high;
  for (int round = 0; round < 10; round++) {
    const PhiloxLanes key0 = repeat(k0), key1 = repeat(k1);
    for (int group = 0; group < kGroups; group++) {
      const PhiloxLanes product0 = product(c0[group], m0), product1 = product(c2[group], m1);
      c0[group] = exclusive_or(exclusive_or(upper_half(product1), c1[group]), key0);
      c1[group] = product1;
      c2[group] = exclusive_or(exclusive_or(upper_half(product0), c3[group]), key1);
      c3[group] = product0;
    }
    k0 += kPhiloxWeyl0;
    k1 += kPhiloxWeyl1;
  }
  for (int group = 0; group < kGroups; group++) {
    uint64_t low[kLanes], high[kLanes];
    store_lanes(low, pair(c0[group], c1[group]));
    store_lanes(high, pair(c2[group], c3[group]));
    for (int lane = 0; lane < kLanes; lane++) {
      __builtin_memcpy(words + 4 * (group * kLanes + lane), &low[lane], 8);
      __builtin_memcpy(words + 4 * (group * kLanes + lane) + 2, &high[lane], 8);
    }
  }
}

#else

// The words of `Blocks` consecutive Philox blocks from `first` on: words[4 * b + w].
template <int Blocks>
SLIPSTREAM_INLINE void philox_blocks(const RandomStream& random, uint64_t first, uint32_t* words) {
  for (int b = 0; b < Blocks; b++) {
    const uint64_t block = first + static_cast<uint64_t>(b);
    uint32_t c0 = static_cast<uint32_t>(block), c1 = static_cast<uint32_t>(block >> 32);
    uint32_t c2 = random.stream, c3 = 0;
    uint32_t k0 = random.key_low, k1 = random.key_high;
    for (int round = 0; round < 10; round++) {
      const uint64_t product0 = uint64_t{kPhiloxMultiplier0} * c0,
                     product1 = uint64_t{kPhiloxMultiplier1} * c2;
      c0 = static_cast<uint32_t>(product1 >> 32) ^ c1 ^ k0;
      c1 = static_cast<uint32_t>(product1);
      c2 = static_cast<uint32_t>(product0 >> 32) ^ c3 ^ k1;
      c3 = static_cast<uint32_t>(product0);
      k0 += kPhiloxWeyl0;
      k1 += kPhiloxWeyl1;
    }
    words[4 * b] = c0;
    words[4 * b + 1] = c1;
    words[4 * b + 2] = c2;
    words[4 * b + 3] = c3;
  }
}

#endif

// A float in [0, 1) with 24 random bits.
SLIPSTREAM_INLINE float uniform_from_bits(uint32_t bits) { return static_cast<float>(bits >> 8) * 0x1p-24f; }

// A float64 in [0, 1) with 53 random bits, from two words.
SLIPSTREAM_INLINE double double_from_bits(uint32_t first, uint32_t second) {
  return (static_cast<double>(first >> 5) * 0x1p26 + static_cast<double>(second >> 6)) * 0x1p-53;
}

// A standard normal from two words (Box and Muller), computed in float64.
SLIPSTREAM_INLINE float normal_from_bits(uint32_t first, uint32_t second) {
  const double radius = __builtin_sqrt(-2 * __builtin_log(static_cast<double>((first >> 8) + 1) * 0x1p-24));
  const double angle = 2 * 3.14159265358979323846 * static_cast<double>(second >> 8) * 0x1p-24;
  return static_cast<float>(radius * __builtin_cos(angle));
}

}  // namespace
}  // namespace slipstream
