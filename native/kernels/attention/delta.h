// Sums of gradient times result over each head: what the scores' gradients lack of those of the weights.
// Data: both operands [tokens, heads, size], sums [heads, tokens]; tokens are shared out among threads.
#pragma once

#include "core/float_rows.h"

namespace slipstream {
namespace {

inline void attention_delta(const KernelCall& call) {
  const Tensor &d_out = call.inputs[0], &out = call.inputs[1];
  const int64_t tokens = out.size(0), heads = out.size(1), size = out.size(2);
  float* delta = call.outputs[0].as<float>();
  RowScratch scratch(call.threads, 0, 2 * padded(size));
  call.threads.parallel_for(tokens, 8, [&](int64_t begin, int64_t end, int thread) {
    float* own = scratch.own(thread);
    for (int64_t row = begin * heads; row < end * heads; row++) {
      const float* gradient = read_floats(d_out, row * size, size, own);
      const float* result = read_floats(out, row * size, size, own + padded(size));
      delta[row % heads * tokens + row / heads] = sum_of(
          size, [&](int64_t i, auto lanes) { return load(gradient + i, lanes) * load(result + i, lanes); });
    }
  });
}

SLIPSTREAM_KERNEL("attention_delta", kVectorIsa, attention_delta);

}  // namespace
}  // namespace slipstream
