// The two products of decoding: a few query rows with the keys of a chunk of tokens, and their weights with
// its values. A key or value that is in a register serves up to four rows; everything is summed up in
// float32. Lanes run along the head size. Scores and weights are [token][row].
#pragma once

#include "kernels/attention/blocks.h"

namespace slipstream {
namespace {

// Loops with as many sums as there are registers: on their own, the compiler keeps them there.
#define SLIPSTREAM_OWN_REGISTERS __attribute__((noinline))

// Whether the key/value products of bf16 with bf16 are those of vdpbf16ps.
#if defined(__AVX512BF16__)
constexpr bool kMultipliesBf16 = true;
#else
constexpr bool kMultipliesBf16 = false;
#endif

// Rows of a cache to be fetched from memory while others are worked on, spread evenly over the steps of that
// work: the processor does not fetch blocks ahead by itself. They go to the second-level cache: rows of one
// head are so regularly apart that a few sets of the first level would have to take them all.
struct FetchAhead {
  const uint8_t* const* rows;
  int64_t count, bytes, next = 0;

  // To be called with done = 1 to total.
  SLIPSTREAM_INLINE void step(int64_t done, int64_t total) {
    for (; next * total < done * count; next++) {
      for (int64_t i = 0; i < bytes; i += 64) __builtin_prefetch(rows[next] + i, 0, 2);
    }
  }
};

// Lane key * rows + row: the product of that query row with that key.
template <class K, int rows>
SLIPSTREAM_INLINE Vector dot_rows(const float* queries, int64_t pitch, const uint8_t* const* keys,
                                  int64_t offset, int64_t size) {
  constexpr int64_t kKeys = Vector::lanes / rows;
  Vector sums[Vector::lanes];
#pragma GCC unroll 16
  for (int64_t i = 0; i < Vector::lanes; i++) sums[i] = Vector(0.0f);
  int64_t d = 0;
  for (; d + Vector::lanes <= size; d += Vector::lanes) {
    Vector query[rows];
#pragma GCC unroll 4
    for (int r = 0; r < rows; r++) query[r] = Vector::load(queries + r * pitch + d);
#pragma GCC unroll 16
    for (int64_t j = 0; j < kKeys; j++) {
      const Vector key = widen(reinterpret_cast<const K*>(keys[j] + offset) + d);
#pragma GCC unroll 4
      for (int r = 0; r < rows; r++) sums[j * rows + r] = fma(query[r], key, sums[j * rows + r]);
    }
  }
  if (d < size) {
#pragma GCC unroll 16
    for (int64_t j = 0; j < kKeys; j++) {
      const Vector key = widen(reinterpret_cast<const K*>(keys[j] + offset) + d, size - d);
#pragma GCC unroll 4
      for (int r = 0; r < rows; r++) {
        sums[j * rows + r] = fma(Vector::load(queries + r * pitch + d), key, sums[j * rows + r]);
      }
    }
  }
  return sums_of_lanes(sums);
}

#if defined(__AVX512BF16__)
// The same with products of pairs of bf16.
template <class K, int rows>
SLIPSTREAM_INLINE Vector dot_rows(const bf16* queries, int64_t pitch, const uint8_t* const* keys,
                                  int64_t offset, int64_t size) {
  constexpr int64_t kKeys = Vector::lanes / rows, kStep = 2 * Vector::lanes;
  __m512 sums[Vector::lanes];
#pragma GCC unroll 16
  for (int64_t i = 0; i < Vector::lanes; i++) sums[i] = _mm512_setzero_ps();
  for (int64_t d = 0; d < size; d += kStep) {
    const __mmask32 present = _bzhi_u32(~0u, static_cast<uint32_t>(smaller(size - d, kStep)));
    __m512bh query[rows];
#pragma GCC unroll 4
    for (int r = 0; r < rows; r++) {
      query[r] = (__m512bh)_mm512_maskz_loadu_epi16(present, queries + r * pitch + d);
    }
#pragma GCC unroll 16
    for (int64_t j = 0; j < kKeys; j++) {
      const __m512bh key = (__m512bh)_mm512_maskz_loadu_epi16(present, keys[j] + offset + d * 2);
#pragma GCC unroll 4
      for (int r = 0; r < rows; r++) {
        sums[j * rows + r] = _mm512_dpbf16_ps(sums[j * rows + r], query[r], key);
      }
    }
  }
  Vector totals[Vector::lanes];
#pragma GCC unroll 16
  for (int64_t i = 0; i < Vector::lanes; i++) totals[i] = sums[i];
  return sums_of_lanes(totals);
}
#endif

// Scores of the first `padded` keys, a multiple of lanes / rows. A key is at `offset` in its token's row.
template <class K, int rows, class Query>
SLIPSTREAM_OWN_REGISTERS void multiply_keys(const Query* queries, int64_t pitch, const uint8_t* const* keys,
                                            int64_t offset, int64_t padded, int64_t size, FetchAhead& ahead,
                                            float* scores) {
  constexpr int64_t kKeys = Vector::lanes / rows;
  for (int64_t j = 0; j < padded; j += kKeys) {
    ahead.step(j + kKeys, padded);
    dot_rows<K, rows>(queries, pitch, keys + j, offset, size).store(scores + j * rows);
  }
}

// output [rows][step] = output * shrink + weights . values, over `width` vectors of the head size from d on.
template <class V, int rows, int width>
SLIPSTREAM_INLINE void add_strip(const float* weights, const uint8_t* const* values, int64_t offset,
                                 int64_t count, const float* shrink, int64_t d, int64_t size,
                                 FetchAhead& ahead, float* output, int64_t step) {
  Vector sums[rows][width];
#pragma GCC unroll 4
  for (int r = 0; r < rows; r++) {
#pragma GCC unroll 4
    for (int v = 0; v < width; v++) {
      sums[r][v] = Vector::load(output + r * step + d + v * Vector::lanes) * Vector(shrink[r]);
    }
  }
  const int64_t tail = size - d - (width - 1) * Vector::lanes;  // elements of the last vector
  for (int64_t j = 0; j < count; j++) {
    ahead.step(j + 1, count);
    const V* row = reinterpret_cast<const V*>(values[j] + offset) + d;
    Vector weight[rows];
#pragma GCC unroll 4
    for (int r = 0; r < rows; r++) weight[r] = Vector(weights[j * rows + r]);
#pragma GCC unroll 4
    for (int v = 0; v < width - 1; v++) {
      const Vector value = widen(row + v * Vector::lanes);
#pragma GCC unroll 4
      for (int r = 0; r < rows; r++) sums[r][v] = fma(weight[r], value, sums[r][v]);
    }
    row += (width - 1) * Vector::lanes;
    const Vector value = tail >= Vector::lanes ? widen(row) : widen(row, tail);
#pragma GCC unroll 4
    for (int r = 0; r < rows; r++) sums[r][width - 1] = fma(weight[r], value, sums[r][width - 1]);
  }
#pragma GCC unroll 4
  for (int r = 0; r < rows; r++) {
#pragma GCC unroll 4
    for (int v = 0; v < width; v++) sums[r][v].store(output + r * step + d + v * Vector::lanes);
  }
}

// The same over the whole head size. A value is at `offset` in its token's row.
template <class V, int rows>
SLIPSTREAM_OWN_REGISTERS void add_values(const float* weights, const uint8_t* const* values, int64_t offset,
                                         int64_t count, const float* shrink, int64_t size, FetchAhead& ahead,
                                         float* output, int64_t step) {
  constexpr int kSums = Vector::lanes == 8 ? 8 : 16, kWidth = kSums / rows < 4 ? kSums / rows : 4;
  int64_t d = 0;
  for (; size - d > (kWidth - 1) * Vector::lanes; d += kWidth * Vector::lanes) {
    add_strip<V, rows, kWidth>(weights, values, offset, count, shrink, d, size, ahead, output, step);
  }
  for (; d < size; d += Vector::lanes) {
    add_strip<V, rows, 1>(weights, values, offset, count, shrink, d, size, ahead, output, step);
  }
}

}  // namespace
}  // namespace slipstream
