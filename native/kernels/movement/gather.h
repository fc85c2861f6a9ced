// gather and scatter_add, which are embedding and its gradient with inner axes of any shape
// (docs/kernels.md): x is seen as [N, width]. Sums into float32 are split by columns among the threads, each
// of which walks the ids in order: no two threads add to the same element, and every sum has the order of the
// ids. Sums into a 16-bit output are made in float32 tiles of at most 64 Ki elements, which are rounded once
// at the end.
//
// Ids are checked where batches are made. One outside [0, N) does no harm here: it reads as a row of zeros
// and has no gradient.
#pragma once

#include "core/float_rows.h"

namespace slipstream {
namespace {

SLIPSTREAM_INLINE int64_t row_width(const Tensor& tensor) {
  int64_t width = 1;
  for (int axis = 1; axis < tensor.rank; axis++) width *= tensor.sizes[axis];
  return width;
}

void gather(const KernelCall& call) {
  const Tensor &weight = call.inputs[0], &y = call.outputs[0];
  const int32_t* ids = call.inputs[1].as<int32_t>();
  const int64_t vocabulary = weight.size(0), width = row_width(weight);
  const int64_t row_bytes = width * bytes_per_element(weight.dtype);
  const RowScratch scratch(call.threads, 0, width);
  call.threads.parallel_for(
      call.inputs[1].elements(), rows_per_grain(width), [&](int64_t begin, int64_t end, int thread) {
        float* own = scratch.own(thread);
        for (int64_t row = begin; row < end; row++) {
          const int64_t id = ids[row];
          const bool known = id >= 0 && id < vocabulary;
          if (known && weight.dtype == y.dtype) {
            std::memcpy(y.as<char>() + row * row_bytes, weight.as<char>() + id * row_bytes,
                        static_cast<size_t>(row_bytes));
          } else if (known) {
            write_floats(y, row * width, width, read_floats(weight, id * width, width, own));
          } else {
            const int64_t bytes = width * bytes_per_element(y.dtype);
            std::memset(y.as<char>() + row * bytes, 0, static_cast<size_t>(bytes));
          }
        }
      });
}

void add_rows(const KernelCall& call, bool accumulate) {
  const Tensor &d_y = call.inputs[0], &d_x = call.outputs[0];
  const int32_t* ids = call.inputs[1].as<int32_t>();
  const int64_t count = call.inputs[1].elements(), rows = d_x.size(0), width = row_width(d_x);
  float* sums = d_x.as<float>();
  if (!accumulate) {
    call.threads.parallel_for(rows * width, 65536, [&](int64_t begin, int64_t end, int) {
      std::memset(sums + begin, 0, static_cast<size_t>(end - begin) * sizeof(float));
    });
  }
  const int64_t grain = count * width < 32768 ? width : 16;
  if (width == 0) return;
  call.threads.parallel_for(width, grain, [&](int64_t begin, int64_t end, int) {
    with_typed(d_y, begin, [&](const auto* gradient) {
      for (int64_t row = 0; row < count; row++) {
        const int64_t id = ids[row];
        if (id < 0 || id >= rows) continue;
        float* target = sums + id * width + begin;
        const auto* source = gradient + row * width;
        for_each_vector(end - begin, [&](int64_t i, auto lanes) {
          store(target + i, load(target + i, lanes) + load(source + i, lanes), lanes);
        });
      }
    });
  });
}

void embedding_gradient(const KernelCall& call) { add_rows(call, call.attributes[0] != 0); }

void scatter_add(const KernelCall& call) {
  const Tensor &d_y = call.inputs[0], &d_x = call.outputs[0];
  if (d_x.dtype == DType::f32) return add_rows(call, false);
  const int32_t* ids = call.inputs[1].as<int32_t>();
  const int64_t count = call.inputs[1].elements(), rows = d_x.size(0), width = row_width(d_x);
  if (width == 0 || rows == 0) return;
  const int64_t columns = width < 4096 ? width : 4096, tile_rows = 65536 / columns;
  const int64_t column_tiles = (width + columns - 1) / columns,
                row_tiles = (rows + tile_rows - 1) / tile_rows;
  const RowScratch scratch(call.threads, 0, columns * tile_rows);
  call.threads.parallel_tasks(column_tiles * row_tiles, [&](int64_t task, int thread) {
    float* sums = scratch.own(thread);
    const int64_t first_row = task / column_tiles * tile_rows, first_column = task % column_tiles * columns;
    const int64_t row_count = rows - first_row < tile_rows ? rows - first_row : tile_rows;
    const int64_t column_count = width - first_column < columns ? width - first_column : columns;
    std::memset(sums, 0, static_cast<size_t>(row_count * column_count) * sizeof(float));
    with_typed(d_y, first_column, [&](const auto* gradient) {
      for (int64_t row = 0; row < count; row++) {
        const int64_t id = ids[row] - first_row;
        if (id < 0 || id >= row_count) continue;
        float* target = sums + id * column_count;
        const auto* source = gradient + row * width;
        for_each_vector(column_count, [&](int64_t i, auto lanes) {
          store(target + i, load(target + i, lanes) + load(source + i, lanes), lanes);
        });
      }
    });
    for (int64_t row = 0; row < row_count; row++) {
      write_floats(d_x, (first_row + row) * width + first_column, column_count, sums + row * column_count);
    }
  });
}

SLIPSTREAM_KERNEL("gather", kVectorIsa, gather);
SLIPSTREAM_KERNEL("scatter_add", kVectorIsa, scatter_add);
SLIPSTREAM_KERNEL("embedding", kVectorIsa, gather);
SLIPSTREAM_KERNEL("embedding_gradient", kVectorIsa, embedding_gradient);

}  // namespace
}  // namespace slipstream
