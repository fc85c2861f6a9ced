// What every variant of the attention kernels shares: the operands' sizes, which keys a query sees, rows of
// heads in memory, and the kernels' names per instruction set.
//
// Terms: a *unit* is one key/value head of one sequence: the queries of the heads of its group attend to one
// matrix of keys and one of values. Sequences, and so units, are independent of each other. Queries and keys
// of a unit are cut into blocks of 64.
#pragma once

#include <cstdint>

#include "core/kernel.h"

namespace slipstream {

constexpr int64_t kAttentionBlock = 64;
constexpr float kLog2E = 1.44269504f, kLn2 = 0.693147181f;

// Kernels that other instruction sets fall back to for the dtypes that gain nothing there.
void attention_avx512(const KernelCall&);
void attention_gradient_avx512(const KernelCall&);
void paged_attention_avx512(const KernelCall&);

namespace {

SLIPSTREAM_INLINE int64_t round_up(int64_t value, int64_t multiple) {
  return (value + multiple - 1) / multiple * multiple;
}
SLIPSTREAM_INLINE int64_t smaller(int64_t a, int64_t b) { return a < b ? a : b; }
SLIPSTREAM_INLINE int64_t larger(int64_t a, int64_t b) { return a > b ? a : b; }

// Which keys the query at a position of its sequence sees: [begin(position), end(position)).
struct Visibility {
  int64_t keys = 0;
  bool causal = false;
  int64_t window = 0;

  SLIPSTREAM_INLINE int64_t begin(int64_t position) const {
    return window > 0 ? larger(0, position - window + 1) : 0;
  }
  SLIPSTREAM_INLINE int64_t end(int64_t position) const {
    return causal ? smaller(position + 1, keys) : keys;
  }
  // How many keys the last `queries` tokens see between them, for sharing out the work.
  SLIPSTREAM_INLINE int64_t pairs(int64_t queries) const {
    const int64_t seen = causal ? keys - queries / 2 : keys;
    return queries * (causal && window > 0 ? smaller(seen, window) : seen);
  }
};

// Rows of one head: row i is `size` elements at data + i * stride bytes. With a block table, row i is at slot
// blocks[i / block_size] * block_size + i % block_size instead.
// Elements of i8 stand for as many times the scale of their slot, scales[slot * scale_stride].
struct Rows {
  uint8_t* data = nullptr;
  DType dtype = DType::f32;
  int64_t stride = 0;
  const int32_t* blocks = nullptr;
  int64_t block_size = 1;
  const float* scales = nullptr;
  int64_t scale_stride = 0;

  SLIPSTREAM_INLINE int64_t slot(int64_t index) const {
    return blocks == nullptr ? index : blocks[index / block_size] * block_size + index % block_size;
  }
  SLIPSTREAM_INLINE uint8_t* row(int64_t index) const { return data + slot(index) * stride; }
  SLIPSTREAM_INLINE float scale(int64_t index) const { return scales[slot(index) * scale_stride]; }
};

// Rows of head `head` of a tensor [tokens, heads, size], from token `first` on.
SLIPSTREAM_INLINE Rows head_rows(const Tensor& tensor, int64_t first, int64_t head) {
  const int64_t width = tensor.size(2) * bytes_per_element(tensor.dtype);
  const int64_t stride = tensor.size(1) * width;
  return {tensor.as<uint8_t>() + first * stride + head * width, tensor.dtype, stride};
}

// Scratch memory handed out piece by piece, each on a 64-byte line. Over a null base it only measures.
struct Pieces {
  uint8_t* base;
  int64_t used = 0;

  template <class T>
  SLIPSTREAM_INLINE T* take(int64_t count) {
    uint8_t* piece = base + used;
    used += round_up(count * static_cast<int64_t>(sizeof(T)), 64);
    return reinterpret_cast<T*>(piece);
  }
};

// The sizes of an `attention` or `attention_gradient` call.
struct Problem {
  int64_t tokens, heads, groups, size, sequences;
  const int32_t* offsets;
  float scale;
  bool causal;
  int64_t window;

  SLIPSTREAM_INLINE int64_t group_heads() const { return groups == 0 ? 0 : heads / groups; }
  SLIPSTREAM_INLINE int64_t units() const { return sequences * groups; }
  SLIPSTREAM_INLINE int64_t first_token(int64_t unit) const { return offsets[unit / groups]; }
  SLIPSTREAM_INLINE Visibility visibility(int64_t unit) const {
    const int64_t sequence = unit / groups;
    return {offsets[sequence + 1] - offsets[sequence], causal, window};
  }
  SLIPSTREAM_INLINE int64_t longest() const {
    int64_t longest = 0;
    for (int64_t s = 0; s < sequences; s++) longest = larger(longest, offsets[s + 1] - offsets[s]);
    return longest;
  }
};

SLIPSTREAM_INLINE Problem read_problem(const KernelCall& call, const Tensor& q, const Tensor& k,
                                       const Tensor& offsets) {
  return {q.size(0),
          q.size(1),
          k.size(1),
          q.size(2),
          offsets.size(0) - 1,
          offsets.as<int32_t>(),
          static_cast<float>(call.attributes[0]),
          call.attributes[1] != 0,
          static_cast<int64_t>(call.attributes[2])};
}

// Whether a call multiplies in bf16: its dtype is bf16, and queries see enough keys (more than 16) for the
// roundings of bf16 weights and of their gradients to average out. With fewer, products in float32 keep the
// error near that of rounding the results.
SLIPSTREAM_INLINE bool multiplies_bf16(const Problem& problem, DType dtype) {
  const bool few_keys = problem.longest() <= 16 || (problem.window > 0 && problem.window <= 16);
  return dtype == DType::bf16 && !few_keys;
}

}  // namespace
}  // namespace slipstream
