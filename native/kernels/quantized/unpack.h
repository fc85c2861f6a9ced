// The kernels `embedding_quantized` and `dequantize_matrix` of docs/kernels.md: rows of a packed matrix as
// floats. A row is one column of its panel: four bytes of every 128, so one row takes as many cache lines as
// it has words. That is little beside what a step multiplies, and the matrix is held once.
#pragma once

#include "core/kernel.h"
#include "kernels/matmul/simd.h"
#include "kernels/quantized/layout.h"

namespace slipstream {
namespace {

// Row `row` of the matrix, K floats.
template <class T>
void unpack_row(const PanelLayout& layout, const uint8_t* packed, int64_t row, T* target) {
  const Format& format = layout.format;
  const uint8_t* panel = packed + row / kColumns * layout.panel_bytes;
  const int64_t column = row % kColumns;
  const float zero = static_cast<float>(format.zero());
  for (int64_t g = 0; g < layout.groups; g++) {
    const uint8_t* header = panel + g * layout.group_bytes;
    const uint8_t* weights = header + layout.header_bytes + 4 * column;
    float scale, minimum = 0;
    if (format.whole()) {
      scale = reinterpret_cast<const float*>(header)[column];
    } else {
      scale = to_float(reinterpret_cast<const f16*>(header)[column]);
      if (format.minimum) minimum = to_float(reinterpret_cast<const f16*>(header)[kColumns + column]);
    }
    const int64_t begin = g * layout.group;
    const int64_t count = layout.inner - begin < layout.group ? layout.inner - begin : layout.group;
    for (int64_t k = 0; k < count; k++) {
      uint32_t q;
      if (format.bits == 8) {
        q = weights[k / 4 * 4 * kColumns + k % 4];
      } else {
        const int64_t half = layout.group / 2, near = k < half ? k : k - half;
        q = weights[near / 4 * 4 * kColumns + near % 4] >> (k < half ? 0 : 4) & 15;
      }
      target[begin + k] = from_float<T>(scale * (static_cast<float>(q) - zero) - minimum);
    }
  }
}

SLIPSTREAM_INLINE PanelLayout read_layout(const KernelCall& call) {
  return PanelLayout({static_cast<int>(call.attributes[0]), static_cast<int64_t>(call.attributes[1]),
                      call.attributes[2] != 0},
                     static_cast<int64_t>(call.attributes[3]));
}

// Attributes: bits, group, minimum, columns K. Inputs: packed, ids i32 [..]. Output: [.., K].
void embedding_quantized(const KernelCall& call) {
  const PanelLayout layout = read_layout(call);
  const Tensor &ids = call.inputs[1], &y = call.outputs[0];
  const int64_t grain = layout.inner == 0 ? 1 : (8192 + layout.inner - 1) / layout.inner;
  call.threads.parallel_for(ids.elements(), grain, [&](int64_t begin, int64_t end, int) {
    with_type(y.dtype, y.data, [&](auto* target) {
      for (int64_t i = begin; i < end; i++) {
        unpack_row(layout, call.inputs[0].as<uint8_t>(), ids.as<int32_t>()[i], target + i * layout.inner);
      }
    });
  });
}

// Attributes: bits, group, minimum, columns K. Input: packed. Output: [N, K].
void dequantize_matrix(const KernelCall& call) {
  const PanelLayout layout = read_layout(call);
  const Tensor& y = call.outputs[0];
  call.threads.parallel_for(y.size(0), kColumns, [&](int64_t begin, int64_t end, int) {
    with_type(y.dtype, y.data, [&](auto* target) {
      for (int64_t row = begin; row < end; row++) {
        unpack_row(layout, call.inputs[0].as<uint8_t>(), row, target + row * layout.inner);
      }
    });
  });
}

}  // namespace
}  // namespace slipstream
