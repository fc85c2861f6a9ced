// Writing rows into a cache of i8: the row of a token's head becomes whole multiples of its scale, which is
// its largest magnitude / 127. The operations are those of the scalar twin, so that the bits are the same;
// values of 16 bits times 127 are exact, and so are halves, which go to even numbers.
//
// Threads share out the heads, not the tokens: of tokens with the same slot, the last one stays.
#pragma once

#include "kernels/attention/blocks.h"

namespace slipstream {
namespace {

// Row [pitch], zero behind the head size.
inline float quantize_row(const float* row, int64_t size, int64_t pitch, int8_t* target) {
  Vector largest = 0.0f;
  for (int64_t d = 0; d < pitch; d += Vector::lanes) largest = max(abs(Vector::load(row + d)), largest);
  largest = maximum(largest);
  float top;
  largest.store(&top, 1);
  const Vector most = 127.0f, least = -127.0f;
  for (int64_t d = 0; d < size; d += Vector::lanes) {
    const Vector multiple = top > 0 ? Vector::load(row + d) * most / largest : Vector(0.0f);
    round_even(min(most, max(least, multiple)))
        .store(reinterpret_cast<uint8_t*>(target + d), smaller(Vector::lanes, size - d));
  }
  return top / 127;
}

inline void cache_write_quantized(const KernelCall& call) {
  const Tensor &values = call.inputs[2], &cache = call.outputs[0], &scales = call.outputs[1];
  const int32_t* slots = call.inputs[3].as<int32_t>();
  const int64_t tokens = values.size(0), groups = values.size(1), size = values.size(2);
  if (tokens * size == 0) return;
  const int64_t pitch = round_up(size, Vector::lanes);
  call.threads.parallel_for(groups, 1 + 16384 / (tokens * size), [&](int64_t begin, int64_t end, int thread) {
    float* row = static_cast<float*>(call.threads.scratch(thread, pitch * sizeof(float)));
    for (int64_t token = 0; token < tokens; token++) {
      if (slots[token] < 0) continue;
      for (int64_t group = begin; group < end; group++) {
        const int64_t place = slots[token] * groups + group;
        copy_row(head_rows(values, token, group), 0, size, pitch, row);
        scales.as<float>()[place] = quantize_row(row, size, pitch, cache.as<int8_t>() + place * size);
      }
    }
  });
}

}  // namespace
}  // namespace slipstream
