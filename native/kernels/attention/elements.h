// Single elements of rows, for the scalar twins.
#pragma once

#include "core/float16.h"
#include "kernels/attention/problem.h"

namespace slipstream {
namespace {

inline float element(const Rows& rows, int64_t row, int64_t d) {
  const uint8_t* data = rows.row(row);
  if (rows.dtype == DType::f32) return reinterpret_cast<const float*>(data)[d];
  if (rows.dtype == DType::bf16) return to_float(reinterpret_cast<const bf16*>(data)[d]);
  if (rows.dtype == DType::i8)
    return rows.scale(row) * static_cast<float>(reinterpret_cast<const int8_t*>(data)[d]);
  return to_float(reinterpret_cast<const f16*>(data)[d]);
}

inline void store(const Rows& rows, int64_t row, int64_t d, float value) {
  uint8_t* data = rows.row(row);
  if (rows.dtype == DType::f32) {
    reinterpret_cast<float*>(data)[d] = value;
  } else if (rows.dtype == DType::bf16) {
    reinterpret_cast<bf16*>(data)[d] = to_bf16(value);
  } else {
    reinterpret_cast<f16*>(data)[d] = to_f16(value);
  }
}

inline float dot(const Rows& a, int64_t a_row, const Rows& b, int64_t b_row, int64_t size) {
  float sum = 0;
  for (int64_t d = 0; d < size; d++) sum += element(a, a_row, d) * element(b, b_row, d);
  return sum;
}

}  // namespace
}  // namespace slipstream
