// transpose, slice, pad_into and concatenate (docs/kernels.md): elements of any dtype are moved as bytes.
//
// All four are one strided copy between two row-major tensors. Axes that are adjacent in both are merged
// first. Where the innermost axis is contiguous on both sides, whole runs are copied, in pieces of at most
// 64 KiB; otherwise the copy goes by tiles of 32 x 32 elements over the two axes that are contiguous on one
// side each, so that every cache line that a tile touches is used up while it is in the cache.
#include <cstring>

#include "core/kernel.h"

namespace slipstream {
namespace {

struct StridedCopy {
  int rank = 0;
  int64_t sizes[kMaximumRank];
  int64_t target_strides[kMaximumRank];
  int64_t source_strides[kMaximumRank];

  // Appends an axis, outermost first, merging it with the one before where both sides allow.
  void add(int64_t size, int64_t target_stride, int64_t source_stride) {
    if (size == 1) return;
    if (rank > 0 && target_strides[rank - 1] == target_stride * size &&
        source_strides[rank - 1] == source_stride * size) {
      sizes[rank - 1] *= size;
      target_strides[rank - 1] = target_stride;
      source_strides[rank - 1] = source_stride;
      return;
    }
    sizes[rank] = size;
    target_strides[rank] = target_stride;
    source_strides[rank] = source_stride;
    rank++;
  }
};

void row_major_strides(const Tensor& tensor, int64_t* strides) {
  int64_t stride = 1;
  for (int axis = tensor.rank - 1; axis >= 0; axis--) {
    strides[axis] = stride;
    stride *= tensor.sizes[axis];
  }
}

// Offsets of the flat index over all axes but those in `skipped` (a bit set).
void offsets_of(const StridedCopy& copy, int64_t index, uint32_t skipped, int64_t* target, int64_t* source) {
  for (int axis = copy.rank - 1; axis >= 0; axis--) {
    if ((skipped >> axis) & 1) continue;
    const int64_t position = index % copy.sizes[axis];
    index /= copy.sizes[axis];
    *target += position * copy.target_strides[axis];
    *source += position * copy.source_strides[axis];
  }
}

void copy_runs(ThreadPool& threads, const StridedCopy& copy, char* target, const char* source,
               int64_t element_bytes) {
  const int inner = copy.rank - 1;
  const int64_t run = copy.rank == 0 ? 1 : copy.sizes[inner];
  const int64_t piece = 65536 / element_bytes, pieces = (run + piece - 1) / piece;
  int64_t outer = 1;
  for (int axis = 0; axis < inner; axis++) outer *= copy.sizes[axis];
  const int64_t piece_bytes = (run < piece ? run : piece) * element_bytes;
  const int64_t grain = piece_bytes >= 32768 ? 1 : 32768 / piece_bytes;
  threads.parallel_for(outer * pieces, grain, [&](int64_t begin, int64_t end, int) {
    for (int64_t task = begin; task < end; task++) {
      const int64_t start = task % pieces * piece;
      const int64_t count = run - start < piece ? run - start : piece;
      int64_t to = start, from = start;
      offsets_of(copy, task / pieces, inner < 0 ? 0 : 1u << inner, &to, &from);
      std::memcpy(target + to * element_bytes, source + from * element_bytes,
                  static_cast<size_t>(count * element_bytes));
    }
  });
}

template <class T>
void copy_tiles(ThreadPool& threads, const StridedCopy& copy, T* target, const T* source) {
  constexpr int64_t tile = 32;
  const int inner = copy.rank - 1;
  // The other axis of the tiles: the one with the smallest stride in the source.
  int other = -1;
  for (int axis = 0; axis < inner; axis++) {
    if (other < 0 || copy.source_strides[axis] < copy.source_strides[other]) other = axis;
  }
  const int64_t columns = copy.sizes[inner], column_stride = copy.source_strides[inner];
  const int64_t target_column_stride = copy.target_strides[inner];
  const int64_t rows = other < 0 ? 1 : copy.sizes[other];
  const int64_t row_stride = other < 0 ? 0 : copy.source_strides[other];
  const int64_t target_row_stride = other < 0 ? 0 : copy.target_strides[other];
  const uint32_t skipped = (1u << inner) | (other < 0 ? 0 : 1u << other);
  int64_t outer = 1;
  for (int axis = 0; axis < inner; axis++) {
    if (axis != other) outer *= copy.sizes[axis];
  }
  const int64_t row_tiles = (rows + tile - 1) / tile;
  threads.parallel_for(outer * row_tiles, columns >= 256 ? 1 : 8, [&](int64_t begin, int64_t end, int) {
    for (int64_t task = begin; task < end; task++) {
      int64_t to = 0, from = 0;
      offsets_of(copy, task / row_tiles, skipped, &to, &from);
      const int64_t first_row = task % row_tiles * tile;
      const int64_t last_row = first_row + tile < rows ? first_row + tile : rows;
      for (int64_t first = 0; first < columns; first += tile) {
        const int64_t last = first + tile < columns ? first + tile : columns;
        for (int64_t row = first_row; row < last_row; row++) {
          T* out = target + to + row * target_row_stride;
          const T* in = source + from + row * row_stride;
          for (int64_t column = first; column < last; column++) {
            out[column * target_column_stride] = in[column * column_stride];
          }
        }
      }
    }
  });
}

void run_copy(ThreadPool& threads, const StridedCopy& copy, void* target, int64_t target_offset,
              const void* source, int64_t source_offset, int64_t element_bytes) {
  for (int axis = 0; axis < copy.rank; axis++) {
    if (copy.sizes[axis] == 0) return;
  }
  char* to = static_cast<char*>(target) + target_offset * element_bytes;
  const char* from = static_cast<const char*>(source) + source_offset * element_bytes;
  const int inner = copy.rank - 1;
  if (copy.rank == 0 || (copy.target_strides[inner] == 1 && copy.source_strides[inner] == 1)) {
    copy_runs(threads, copy, to, from, element_bytes);
    return;
  }
  switch (element_bytes) {
    case 1:
      return copy_tiles(threads, copy, reinterpret_cast<uint8_t*>(to),
                        reinterpret_cast<const uint8_t*>(from));
    case 2:
      return copy_tiles(threads, copy, reinterpret_cast<uint16_t*>(to),
                        reinterpret_cast<const uint16_t*>(from));
    case 4:
      return copy_tiles(threads, copy, reinterpret_cast<uint32_t*>(to),
                        reinterpret_cast<const uint32_t*>(from));
    default:
      return copy_tiles(threads, copy, reinterpret_cast<uint64_t*>(to),
                        reinterpret_cast<const uint64_t*>(from));
  }
}

void transpose(const KernelCall& call) {
  const Tensor &x = call.inputs[0], &y = call.outputs[0];
  int64_t from[kMaximumRank] = {}, to[kMaximumRank] = {};
  row_major_strides(x, from);
  row_major_strides(y, to);
  StridedCopy copy;
  for (int axis = 0; axis < y.rank; axis++) {
    copy.add(y.sizes[axis], to[axis], from[static_cast<int>(call.attributes[axis])]);
  }
  run_copy(call.threads, copy, y.data, 0, x.data, 0, bytes_per_element(x.dtype));
}

// Copies between all of `small` and the box of `large` that starts at `starts`; into `large` or out of it.
void copy_box(const KernelCall& call, const Tensor& small, const Tensor& large, const double* starts,
              bool into_large) {
  int64_t small_strides[kMaximumRank] = {}, large_strides[kMaximumRank] = {};
  row_major_strides(small, small_strides);
  row_major_strides(large, large_strides);
  StridedCopy copy;
  int64_t offset = 0;
  for (int axis = 0; axis < small.rank; axis++) {
    offset += static_cast<int64_t>(starts[axis]) * large_strides[axis];
    copy.add(small.sizes[axis], into_large ? large_strides[axis] : small_strides[axis],
             into_large ? small_strides[axis] : large_strides[axis]);
  }
  const int64_t bytes = bytes_per_element(small.dtype);
  if (into_large) {
    run_copy(call.threads, copy, large.data, offset, small.data, 0, bytes);
  } else {
    run_copy(call.threads, copy, small.data, 0, large.data, offset, bytes);
  }
}

void slice(const KernelCall& call) {
  copy_box(call, call.outputs[0], call.inputs[0], call.attributes, false);
}

void pad_into(const KernelCall& call) {
  const Tensor& y = call.outputs[0];
  call.threads.parallel_for(y.bytes(), 262144, [&](int64_t begin, int64_t end, int) {
    std::memset(y.as<char>() + begin, 0, static_cast<size_t>(end - begin));
  });
  copy_box(call, call.inputs[0], y, call.attributes, true);
}

void concatenate(const KernelCall& call) {
  const Tensor& y = call.outputs[0];
  const int axis = static_cast<int>(call.attributes[0]);
  double starts[kMaximumRank] = {};
  for (int input = 0; input < call.input_count; input++) {
    copy_box(call, call.inputs[input], y, starts, true);
    starts[axis] += static_cast<double>(call.inputs[input].sizes[axis]);
  }
}

SLIPSTREAM_KERNEL("transpose", Isa::scalar, transpose);
SLIPSTREAM_KERNEL("slice", Isa::scalar, slice);
SLIPSTREAM_KERNEL("pad_into", Isa::scalar, pad_into);
SLIPSTREAM_KERNEL("concatenate", Isa::scalar, concatenate);

}  // namespace
}  // namespace slipstream
