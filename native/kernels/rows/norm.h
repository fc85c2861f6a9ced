// rms_norm, layer_norm and their gradients (docs/kernels.md). One row at a time in float32: a row of any
// width stays in the first two cache levels between the passes over it. The gradients of weight and bias are
// summed over fixed blocks of rows (core/float_rows.h), then over the blocks in order.
#pragma once

#include "core/float_rows.h"
#include "core/vector_math.h"

namespace slipstream {
namespace {

void rms_norm(const KernelCall& call) {
  const Tensor &x = call.inputs[0], &weight = call.inputs[1], &y = call.outputs[0];
  float* inverse_rms = call.outputs[1].as<float>();
  const float epsilon = static_cast<float>(call.attributes[0]);
  const int64_t width = x.size(-1);
  const RowScratch scratch(call.threads, width, 2 * padded(width));
  const float* w = read_floats(weight, 0, width, scratch.shared());
  call.threads.parallel_for(x.rows(), rows_per_grain(width), [&](int64_t begin, int64_t end, int thread) {
    float* own = scratch.own(thread);
    for (int64_t row = begin; row < end; row++) {
      const float* in = read_floats(x, row * width, width, own);
      float* out = floats_to_write(y, row * width, own + padded(width));
      const float squares = sum_of(width, [&](int64_t i, auto lanes) {
        const Vector value = load(in + i, lanes);
        return value * value;
      });
      const float inverse = 1.0f / __builtin_sqrtf(squares / static_cast<float>(width) + epsilon);
      inverse_rms[row] = inverse;
      for_each_vector(width, [&](int64_t i, auto lanes) {
        store(out + i, load(in + i, lanes) * Vector(inverse) * load(w + i, lanes), lanes);
      });
      write_floats(y, row * width, width, out);
    }
  });
}

// One row; adds its part of d_weight to `weight_sum`.
template <class T>
SLIPSTREAM_INLINE void rms_norm_gradient_row(const T* gradient, const T* in, const float* weight, T* out,
                                             float* weight_sum, int64_t width, Vector inverse) {
  const float dot = sum_of(width, [&](int64_t i, auto lanes) {
    const Vector product = load(gradient + i, lanes) * load(in + i, lanes) * inverse;
    store(weight_sum + i, load(weight_sum + i, lanes) + product, lanes);
    return product * load(weight + i, lanes);
  });
  const Vector mean(dot / static_cast<float>(width));
  for_each_vector(width, [&](int64_t i, auto lanes) {
    const Vector scaled = load(gradient + i, lanes) * load(weight + i, lanes);
    const Vector normal = load(in + i, lanes) * inverse;
    store(out + i, (scaled - normal * mean) * inverse, lanes);
  });
}

// With g = d_y weight and n = x inverse_rms: d_x = inverse_rms (g - n mean(g n)), d_weight = sum d_y n.
void rms_norm_gradient(const KernelCall& call) {
  const Tensor &d_y = call.inputs[0], &x = call.inputs[1], &weight = call.inputs[2];
  const float* inverse_rms = call.inputs[3].as<float>();
  const Tensor &d_x = call.outputs[0], &d_weight = call.outputs[1];
  const int64_t width = x.size(-1), rows = x.rows(), stride = padded(width);
  const RowBlocks blocks = row_blocks(rows);
  const RowScratch scratch(call.threads, (blocks.count + 1) * stride, 3 * stride);
  const float* w = read_floats(weight, 0, width, scratch.shared());
  float* partials = scratch.shared() + stride;
  call.threads.parallel_tasks(blocks.count, [&](int64_t block, int thread) {
    float* own = scratch.own(thread);
    float* weight_sum = partials + block * stride;
    for (int64_t i = 0; i < stride; i++) weight_sum[i] = 0;
    const int64_t begin = block * blocks.rows_per_block;
    const int64_t end = begin + blocks.rows_per_block < rows ? begin + blocks.rows_per_block : rows;
    if (d_y.dtype == x.dtype && d_x.dtype == x.dtype) {
      with_float_type(x.dtype, [&](auto element) {
        using T = decltype(element);
        for (int64_t row = begin; row < end; row++) {
          const int64_t at = row * width;
          rms_norm_gradient_row(d_y.as<T>() + at, x.as<T>() + at, w, d_x.as<T>() + at, weight_sum, width,
                                inverse_rms[row]);
        }
      });
      return;
    }
    for (int64_t row = begin; row < end; row++) {
      const float* gradient = read_floats(d_y, row * width, width, own);
      const float* in = read_floats(x, row * width, width, own + stride);
      float* out = floats_to_write(d_x, row * width, own + 2 * stride);
      rms_norm_gradient_row(gradient, in, w, out, weight_sum, width, inverse_rms[row]);
      write_floats(d_x, row * width, width, out);
    }
  });
  combine_blocks(call.threads, partials, blocks.count, stride, d_weight, width, call.attributes[0] != 0);
}

// Two passes: the mean first, then the squares of what is left, so that a large mean costs no precision.
void layer_norm(const KernelCall& call) {
  const Tensor &x = call.inputs[0], &weight = call.inputs[1], &y = call.outputs[0];
  const Tensor* bias = call.optional_input(2);
  float *means = call.outputs[1].as<float>(), *inverses = call.outputs[2].as<float>();
  const float epsilon = static_cast<float>(call.attributes[0]);
  const int64_t width = x.size(-1), stride = padded(width);
  const RowScratch scratch(call.threads, 2 * stride, 2 * stride);
  const float* w = read_floats(weight, 0, width, scratch.shared());
  float* zeros = scratch.shared() + stride;
  if (bias == nullptr) std::memset(zeros, 0, static_cast<size_t>(stride) * sizeof(float));
  const float* b = bias == nullptr ? zeros : read_floats(*bias, 0, width, zeros);
  call.threads.parallel_for(x.rows(), rows_per_grain(width), [&](int64_t begin, int64_t end, int thread) {
    float* own = scratch.own(thread);
    for (int64_t row = begin; row < end; row++) {
      const float* in = read_floats(x, row * width, width, own);
      float* out = floats_to_write(y, row * width, own + stride);
      const float total = sum_of(width, [&](int64_t i, auto lanes) { return load(in + i, lanes); });
      const float mean = total / static_cast<float>(width);
      // The lanes beyond the row are not zero once the mean is taken off, so the row's end goes by itself.
      const int64_t whole = width / Vector::lanes * Vector::lanes;
      float squares = sum_of(whole, [&](int64_t i, auto lanes) {
        const Vector centred = load(in + i, lanes) - Vector(mean);
        return centred * centred;
      });
      for (int64_t i = whole; i < width; i++) squares += (in[i] - mean) * (in[i] - mean);
      const float inverse = 1.0f / __builtin_sqrtf(squares / static_cast<float>(width) + epsilon);
      means[row] = mean;
      inverses[row] = inverse;
      for_each_vector(width, [&](int64_t i, auto lanes) {
        const Vector normal = (load(in + i, lanes) - Vector(mean)) * Vector(inverse);
        store(out + i, fma(normal, load(w + i, lanes), load(b + i, lanes)), lanes);
      });
      write_floats(y, row * width, width, out);
    }
  });
}

// With g = d_y weight and n = (x - mean) inverse_deviation:
// d_x = inverse_deviation (g - mean(g) - n mean(g n)), d_weight = sum d_y n, d_bias = sum d_y.
void layer_norm_gradient(const KernelCall& call) {
  const Tensor &d_y = call.inputs[0], &x = call.inputs[1], &weight = call.inputs[2];
  const float *means = call.inputs[3].as<float>(), *inverses = call.inputs[4].as<float>();
  const Tensor &d_x = call.outputs[0], &d_weight = call.outputs[1];
  const Tensor* d_bias = call.optional_output(2);
  const bool accumulate = call.attributes[0] != 0;
  const int64_t width = x.size(-1), rows = x.rows(), stride = padded(width);
  const RowBlocks blocks = row_blocks(rows);
  const RowScratch scratch(call.threads, (2 * blocks.count + 1) * stride, 3 * stride);
  const float* w = read_floats(weight, 0, width, scratch.shared());
  float* partials = scratch.shared() + stride;
  call.threads.parallel_tasks(blocks.count, [&](int64_t block, int thread) {
    float* own = scratch.own(thread);
    float *weight_sum = partials + block * 2 * stride, *bias_sum = weight_sum + stride;
    for (int64_t i = 0; i < 2 * stride; i++) weight_sum[i] = 0;
    const int64_t begin = block * blocks.rows_per_block;
    const int64_t end = begin + blocks.rows_per_block < rows ? begin + blocks.rows_per_block : rows;
    for (int64_t row = begin; row < end; row++) {
      const float* gradient = read_floats(d_y, row * width, width, own);
      const float* in = read_floats(x, row * width, width, own + stride);
      float* out = floats_to_write(d_x, row * width, own + 2 * stride);
      const Vector mean(means[row]), inverse(inverses[row]);
      // Lanes beyond the row have a zero gradient, so their terms vanish.
      const float dot = sum_of(width, [&](int64_t i, auto lanes) {
        const Vector g = load(gradient + i, lanes);
        const Vector product = g * (load(in + i, lanes) - mean) * inverse;
        store(weight_sum + i, load(weight_sum + i, lanes) + product, lanes);
        store(bias_sum + i, load(bias_sum + i, lanes) + g, lanes);
        return product * load(w + i, lanes);
      });
      const float total = sum_of(
          width, [&](int64_t i, auto lanes) { return load(gradient + i, lanes) * load(w + i, lanes); });
      const Vector mean_product(dot / static_cast<float>(width)), mean_g(total / static_cast<float>(width));
      for_each_vector(width, [&](int64_t i, auto lanes) {
        const Vector scaled = load(gradient + i, lanes) * load(w + i, lanes);
        const Vector normal = (load(in + i, lanes) - mean) * inverse;
        store(out + i, (scaled - mean_g - normal * mean_product) * inverse, lanes);
      });
      write_floats(d_x, row * width, width, out);
    }
  });
  combine_blocks(call.threads, partials, blocks.count, 2 * stride, d_weight, width, accumulate);
  if (d_bias != nullptr) {
    combine_blocks(call.threads, partials + stride, blocks.count, 2 * stride, *d_bias, width, accumulate);
  }
}

SLIPSTREAM_KERNEL("rms_norm", kVectorIsa, rms_norm);
SLIPSTREAM_KERNEL("rms_norm_gradient", kVectorIsa, rms_norm_gradient);
SLIPSTREAM_KERNEL("layer_norm", kVectorIsa, layer_norm);
SLIPSTREAM_KERNEL("layer_norm_gradient", kVectorIsa, layer_norm_gradient);

}  // namespace
}  // namespace slipstream
