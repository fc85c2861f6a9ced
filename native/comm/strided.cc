#include "comm/strided.h"

#include <cstring>

namespace slipstream::comm {

Box part_of(const Tensor& tensor, int axis, int64_t index, int64_t count) {
  Box box;
  int64_t stride = 1;
  for (int each = tensor.rank - 1; each >= 0; each--) {
    box.strides[each] = stride;
    stride *= tensor.sizes[each];
  }
  const int64_t start = tensor.sizes[axis] / count * index * box.strides[axis];
  box.origin = tensor.as<char>() + start * bytes_per_element(tensor.dtype);
  return box;
}

void copy_box(const Box& from, const Box& to, const int64_t* sizes, int rank, int64_t element_bytes) {
  int64_t run = element_bytes, together = 1;
  int outer = rank;
  while (outer > 0 && from.strides[outer - 1] == together && to.strides[outer - 1] == together) {
    outer--;
    run *= sizes[outer];
    together *= sizes[outer];
  }
  int64_t runs = 1;
  for (int axis = 0; axis < outer; axis++) runs *= sizes[axis];
  if (run == 0) return;
  int64_t position[kMaximumRank] = {};
  int64_t source = 0, target = 0;
  for (int64_t index = 0; index < runs; index++) {
    std::memcpy(to.origin + target * element_bytes, from.origin + source * element_bytes,
                static_cast<size_t>(run));
    for (int axis = outer - 1; axis >= 0; axis--) {
      source += from.strides[axis];
      target += to.strides[axis];
      if (++position[axis] < sizes[axis]) break;
      position[axis] = 0;
      source -= from.strides[axis] * sizes[axis];
      target -= to.strides[axis] * sizes[axis];
    }
  }
}

}  // namespace slipstream::comm
