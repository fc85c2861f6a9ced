// Stretches of tensors as float32: kernels written in float32 take operands of any dtype by converting one
// row (or block) at a time into scratch that stays in the first-level caches. A float32 tensor is used in
// place. The switch over dtypes runs once a row, outside every inner loop.
//
// Included by kernels' own files only (see core/vector.h).
#pragma once

#include <cstring>

#include "core/kernel.h"
#include "core/vector.h"

namespace slipstream {
namespace {

// Calls body with a typed pointer to element `offset`; the dtypes that kernels compute with.
template <class Body>
SLIPSTREAM_INLINE void with_typed(const Tensor& tensor, int64_t offset, const Body& body) {
  switch (tensor.dtype) {
    case DType::bf16:
      return body(tensor.as<bf16>() + offset);
    case DType::f16:
      return body(tensor.as<f16>() + offset);
    case DType::i32:
      return body(tensor.as<int32_t>() + offset);
    case DType::u8:
      return body(tensor.as<uint8_t>() + offset);
    default:
      return body(tensor.as<float>() + offset);
  }
}

// Calls body with a value of the element type of a float dtype.
template <class Body>
SLIPSTREAM_INLINE void with_float_type(DType dtype, const Body& body) {
  switch (dtype) {
    case DType::bf16:
      return body(bf16{});
    case DType::f16:
      return body(f16{});
    default:
      return body(0.0f);
  }
}

// Elements [offset, offset + count) as float32 in `values`.
inline void convert_to_floats(const Tensor& tensor, int64_t offset, int64_t count, float* values) {
  with_typed(tensor, offset, [&](const auto* source) {
    for_each_vector(count, [&](int64_t i, auto lanes) { store(values + i, load(source + i, lanes), lanes); });
  });
}

// Elements [offset, offset + count): in place where they are float32, else converted into `scratch`.
inline const float* read_floats(const Tensor& tensor, int64_t offset, int64_t count, float* scratch) {
  if (tensor.dtype == DType::f32) return tensor.as<float>() + offset;
  convert_to_floats(tensor, offset, count, scratch);
  return scratch;
}

// Where to compute elements [offset, ..) of an output: in place, or in `scratch` until write_floats.
inline float* floats_to_write(const Tensor& tensor, int64_t offset, float* scratch) {
  return tensor.dtype == DType::f32 ? tensor.as<float>() + offset : scratch;
}

// Rounds `values` to elements [offset, offset + count); nothing to do where they are there already.
inline void write_floats(const Tensor& tensor, int64_t offset, int64_t count, const float* values) {
  if (tensor.dtype == DType::f32 && tensor.as<float>() + offset == values) return;
  with_typed(tensor, offset, [&](auto* target) {
    for_each_vector(count, [&](int64_t i, auto lanes) { store(target + i, load(values + i, lanes), lanes); });
  });
}

// Floats rounded up to whole cache lines, so that neighbouring buffers share none.
SLIPSTREAM_INLINE int64_t padded(int64_t floats) { return (floats + 15) / 16 * 16; }

// Scratch of one kernel call: `shared` floats that every thread sees (they lie in thread 0's scratch) and
// `own` floats for each thread. Made on the calling thread, before the parallel part.
class RowScratch {
 public:
  RowScratch(ThreadPool& threads, int64_t shared, int64_t own)
      : threads_(threads), shared_count_(padded(shared)), own_count_(padded(own)) {
    shared_ = static_cast<float*>(
        threads.scratch(0, static_cast<size_t>(shared_count_ + own_count_) * sizeof(float)));
  }

  float* shared() const { return shared_; }
  float* own(int thread) const {
    if (thread == 0) return shared_ + shared_count_;
    return static_cast<float*>(threads_.scratch(thread, static_cast<size_t>(own_count_) * sizeof(float)));
  }

 private:
  ThreadPool& threads_;
  int64_t shared_count_, own_count_;
  float* shared_;
};

// Rows in one unit of work: enough elements to be worth another thread.
SLIPSTREAM_INLINE int64_t rows_per_grain(int64_t row_elements) {
  const int64_t rows = 8192 / (row_elements > 0 ? row_elements : 1);
  return rows > 0 ? rows : 1;
}

// Fixed blocks of rows for reductions over rows: at most 64 blocks of at least 16 rows, by the number of rows
// alone, so that the partial sums and their order do not depend on the number of threads.
struct RowBlocks {
  int64_t rows_per_block, count;
};
SLIPSTREAM_INLINE RowBlocks row_blocks(int64_t rows) {
  const int64_t per_block = rows <= 16 * 64 ? 16 : (rows + 63) / 64;
  return {per_block, (rows + per_block - 1) / per_block};
}

// target[i] (+)= sum over blocks, in block order, of partials[block * stride + i].
inline void combine_blocks(ThreadPool& threads, const float* partials, int64_t blocks, int64_t stride,
                           const Tensor& target, int64_t count, bool accumulate) {
  float* output = target.as<float>();
  threads.parallel_for(count, 1024, [&](int64_t begin, int64_t end, int) {
    for_each_vector(end - begin, [&](int64_t i, auto lanes) {
      Vector total(0.0f);
      for (int64_t block = 0; block < blocks; block++) {
        total = total + load(partials + block * stride + begin + i, lanes);
      }
      float* place = output + begin + i;
      store(place, accumulate ? load(place, lanes) + total : total, lanes);
    });
  });
}

}  // namespace
}  // namespace slipstream
