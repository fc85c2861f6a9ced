// rope (docs/kernels.md): rotary position embedding (Su et al., arXiv:2104.09864). The sines and cosines of a
// token are computed once for all its heads, from the exact product of position and frequency (float32 high
// and low parts), so that they are right to float32 precision at positions of a million. Elements are read
// and written where they lie; x and y have one dtype.
#pragma once

#include "core/float_rows.h"
#include "core/vector_math.h"

namespace slipstream {
namespace {

// What is the same for all heads of a call.
struct Rotation {
  const float* frequencies;
  int64_t heads, size, half;
  bool inverse;
};

// Sine and cosine of a token's angles [i, ..).
template <class L>
SLIPSTREAM_INLINE void sine_cosine_at(const Rotation& rotation, Vector position, int64_t i, L lanes,
                                      Vector* sine, Vector* cosine) {
  Vector low;
  const Vector angle = exact_product(position, load(rotation.frequencies + i, lanes), &low);
  sine_cosine(angle, low, sine, cosine);
  if (rotation.inverse) *sine = -*sine;
}

// The heads of a token, with pairs half a rotated part apart: a vector of angles at a time over all heads.
template <class T>
SLIPSTREAM_INLINE void rotate_halves(const Rotation& rotation, Vector position, const T* in, T* out) {
  const int64_t half = rotation.half, size = rotation.size;
  for_each_vector(half, [&](int64_t i, auto lanes) {
    Vector sine, cosine;
    sine_cosine_at(rotation, position, i, lanes, &sine, &cosine);
    for (int64_t head = 0, at = i; head < rotation.heads; head++, at += size) {
      const Vector first = load(in + at, lanes), second = load(in + at + half, lanes);
      store(out + at, fma(first, cosine, -(second * sine)), lanes);
      store(out + at + half, fma(second, cosine, first * sine), lanes);
    }
  });
}

// The heads of a token, with pairs of neighbours. `table`: scratch for 2 half floats, in whole lines each.
template <class T>
SLIPSTREAM_INLINE void rotate_neighbours(const Rotation& rotation, Vector position, const T* in, T* out,
                                         float* table) {
  float *sines = table, *cosines = table + padded(rotation.half);
  for_each_vector(rotation.half, [&](int64_t i, auto lanes) {
    Vector sine, cosine;
    sine_cosine_at(rotation, position, i, lanes, &sine, &cosine);
    store(sines + i, sine, lanes);
    store(cosines + i, cosine, lanes);
  });
  for (int64_t head = 0; head < rotation.heads; head++, in += rotation.size, out += rotation.size) {
    for (int64_t i = 0; i < rotation.half; i++) {
      const float first = to_float(in[2 * i]), second = to_float(in[2 * i + 1]);
      out[2 * i] = from_float<T>(first * cosines[i] - second * sines[i]);
      out[2 * i + 1] = from_float<T>(second * cosines[i] + first * sines[i]);
    }
  }
}

void rope(const KernelCall& call) {
  const Tensor &x = call.inputs[0], &y = call.outputs[0];
  const int32_t* positions = call.inputs[1].as<int32_t>();
  const bool interleaved = call.attributes[1] != 0;
  const Rotation rotation{call.inputs[2].as<float>(), x.size(1), x.size(2), call.inputs[2].size(0),
                          call.attributes[0] != 0};
  const int64_t width = rotation.heads * rotation.size, rotated = 2 * rotation.half;
  const RowScratch scratch(call.threads, 0, 2 * padded(rotation.half));
  call.threads.parallel_for(x.size(0), rows_per_grain(width), [&](int64_t begin, int64_t end, int thread) {
    float* table = scratch.own(thread);
    with_float_type(x.dtype, [&](auto element) {
      using T = decltype(element);
      for (int64_t token = begin; token < end; token++) {
        const Vector position(static_cast<float>(positions[token]));
        const T* in = x.as<T>() + token * width;
        T* out = y.as<T>() + token * width;
        if (interleaved) {
          rotate_neighbours(rotation, position, in, out, table);
        } else {
          rotate_halves(rotation, position, in, out);
        }
        if (rotated == rotation.size) continue;
        for (int64_t head = 0; head < rotation.heads; head++) {
          for (int64_t i = rotated; i < rotation.size; i++) {
            out[head * rotation.size + i] = in[head * rotation.size + i];
          }
        }
      }
    });
  });
}

SLIPSTREAM_KERNEL("rope", kVectorIsa, rope);

}  // namespace
}  // namespace slipstream
