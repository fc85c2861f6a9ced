// softmax, cross_entropy, their gradients, and argmax (docs/kernels.md). Softmax and its gradient hold one
// row in float32; cross_entropy goes through a row once, in blocks of 2048 elements that stay in the
// first-level cache, with a running maximum and sum (Milakov and Gimelshein, arXiv:1805.02867).
//
// A row that is minus infinity throughout has no softmax: its results are NaN (its logsumexp is minus
// infinity).
#pragma once

#include "core/float_rows.h"
#include "core/vector_math.h"

namespace slipstream {
namespace {

constexpr int64_t kLogitBlock = 2048;

void softmax(const KernelCall& call) {
  const Tensor &x = call.inputs[0], &y = call.outputs[0];
  const int64_t width = x.size(-1), stride = padded(width);
  const RowScratch scratch(call.threads, 0, 2 * stride);
  call.threads.parallel_for(x.rows(), rows_per_grain(width), [&](int64_t begin, int64_t end, int thread) {
    float* own = scratch.own(thread);
    for (int64_t row = begin; row < end; row++) {
      const float* in = read_floats(x, row * width, width, own);
      float* out = floats_to_write(y, row * width, own + stride);
      const Vector top(row_maximum(in, width));
      for_each_vector(width,
                      [&](int64_t i, auto lanes) { store(out + i, exp(load(in + i, lanes) - top), lanes); });
      const float total = sum_of(width, [&](int64_t i, auto lanes) { return load(out + i, lanes); });
      const Vector inverse(1.0f / total);
      for_each_vector(width,
                      [&](int64_t i, auto lanes) { store(out + i, load(out + i, lanes) * inverse, lanes); });
      write_floats(y, row * width, width, out);
    }
  });
}

// d_x = y (d_y - sum(d_y y)).
void softmax_gradient(const KernelCall& call) {
  const Tensor &d_y = call.inputs[0], &y = call.inputs[1], &d_x = call.outputs[0];
  const int64_t width = y.size(-1), stride = padded(width);
  const RowScratch scratch(call.threads, 0, 3 * stride);
  call.threads.parallel_for(y.rows(), rows_per_grain(width), [&](int64_t begin, int64_t end, int thread) {
    float* own = scratch.own(thread);
    for (int64_t row = begin; row < end; row++) {
      const float* gradient = read_floats(d_y, row * width, width, own);
      const float* values = read_floats(y, row * width, width, own + stride);
      float* out = floats_to_write(d_x, row * width, own + 2 * stride);
      const Vector dot(sum_of(
          width, [&](int64_t i, auto lanes) { return load(gradient + i, lanes) * load(values + i, lanes); }));
      for_each_vector(width, [&](int64_t i, auto lanes) {
        store(out + i, load(values + i, lanes) * (load(gradient + i, lanes) - dot), lanes);
      });
      write_floats(d_x, row * width, width, out);
    }
  });
}

// Element `offset` of a float tensor.
SLIPSTREAM_INLINE float element(const Tensor& tensor, int64_t offset) {
  float value;
  convert_to_floats(tensor, offset, 1, &value);
  return value;
}

float row_logsumexp(const Tensor& logits, int64_t offset, int64_t width, float* scratch) {
  float top = -__builtin_inff(), total = 0;
  for (int64_t start = 0; start < width; start += kLogitBlock) {
    const int64_t count = width - start < kLogitBlock ? width - start : kLogitBlock;
    const float* in = read_floats(logits, offset + start, count, scratch);
    const float block_top = row_maximum(in, count);
    if (block_top > top) {
      total *= __builtin_expf(top - block_top);
      top = block_top;
    }
    const Vector base(top == -__builtin_inff() ? 0.0f : top);
    const int64_t whole = count / Vector::lanes * Vector::lanes;
    total += sum_of(whole, [&](int64_t i, auto lanes) { return exp(load(in + i, lanes) - base); });
    if (whole < count) {
      float last[Vector::lanes];
      exp(Vector::load(in + whole, count - whole) - base).store(last);
      for (int64_t i = 0; i < count - whole; i++) total += last[i];
    }
  }
  return (top == -__builtin_inff() ? 0.0f : top) + __builtin_logf(total);
}

void cross_entropy(const KernelCall& call) {
  const Tensor& logits = call.inputs[0];
  const int32_t* targets = call.inputs[1].as<int32_t>();
  float *losses = call.outputs[0].as<float>(), *logsumexp = call.outputs[1].as<float>();
  const int64_t width = logits.size(-1);
  const RowScratch scratch(call.threads, 0, kLogitBlock);
  call.threads.parallel_for(logits.rows(), rows_per_grain(width),
                            [&](int64_t begin, int64_t end, int thread) {
                              float* own = scratch.own(thread);
                              for (int64_t row = begin; row < end; row++) {
                                const float value = row_logsumexp(logits, row * width, width, own);
                                const int64_t target = targets[row];
                                logsumexp[row] = value;
                                const bool counts = target >= 0 && target < width;
                                losses[row] = counts ? value - element(logits, row * width + target) : 0.0f;
                              }
                            });
}

// d_logits = d_loss (e^(logit - logsumexp) - [this is the target]); zero in ignored rows.
void cross_entropy_gradient(const KernelCall& call) {
  const float* d_losses = call.inputs[0].as<float>();
  const Tensor &logits = call.inputs[1], &d_logits = call.outputs[0];
  const int32_t* targets = call.inputs[2].as<int32_t>();
  const float* logsumexp = call.inputs[3].as<float>();
  const int64_t width = logits.size(-1);
  const RowScratch scratch(call.threads, 0, 2 * kLogitBlock);
  call.threads.parallel_for(
      logits.rows(), rows_per_grain(width), [&](int64_t begin, int64_t end, int thread) {
        float* own = scratch.own(thread);
        for (int64_t row = begin; row < end; row++) {
          const int64_t target = targets[row];
          const bool counts = target >= 0 && target < width;
          for (int64_t start = 0; start < width; start += kLogitBlock) {
            const int64_t count = width - start < kLogitBlock ? width - start : kLogitBlock;
            const int64_t offset = row * width + start;
            float* out = floats_to_write(d_logits, offset, own + kLogitBlock);
            if (counts) {
              const float* in = read_floats(logits, offset, count, own);
              const Vector base(logsumexp[row]), scale(d_losses[row]);
              for_each_vector(count, [&](int64_t i, auto lanes) {
                store(out + i, exp(load(in + i, lanes) - base) * scale, lanes);
              });
              if (target >= start && target < start + count) out[target - start] -= d_losses[row];
            } else {
              for_each_vector(count, [&](int64_t i, auto lanes) { store(out + i, Vector(0.0f), lanes); });
            }
            write_floats(d_logits, offset, count, out);
          }
        }
      });
}

// The first position of the largest element; NaNs are passed over, and a row of nothing else gives 0.
void argmax(const KernelCall& call) {
  const Tensor& x = call.inputs[0];
  int32_t* positions = call.outputs[0].as<int32_t>();
  const int64_t width = x.size(-1);
  const RowScratch scratch(call.threads, 0, kLogitBlock);
  call.threads.parallel_for(x.rows(), rows_per_grain(width), [&](int64_t begin, int64_t end, int thread) {
    float* own = scratch.own(thread);
    for (int64_t row = begin; row < end; row++) {
      float best = -__builtin_inff();
      int64_t position = -1;
      for (int64_t start = 0; start < width; start += kLogitBlock) {
        const int64_t count = width - start < kLogitBlock ? width - start : kLogitBlock;
        const float* in = read_floats(x, row * width + start, count, own);
        const float top = row_maximum(in, count);
        if (top > best || position < 0) {
          for (int64_t i = 0; i < count; i++) {
            if (in[i] == top) {
              best = top;
              position = start + i;
              break;
            }
          }
        }
      }
      positions[row] = static_cast<int32_t>(position < 0 ? 0 : position);
    }
  });
}

SLIPSTREAM_KERNEL("softmax", kVectorIsa, softmax);
SLIPSTREAM_KERNEL("softmax_gradient", kVectorIsa, softmax_gradient);
SLIPSTREAM_KERNEL("cross_entropy", kVectorIsa, cross_entropy);
SLIPSTREAM_KERNEL("cross_entropy_gradient", kVectorIsa, cross_entropy_gradient);
SLIPSTREAM_KERNEL("argmax", kVectorIsa, argmax);

}  // namespace
}  // namespace slipstream
