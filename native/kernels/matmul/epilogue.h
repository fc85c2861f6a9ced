// What happens to finished sums: bias, activation, residual, accumulation, one rounding.
#pragma once

#include "kernels/matmul/activation.h"

namespace slipstream {
namespace {

SLIPSTREAM_INLINE Vector load_float(DType dtype, const void* data, int64_t index, int count) {
  Vector value;
  with_type(dtype, data, [&](const auto* p) { value = load(p + index, count); });
  return value;
}

SLIPSTREAM_INLINE void store_float(DType dtype, void* data, int64_t index, Vector value, int count) {
  with_type(dtype, data, [&](auto* p) { store(p + index, value, count); });
}

// Finishes sums [rows][columns] that belong at (row, column) of the output.
inline __attribute__((noinline)) void finish_tile(const Epilogue& epilogue, const float* sums, int64_t stride,
                                                  int64_t row, int rows, int64_t column, int columns) {
  for (int r = 0; r < rows; r++, sums += stride) {
    const int64_t index = (row + r) * epilogue.stride + column;
    for (int j = 0; j < columns; j += kWidth) {
      const int count = columns - j < kWidth ? columns - j : kWidth;
      Vector value = load(sums + j);
      if (epilogue.bias != nullptr) {
        value = add(value, load_float(epilogue.bias_dtype, epilogue.bias, column + j, count));
      }
      if (epilogue.activation != Activation::none) value = activate(epilogue.activation, value);
      if (epilogue.residual != nullptr) {
        value = add(value, load_float(epilogue.residual_dtype, epilogue.residual, index + j, count));
      }
      if (epilogue.accumulate) {
        value = add(value, load_float(epilogue.dtype, epilogue.output, index + j, count));
      }
      store_float(epilogue.dtype, epilogue.output, index + j, value, count);
    }
  }
}

}  // namespace
}  // namespace slipstream
