// Masks of tiles of attention to a block of keys (block.h), and rows of sums that go on from what was there.
#pragma once

#include "kernels/attention/block.h"
#include "kernels/attention/blocks.h"

namespace slipstream {
namespace {

// Whether a tile holds pairs that do not see each other, or padding that a reduction would run over.
template <class Engine>
SLIPSTREAM_INLINE bool block_needs_mask(const QueryTile& queries, const KeyTile& keys, int64_t key_count) {
  return key_count % Engine::kReductionMultiple != 0 || queries.count % 32 != 0 ||
         !keys.is_seen_whole(queries);
}

// Scores [padded_keys][64] of keys at `places`: each times `scale`, and minus infinity where a query does not
// see the key or where there is no such key or query. Places are compared as float32, counted from the tile's
// first one: exact as long as a tile spans less than 2^24 tokens.
inline void mask_block_scores(const QueryTile& queries, const KeyTile& tile, const int32_t* places,
                              int64_t keys, int64_t padded_keys, int64_t columns, float scale,
                              float* scores) {
  alignas(64) float low[kAttentionBlock], high[kAttentionBlock];
  const int32_t base = tile.least > 0 ? tile.least : 0, span = tile.greatest - base + 1;
  for (int64_t c = 0; c < kAttentionBlock; c++) {
    const bool present = c < queries.count;
    const int32_t from = present ? queries.low[c] - base : 1, to = present ? queries.high[c] - base : 0;
    low[c] = static_cast<float>(from < 0 ? 0 : from > span ? span : from);
    high[c] = static_cast<float>(to < 0 ? 0 : to > span ? span : to);
  }
  const Vector nothing = -__builtin_inff(), factor = scale;
  for (int64_t j = 0; j < padded_keys; j++, scores += kAttentionBlock) {
    // A place of padding is below 0, and so is that of a key that is not there.
    const Vector place = j < keys && places[j] >= 0 ? static_cast<float>(places[j] - base) : -1.0f;
    for (int64_t c = 0; c < columns; c += Vector::lanes) {
      const Vector score = Vector::load(scores + c) * factor;
      const Vector below_high = select(less(place, Vector::load(high + c)), score, nothing);
      select(less(place, Vector::load(low + c)), nothing, below_high).store(scores + c);
    }
  }
}

// Rows of float32 that a target's rows are added to; null for none.
SLIPSTREAM_INLINE Rows sums_so_far(const Tensor* before, int64_t head) {
  return before == nullptr ? Rows{} : head_rows(*before, 0, head);
}

// Adds `count` elements of the row so far from element `d` on.
SLIPSTREAM_INLINE Vector add_before(Vector value, const Rows& before, int64_t row, int64_t d, int64_t count) {
  if (before.data == nullptr) return value;
  return value + Vector::load(reinterpret_cast<const float*>(before.row(row)) + d, count);
}

// source [size][64] float32 times `factor`, added to what was there -> rows [first, first + count) of
// float32.
inline void add_transposed(const float* source, float factor, int64_t count, int64_t size, const Rows& before,
                           const Rows& target, int64_t first) {
  for (int64_t q = 0; q < count; q += Vector::lanes) {
    for (int64_t d = 0; d < size; d += Vector::lanes) {
      const int64_t width = smaller(Vector::lanes, size - d);
      Vector values[Vector::lanes];
#pragma GCC unroll 16
      for (int64_t i = 0; i < Vector::lanes; i++) {
        values[i] = Vector::load(source + (d + i) * kAttentionBlock + q) * Vector(factor);
      }
      transpose_lanes(values);
      for (int64_t i = 0; i < smaller(Vector::lanes, count - q); i++) {
        const int64_t row = first + q + i;
        store_any(add_before(values[i], before, row, d, width), target, row, d, width);
      }
    }
  }
}

// source [count][pitch] float32 times `factor`, or zeros, added to what was there -> rows of float32.
inline void add_rows(const float* source, int64_t pitch, float factor, int64_t count, int64_t size,
                     const Rows& before, const Rows& target, int64_t first) {
  if (source == nullptr && before.data == target.data) return;
  for (int64_t i = 0; i < count; i++) {
    for (int64_t d = 0; d < size; d += Vector::lanes) {
      const int64_t width = smaller(Vector::lanes, size - d);
      const Vector value =
          source == nullptr ? Vector(0.0f) : Vector::load(source + i * pitch + d) * Vector(factor);
      store_any(add_before(value, before, first + i, d, width), target, first + i, d, width);
    }
  }
}

}  // namespace
}  // namespace slipstream
