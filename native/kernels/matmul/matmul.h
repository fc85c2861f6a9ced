// The kernels `matmul`, `pack_matrix` and `matmul_packed` of docs/kernels.md, over the blocking of driver.h.
#pragma once

#include "core/kernel.h"
#include "kernels/matmul/driver.h"

namespace slipstream {
namespace {

SLIPSTREAM_INLINE const char* offset(const void* data, DType dtype, int64_t elements) {
  return data == nullptr ? nullptr : static_cast<const char*>(data) + elements * bytes_per_element(dtype);
}

SLIPSTREAM_INLINE MatrixView offset(MatrixView view, int64_t elements) {
  view.data = offset(view.data, view.dtype, elements);
  return view;
}

SLIPSTREAM_INLINE Epilogue read_epilogue(const KernelCall& call, double activation, double accumulate) {
  const Tensor& c = call.outputs[0];
  Epilogue epilogue;
  epilogue.output = c.data;
  epilogue.dtype = c.dtype;
  epilogue.stride = c.size(-1);
  if (const Tensor* bias = call.optional_input(2)) {
    epilogue.bias = bias->data;
    epilogue.bias_dtype = bias->dtype;
  }
  if (const Tensor* residual = call.optional_input(3)) {
    epilogue.residual = residual->data;
    epilogue.residual_dtype = residual->dtype;
  }
  epilogue.activation = static_cast<Activation>(static_cast<int32_t>(activation));
  epilogue.accumulate = accumulate != 0;
  return epilogue;
}

void matmul(const KernelCall& call) {
  const Tensor &a = call.inputs[0], &b = call.inputs[1], &c = call.outputs[0];
  const bool transpose_a = call.attributes[0] != 0, transpose_b = call.attributes[1] != 0;
  Product product;
  product.rows = c.size(-2);
  product.columns = c.size(-1);
  product.depth = a.size(transpose_a ? -2 : -1);
  product.bf16_products = a.dtype == DType::bf16;
  product.packed_dtype = product.bf16_products ? DType::bf16 : DType::f32;
  product.a = {a.data, a.dtype, a.size(-1), !transpose_a};
  product.b = {b.data, b.dtype, b.size(-1), transpose_b};
  product.epilogue = read_epilogue(call, call.attributes[2], call.attributes[3]);
  int64_t batch = 1;
  for (int axis = 0; axis < c.rank - 2; axis++) batch *= c.sizes[axis];
  if (b.rank == 2 && a.rank == c.rank && !transpose_a) {
    product.rows *= batch;
    batch = 1;
  }
  const int64_t a_step = a.rank == 2 ? 0 : product.rows * product.depth;
  const int64_t b_step = b.rank == 2 ? 0 : product.depth * product.columns;
  const int64_t c_step = product.rows * product.columns;
  multiply_all(call.threads, batch, [&](int64_t i) {
    Product one = product;
    one.a = offset(one.a, i * a_step);
    one.b = offset(one.b, i * b_step);
    one.epilogue.output = const_cast<char*>(offset(one.epilogue.output, one.epilogue.dtype, i * c_step));
    one.epilogue.residual = offset(one.epilogue.residual, one.epilogue.residual_dtype, i * c_step);
    return one;
  });
}

void pack_matrix(const KernelCall& call) {
  const Tensor& b = call.inputs[0];
  const bool transpose_b = call.attributes[0] != 0;
  const DType packed = static_cast<DType>(static_cast<int32_t>(call.attributes[1]));
  const MatrixView view{b.data, b.dtype, b.size(-1), transpose_b};
  const int64_t depth = b.size(transpose_b ? -1 : -2), columns = b.size(transpose_b ? -2 : -1);
  const int64_t panel_bytes = packed_panel_bytes(packed, depth);
  // What is larger than a second-level cache leaves it before it is multiplied.
  constexpr int64_t kThroughMemory = 512 << 10;
  const bool aligned = reinterpret_cast<uintptr_t>(call.outputs[0].data) % 64 == 0;
  const bool through_memory = aligned && panels_of(columns) * panel_bytes >= kThroughMemory;
  call.threads.parallel_for(panels_of(columns), 1, [&](int64_t begin, int64_t end, int) {
    pack_right(view, packed,
               {begin * kPanel, smaller(end * kPanel, columns), kPanel, 0, depth, panel_bytes / (4 * kPanel),
                panel_bytes, call.outputs[0].as<char>() + begin * panel_bytes, through_memory});
    if (through_memory) finish_streams();
  });
}

void matmul_packed(const KernelCall& call) {
  const Tensor& a = call.inputs[0];
  Product product;
  product.depth = static_cast<int64_t>(call.attributes[0]);
  product.columns = static_cast<int64_t>(call.attributes[1]);
  product.rows = product.columns == 0 ? 0 : call.outputs[0].elements() / product.columns;
  product.packed = call.inputs[1].data;
  product.packed_dtype = static_cast<DType>(static_cast<int32_t>(call.attributes[2]));
  product.bf16_products = a.dtype == DType::bf16;
  product.a = {a.data, a.dtype, product.depth, true};
  product.epilogue = read_epilogue(call, call.attributes[3], call.attributes[4]);
  multiply_one(call.threads, product);
}

}  // namespace
}  // namespace slipstream
