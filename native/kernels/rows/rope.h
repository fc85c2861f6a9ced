// rope (docs/kernels.md): rotary position embedding (Su et al., arXiv:2104.09864). The sines and cosines of a
// token are computed once for all its heads, from the exact product of position and frequency (float32 high
// and low parts), so that they are right to float32 precision at positions of a million.
#pragma once

#include "core/float_rows.h"
#include "core/vector_math.h"

namespace slipstream {
namespace {

void rope(const KernelCall& call) {
  const Tensor &x = call.inputs[0], &y = call.outputs[0];
  const int32_t* positions = call.inputs[1].as<int32_t>();
  const float* frequencies = call.inputs[2].as<float>();
  const bool inverse = call.attributes[0] != 0, interleaved = call.attributes[1] != 0;
  const int64_t heads = x.size(1), size = x.size(2), half = call.inputs[2].size(0);
  const int64_t width = heads * size, stride = padded(width), table = padded(half);
  const RowScratch scratch(call.threads, 0, 2 * stride + 2 * table);
  call.threads.parallel_for(x.size(0), rows_per_grain(width), [&](int64_t begin, int64_t end, int thread) {
    float* own = scratch.own(thread);
    float *sines = own + 2 * stride, *cosines = sines + table;
    for (int64_t token = begin; token < end; token++) {
      const Vector position(static_cast<float>(positions[token]));
      for_each_vector(half, [&](int64_t i, auto lanes) {
        Vector low, sine, cosine;
        const Vector angle = exact_product(position, load(frequencies + i, lanes), &low);
        sine_cosine(angle, low, &sine, &cosine);
        store(sines + i, inverse ? -sine : sine, lanes);
        store(cosines + i, cosine, lanes);
      });
      const float* in = read_floats(x, token * width, width, own);
      float* out = floats_to_write(y, token * width, own + stride);
      for (int64_t head = 0; head < heads; head++, in += size, out += size) {
        if (interleaved) {
          for (int64_t i = 0; i < half; i++) {
            const float first = in[2 * i], second = in[2 * i + 1];
            out[2 * i] = first * cosines[i] - second * sines[i];
            out[2 * i + 1] = second * cosines[i] + first * sines[i];
          }
        } else {
          for_each_vector(half, [&](int64_t i, auto lanes) {
            const Vector first = load(in + i, lanes), second = load(in + half + i, lanes);
            const Vector sine = load(sines + i, lanes), cosine = load(cosines + i, lanes);
            store(out + i, first * cosine - second * sine, lanes);
            store(out + half + i, second * cosine + first * sine, lanes);
          });
        }
        for (int64_t i = 2 * half; i < size; i++) out[i] = in[i];
      }
      write_floats(y, token * width, width, out - width);
    }
  });
}

SLIPSTREAM_KERNEL("rope", kVectorIsa, rope);

}  // namespace
}  // namespace slipstream
