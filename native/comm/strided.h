// Where the parts of a tensor that go from rank to rank lie in it, and copies between such places.
#pragma once

#include "core/tensor.h"

namespace slipstream::comm {

// A box within a contiguous tensor: `origin` is its first element; steps between neighbours on each axis.
struct Box {
  char* origin = nullptr;
  int64_t strides[kMaximumRank] = {};  // elements
};

// Part `index` of `count` equal ones along an axis.
Box part_of(const Tensor& tensor, int axis, int64_t index, int64_t count);

// Copies a box of these sizes to one of the same sizes, in runs as long as lie together in both.
void copy_box(const Box& from, const Box& to, const int64_t* sizes, int rank, int64_t element_bytes);

}  // namespace slipstream::comm
