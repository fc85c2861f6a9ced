// Matrix products c = activation(a b + bias) + residual as the kernels of this folder describe them.
//
// Blocking (after Goto and van de Geijn, "Anatomy of high-performance matrix multiplication", 2008): c is cut
// into tasks, rectangles of at most kRowBlock x kColumnBlock, which threads take one at a time. For every
// block of the depth K, a task packs its rows of a into strips of a few rows and its columns of b into panels
// of 32 (unless b comes packed), and multiplies strip by panel with accumulators in registers. A panel stays
// in the first-level cache while all strips pass it; the strips stay in the second level. Sums over several
// blocks of K are kept in float32 in the thread's scratch, then bias, activation and residual are applied and
// the element is rounded once.
//
// Every element of c is one chain of additions along K, whatever the blocking: neither the number of threads
// nor the other rows of a change its bits.
#pragma once

#include <cstdint>

#include "core/tensor.h"

namespace slipstream {

constexpr int kPanel = 32;  // columns of a packed panel

// A matrix with a depth axis (K) and another one, called its columns here: element (column, k) is at
// column * stride + k where the depth is contiguous, and at k * stride + column otherwise.
struct MatrixView {
  const void* data = nullptr;
  DType dtype = DType::f32;
  int64_t stride = 0;
  bool depth_contiguous = true;
};

enum class Activation : int32_t { none = 0, relu = 1, gelu = 2, gelu_tanh = 3, silu = 4 };

struct Epilogue {
  void* output = nullptr;
  DType dtype = DType::f32;
  int64_t stride = 0;  // elements between rows of the output and of the residual
  const void* bias = nullptr;
  DType bias_dtype = DType::f32;
  const void* residual = nullptr;
  DType residual_dtype = DType::f32;
  Activation activation = Activation::none;
  bool accumulate = false;
};

struct Product {
  MatrixView a;
  MatrixView b;
  const void* packed = nullptr;     // b as panels, instead of the view
  DType packed_dtype = DType::f32;  // of the panels, given or made: f32 or bf16
  bool bf16_products = false;       // a is rounded to bf16; otherwise it is used as float32
  int64_t rows = 0, columns = 0, depth = 0;
  Epilogue epilogue;
};

// Depths that a packed panel holds: bf16 panels are whole AMX tiles.
SLIPSTREAM_INLINE int64_t packed_depth(DType packed, int64_t depth) {
  return packed == DType::bf16 ? (depth + 31) / 32 * 32 : depth;
}
SLIPSTREAM_INLINE int64_t packed_panel_bytes(DType packed, int64_t depth) {
  return packed_depth(packed, depth) * kPanel * bytes_per_element(packed);
}
SLIPSTREAM_INLINE int64_t panels_of(int64_t columns) { return (columns + kPanel - 1) / kPanel; }

}  // namespace slipstream
