// A few query rows against a piece of a cache: bound by memory, so each key and value is read once, in
// chunks of 64 tokens, for all rows. Lanes run along the head size for the products with keys and values, and
// along the tokens for the softmax. Everything in float32.
//
// A partial result is [rows][maximum, sum, padding.. | output], the output at kPartialHeader: the softmax
// over the piece's tokens alone, in base 2, not yet divided by its sum.
#pragma once

#include "kernels/attention/blocks.h"

namespace slipstream {
namespace {

constexpr int64_t kDecodePiece = 512, kDecodeChunk = 64, kPartialHeader = 16;

SLIPSTREAM_INLINE int64_t partial_pitch(int64_t pitch) { return kPartialHeader + pitch; }

struct DecodeScratch {
  float *queries, *scores;  // [rows][pitch], times the scale; [64]

  DecodeScratch(Pieces& pieces, int64_t rows, int64_t pitch) {
    queries = pieces.take<float>(rows * pitch);
    scores = pieces.take<float>(kDecodeChunk);
  }
};

struct DecodeTask {
  Visibility visibility;
  Rows keys, values;
  int64_t first_position, queries, group_heads, begin, end, size, pitch;
};

// A row of queries in float32, times `scale`, zero behind the head size.
inline void load_query(const Rows& rows, int64_t index, float scale, int64_t size, int64_t pitch,
                       float* query) {
  copy_row(rows, index, size, pitch, query);
  for (int64_t d = 0; d < pitch; d += Vector::lanes)
    (Vector::load(query + d) * Vector(scale)).store(query + d);
}

// The slots of tokens [first, first + count), without a division a token.
inline void list_slots(const Rows& cache, int64_t first, int64_t count, int64_t* slots) {
  int64_t block = first / cache.block_size, inside = first % cache.block_size;
  for (int64_t i = 0; i < count; i++) {
    slots[i] = cache.blocks[block] * cache.block_size + inside;
    if (++inside == cache.block_size) {
      inside = 0;
      block++;
    }
  }
}

SLIPSTREAM_INLINE void fetch_ahead(const uint8_t* row, int64_t bytes) {
  for (int64_t i = 0; i < bytes; i += 64) __builtin_prefetch(row + i);
}

// Lane i: the product of the query with row i.
template <class T>
SLIPSTREAM_INLINE Vector dot_rows(const float* query, const T* const* rows, int64_t size) {
  Vector sums[Vector::lanes];
#pragma GCC unroll 16
  for (int64_t i = 0; i < Vector::lanes; i++) sums[i] = Vector(0.0f);
  int64_t d = 0;
  for (; d + Vector::lanes <= size; d += Vector::lanes) {
    const Vector left = Vector::load(query + d);
#pragma GCC unroll 16
    for (int64_t i = 0; i < Vector::lanes; i++) sums[i] = fma(left, Vector::load(rows[i] + d), sums[i]);
  }
  if (d < size) {
    const Vector left = Vector::load(query + d);
#pragma GCC unroll 16
    for (int64_t i = 0; i < Vector::lanes; i++) {
      sums[i] = fma(left, Vector::load(rows[i] + d, size - d), sums[i]);
    }
  }
  return sums_of_lanes(sums);
}

// output = output * shrink + weights . values, over `width` vectors of the head size.
template <class T, int width>
SLIPSTREAM_INLINE void add_values(const float* weights, const T* const* values, int64_t count, Vector shrink,
                                  int64_t d, int64_t size, float* output) {
  Vector sums[width];
#pragma GCC unroll 4
  for (int v = 0; v < width; v++) sums[v] = Vector::load(output + d + v * Vector::lanes) * shrink;
  const int64_t tail = size - d - (width - 1) * Vector::lanes;  // elements of the last vector
  for (int64_t j = 0; j < count; j++) {
    const Vector weight = weights[j];
#pragma GCC unroll 4
    for (int v = 0; v < width - 1; v++) {
      sums[v] = fma(weight, Vector::load(values[j] + d + v * Vector::lanes), sums[v]);
    }
    const T* last = values[j] + d + (width - 1) * Vector::lanes;
    const Vector value = tail >= Vector::lanes ? Vector::load(last) : Vector::load(last, tail);
    sums[width - 1] = fma(weight, value, sums[width - 1]);
  }
#pragma GCC unroll 4
  for (int v = 0; v < width; v++) sums[v].store(output + d + v * Vector::lanes);
}

template <class K, class V>
void decode_piece_of(const DecodeTask& task, const DecodeScratch& scratch, float* partial) {
  const int64_t rows = task.queries * task.group_heads, step = partial_pitch(task.pitch);
  const Vector nothing = -__builtin_inff();
  int64_t slots[kDecodePiece];
  list_slots(task.keys, task.begin, task.end - task.begin, slots);
  for (int64_t r = 0; r < rows; r++) {
    std::memset(partial + r * step, 0, step * sizeof(float));
    partial[r * step] = -__builtin_inff();
  }
  for (int64_t chunk = task.begin; chunk < task.end; chunk += kDecodeChunk) {
    const int64_t count = smaller(kDecodeChunk, task.end - chunk);
    const K* keys[kDecodeChunk];
    const V* values[kDecodeChunk];
    for (int64_t j = 0; j < kDecodeChunk; j++) {
      // Behind the end the last row stands in; its scores are masked.
      const int64_t slot = slots[chunk - task.begin + smaller(j, count - 1)];
      keys[j] = reinterpret_cast<const K*>(task.keys.data + slot * task.keys.stride);
      values[j] = reinterpret_cast<const V*>(task.values.data + slot * task.values.stride);
    }
    // Rows of one head lie far apart: the processor does not fetch them ahead by itself.
    const int64_t next = chunk + kDecodeChunk - task.begin;
    for (int64_t i = next; i < smaller(task.end - task.begin, next + kDecodeChunk); i++) {
      fetch_ahead(task.keys.data + slots[i] * task.keys.stride, task.size * static_cast<int64_t>(sizeof(K)));
      fetch_ahead(task.values.data + slots[i] * task.values.stride,
                  task.size * static_cast<int64_t>(sizeof(V)));
    }
    for (int64_t r = 0; r < rows; r++) {
      float* state = partial + r * step;
      const int64_t position = task.first_position + r / task.group_heads;
      const int64_t low = task.visibility.begin(position) - chunk;
      const int64_t high = smaller(count, task.visibility.end(position) - chunk);
      if (low >= count || high <= 0) continue;
      Vector top = state[0];
      for (int64_t j = 0; j < count; j += Vector::lanes) {
        const Vector score = dot_rows(scratch.queries + r * task.pitch, keys + j, task.size);
        const Vector seen = keep_lanes(score, low - j, high - j, nothing);
        seen.store(scratch.scores + j);
        top = max(seen, top);
      }
      const Vector maximum = slipstream::maximum(top);
      const Vector shrink = exp2<5>(Vector(state[0]) - maximum);
      Vector sum = 0.0f;
      for (int64_t j = 0; j < count; j += Vector::lanes) {
        const Vector weight = exp2<5>(Vector::load(scratch.scores + j) - maximum);
        weight.store(scratch.scores + j);
        sum = sum + weight;
      }
      (Vector(state[1]) * shrink + Vector(slipstream::sum(sum))).store(state + 1, 1);
      maximum.store(state, 1);
      int64_t d = 0;
      for (; task.size - d > 3 * Vector::lanes; d += 4 * Vector::lanes) {
        add_values<V, 4>(scratch.scores, values, count, shrink, d, task.size, state + kPartialHeader);
      }
      for (; d < task.size; d += Vector::lanes) {
        add_values<V, 1>(scratch.scores, values, count, shrink, d, task.size, state + kPartialHeader);
      }
    }
  }
}

template <class K>
void decode_piece_by_values(const DecodeTask& task, const DecodeScratch& scratch, float* partial) {
  if (task.values.dtype == DType::f32) {
    decode_piece_of<K, float>(task, scratch, partial);
  } else if (task.values.dtype == DType::bf16) {
    decode_piece_of<K, bf16>(task, scratch, partial);
  } else {
    decode_piece_of<K, f16>(task, scratch, partial);
  }
}

inline void decode_piece(const DecodeTask& task, const DecodeScratch& scratch, float* partial) {
  if (task.keys.dtype == DType::f32) {
    decode_piece_by_values<float>(task, scratch, partial);
  } else if (task.keys.dtype == DType::bf16) {
    decode_piece_by_values<bf16>(task, scratch, partial);
  } else {
    decode_piece_by_values<f16>(task, scratch, partial);
  }
}

// Row `index` of the output from the partial results of its pieces, `step` floats apart, in order.
inline void merge_pieces(const float* partial, int64_t step, int64_t pieces, int64_t size, const Rows& output,
                         int64_t index) {
  float top = -__builtin_inff();
  for (int64_t p = 0; p < pieces; p++) top = partial[p * step] > top ? partial[p * step] : top;
  const Vector maximum = top;
  Vector sum = 0.0f;
  for (int64_t p = 0; p < pieces; p++) {
    sum = fma(Vector(partial[p * step + 1]), exp2<5>(Vector(partial[p * step]) - maximum), sum);
  }
  const Vector factor = Vector(1.0f) / sum;
  for (int64_t d = 0; d < size; d += Vector::lanes) {
    Vector total = 0.0f;
    for (int64_t p = 0; p < pieces; p++) {
      const Vector weight = exp2<5>(Vector(partial[p * step]) - maximum);
      total = fma(Vector::load(partial + p * step + kPartialHeader + d), weight, total);
    }
    store_any(total * factor, output, index, d, smaller(Vector::lanes, size - d));
  }
}

}  // namespace
}  // namespace slipstream
