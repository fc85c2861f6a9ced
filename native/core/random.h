// Counter-based random numbers: the twin of src/base/random.ts, where the generator and its reference are
// described. A number depends on (key, stream, position) alone.
//
// Included by kernels' own files only: the batch loops are vectorised by the compiler for each file's
// instruction set.
#pragma once

#include <cstdint>

#include "core/tensor.h"

namespace slipstream {
namespace {

// The key is two words (seed, step), the counter (block low, block high, stream, 0).
struct RandomStream {
  uint32_t key_low, key_high, stream;
};

// The words of `Blocks` consecutive Philox blocks from `first` on: words[4 * b + w].
template <int Blocks>
SLIPSTREAM_INLINE void philox_blocks(const RandomStream& random, uint64_t first, uint32_t* words) {
  uint32_t c0[Blocks], c1[Blocks], c2[Blocks], c3[Blocks];
  for (int b = 0; b < Blocks; b++) {
    const uint64_t block = first + static_cast<uint64_t>(b);
    c0[b] = static_cast<uint32_t>(block);
    c1[b] = static_cast<uint32_t>(block >> 32);
    c2[b] = random.stream;
    c3[b] = 0;
  }
  uint32_t k0 = random.key_low, k1 = random.key_high;
  for (int round = 0; round < 10; round++) {
    for (int b = 0; b < Blocks; b++) {
      const uint64_t product0 = uint64_t{0xd2511f53u} * c0[b], product1 = uint64_t{0xcd9e8d57u} * c2[b];
      c0[b] = static_cast<uint32_t>(product1 >> 32) ^ c1[b] ^ k0;
      c1[b] = static_cast<uint32_t>(product1);
      c2[b] = static_cast<uint32_t>(product0 >> 32) ^ c3[b] ^ k1;
      c3[b] = static_cast<uint32_t>(product0);
    }
    k0 += 0x9e3779b9u;
    k1 += 0xbb67ae85u;
  }
  for (int b = 0; b < Blocks; b++) {
    words[4 * b] = c0[b];
    words[4 * b + 1] = c1[b];
    words[4 * b + 2] = c2[b];
    words[4 * b + 3] = c3[b];
  }
}

// A float in [0, 1) with 24 random bits.
SLIPSTREAM_INLINE float uniform_from_bits(uint32_t bits) { return static_cast<float>(bits >> 8) * 0x1p-24f; }

// A standard normal from two words (Box and Muller), computed in float64.
SLIPSTREAM_INLINE float normal_from_bits(uint32_t first, uint32_t second) {
  const double radius = __builtin_sqrt(-2 * __builtin_log(static_cast<double>((first >> 8) + 1) * 0x1p-24));
  const double angle = 2 * 3.14159265358979323846 * static_cast<double>(second >> 8) * 0x1p-24;
  return static_cast<float>(radius * __builtin_cos(angle));
}

}  // namespace
}  // namespace slipstream
