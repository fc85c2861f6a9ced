// Moving blocks of up to 64 rows between tensors and the layouts that engines multiply (engine.h).
//
//   rows        [64][pitch]                 rows of a head, in the engine's element type
//   grouped     [64 / kPair][pitch][kPair]  b operand with the reduction along the rows; rows themselves
//                                           where kPair is 1
//   columns     [pitch / kPair][64][kPair]  b operand with the reduction along the head size
//   transposed  [pitch][64]                 a operand with the reduction along the rows
//
// The pitch is the head size rounded up to the engine's kPitchMultiple. Rows are zero up to a multiple of 32
// and behind the head size, so that whatever an engine reads along a reduction is defined.
#pragma once

#include <cstring>

#include "kernels/attention/engine.h"

namespace slipstream {
namespace {

template <class T>
SLIPSTREAM_INLINE void widen_row(const uint8_t* source, int64_t size, float* row) {
  const T* elements = reinterpret_cast<const T*>(source);
  int64_t d = 0;
  for (; d + Vector::lanes <= size; d += Vector::lanes) Vector::load(elements + d).store(row + d);
  if (d < size) Vector::load(elements + d, size - d).store(row + d, size - d);
}

template <class T>
SLIPSTREAM_INLINE void narrow_row(const float* row, int64_t size, Vector factor, uint8_t* target) {
  T* elements = reinterpret_cast<T*>(target);
  int64_t d = 0;
  for (; d + Vector::lanes <= size; d += Vector::lanes) (Vector::load(row + d) * factor).store(elements + d);
  if (d < size) (Vector::load(row + d, size - d) * factor).store(elements + d, size - d);
}

// A row of i8 times its scale, rounded to the element type.
template <class Element>
SLIPSTREAM_INLINE void dequantize_row(const uint8_t* source, float scale, int64_t size, Element* row) {
  const int8_t* elements = reinterpret_cast<const int8_t*>(source);
  const Vector factor = scale;
  int64_t d = 0;
  for (; d + Vector::lanes <= size; d += Vector::lanes) (widen(elements + d) * factor).store(row + d);
  if (d < size) (widen(elements + d, size - d) * factor).store(row + d, size - d);
}

// Row `index` in the element type of `row`, zero from the head size up to the pitch. bf16 comes from bf16 or
// i8.
template <class Element>
SLIPSTREAM_INLINE void copy_row(const Rows& source, int64_t index, int64_t size, int64_t pitch,
                                Element* row) {
  constexpr bool kBf16 = sizeof(Element) == 2;
  const uint8_t* from = source.row(index);
  if (source.dtype == DType::i8) {
    dequantize_row(from, source.scale(index), size, row);
  } else if (kBf16 || source.dtype == DType::f32) {
    std::memcpy(row, from, size * sizeof(Element));
  } else if constexpr (!kBf16) {
    if (source.dtype == DType::bf16) {
      widen_row<bf16>(from, size, row);
    } else {
      widen_row<f16>(from, size, row);
    }
  }
  if (size < pitch) std::memset(row + size, 0, (pitch - size) * sizeof(Element));
}

// Rows [first, first + count), padded with zeros to a multiple of 32 rows.
template <class Element>
void copy_rows(const Rows& source, int64_t first, int64_t count, int64_t size, int64_t pitch, Element* rows) {
  for (int64_t i = 0; i < count; i++) copy_row(source, first + i, size, pitch, rows + i * pitch);
  std::memset(rows + count * pitch, 0, (round_up(count, 32) - count) * pitch * sizeof(Element));
}

// rows -> grouped; returns where the grouped block is.
template <class Engine>
const typename Engine::Element* group_rows(const typename Engine::Element* rows, int64_t count, int64_t pitch,
                                           [[maybe_unused]] typename Engine::Element* grouped) {
  if constexpr (Engine::kPair == 1) {
    return rows;
  } else {
    for (int64_t i = 0; i < round_up(count, 32); i += 2) {
      const typename Engine::Element* even = rows + i * pitch;
      for (int64_t d = 0; d < pitch; d += 16)
        Engine::join(even + d, even + pitch + d, grouped + i * pitch + d * 2);
    }
    return grouped;
  }
}

// Transposes 32-bit units: [row_count][source_pitch] -> [column_count][target_pitch], the counts rounded up
// to whole vectors.
template <class Element>
void transpose_units(const Element* source, int64_t row_count, int64_t column_count, int64_t source_pitch,
                     Element* target, int64_t target_pitch) {
  const float* from = reinterpret_cast<const float*>(source);
  float* to = reinterpret_cast<float*>(target);
  for (int64_t r = 0; r < row_count; r += Vector::lanes) {
    for (int64_t c = 0; c < column_count; c += Vector::lanes) {
      Vector units[Vector::lanes];
#pragma GCC unroll 16
      for (int64_t i = 0; i < Vector::lanes; i++) units[i] = Vector::load(from + (r + i) * source_pitch + c);
      transpose_lanes(units);
#pragma GCC unroll 16
      for (int64_t i = 0; i < Vector::lanes; i++) units[i].store(to + (c + i) * target_pitch + r);
    }
  }
}

// rows -> columns.
template <class Engine>
void columns_of_rows(const typename Engine::Element* rows, int64_t count, int64_t pitch,
                     typename Engine::Element* columns) {
  transpose_units(rows, round_up(count, 32), pitch / Engine::kPair, pitch / Engine::kPair, columns,
                  kAttentionBlock);
}

// grouped -> transposed.
template <class Engine>
void transpose_grouped(const typename Engine::Element* grouped, int64_t count, int64_t pitch,
                       typename Engine::Element* transposed) {
  transpose_units(grouped, round_up(count, 32) / Engine::kPair, pitch, pitch, transposed,
                  kAttentionBlock / Engine::kPair);
}

SLIPSTREAM_INLINE void store_any(Vector value, const Rows& target, int64_t row, int64_t d, int64_t count) {
  uint8_t* data = target.row(row) + d * bytes_per_element(target.dtype);
  if (target.dtype == DType::f32) {
    value.store(reinterpret_cast<float*>(data), count);
  } else if (target.dtype == DType::bf16) {
    value.store(reinterpret_cast<bf16*>(data), count);
  } else {
    value.store(reinterpret_cast<f16*>(data), count);
  }
}

// source [size][64] float32 -> rows [first, first + count) of the target, column i times factors[i].
inline void store_transposed(const float* source, const float* factors, int64_t count, int64_t size,
                             const Rows& target, int64_t first) {
  for (int64_t q = 0; q < count; q += Vector::lanes) {
    const Vector factor = Vector::load(factors + q);
    for (int64_t d = 0; d < size; d += Vector::lanes) {
      Vector values[Vector::lanes];
#pragma GCC unroll 16
      for (int64_t i = 0; i < Vector::lanes; i++) {
        values[i] = Vector::load(source + (d + i) * kAttentionBlock + q) * factor;
      }
      transpose_lanes(values);
      for (int64_t i = 0; i < smaller(Vector::lanes, count - q); i++) {
        store_any(values[i], target, first + q + i, d, smaller(Vector::lanes, size - d));
      }
    }
  }
}

// source [count][pitch] float32 -> rows of the target, all times `factor`.
inline void store_rows(const float* source, int64_t pitch, float factor, int64_t count, int64_t size,
                       const Rows& target, int64_t first) {
  for (int64_t i = 0; i < count; i++) {
    uint8_t* row = target.row(first + i);
    if (target.dtype == DType::f32) {
      narrow_row<float>(source + i * pitch, size, factor, row);
    } else if (target.dtype == DType::bf16) {
      narrow_row<bf16>(source + i * pitch, size, factor, row);
    } else {
      narrow_row<f16>(source + i * pitch, size, factor, row);
    }
  }
}

// Scores of the keys [key, key + keys) for the queries at positions [position, position + queries), as
// [padded_keys][64]: each times `scale`, and minus infinity where a query does not see the key or where there
// is no such key or query.
inline void mask_scores(const Visibility& visibility, int64_t key, int64_t keys, int64_t padded_keys,
                        int64_t position, int64_t queries, int64_t columns, float scale, float* scores) {
  const Vector nothing = -__builtin_inff(), factor = scale;
  for (int64_t j = 0; j < padded_keys; j++, scores += kAttentionBlock) {
    int64_t low = 0, high = j < keys ? queries : 0;
    if (visibility.causal) low = larger(low, key + j - position);
    if (visibility.window > 0) high = smaller(high, key + j + visibility.window - position);
    for (int64_t c = 0; c < columns; c += Vector::lanes) {
      keep_lanes(Vector::load(scores + c) * factor, low - c, high - c, nothing).store(scores + c);
    }
  }
}

// Whether a tile holds pairs that do not see each other, or padding that a reduction would run over.
template <class Engine>
SLIPSTREAM_INLINE bool needs_mask(const Visibility& visibility, int64_t key, int64_t keys, int64_t position,
                                  int64_t queries) {
  return keys % Engine::kReductionMultiple != 0 || queries % 32 != 0 ||
         (visibility.causal && key + keys - 1 > position) ||
         (visibility.window > 0 && position + queries - 1 - key >= visibility.window);
}

}  // namespace
}  // namespace slipstream
