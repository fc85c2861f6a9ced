// Optimizer updates (docs/kernels.md): one pass over a parameter group's flat buffers, in float32 and in the
// order of PyTorch's operations (torch/optim, "single tensor" forms), so that trajectories agree to rounding.
#pragma once

#include "core/float_rows.h"
#include "core/vector_math.h"

namespace slipstream {
namespace {

constexpr int64_t kUpdateBlock = 4096;

// 1 - value for a hyperparameter. It reaches us rounded to float32, where 1 - 0.999 is wrong in the fifth
// digit; a person typed a short decimal, so the shortest decimal that rounds to the float is the number
// meant.
SLIPSTREAM_INLINE float one_minus(float value) {
  double scale = 1;
  for (int digits = 0; digits <= 8; digits++, scale *= 10) {
    const double decimal = __builtin_round(static_cast<double>(value) * scale) / scale;
    if (static_cast<float>(decimal) == value) return static_cast<float>(1 - decimal);
  }
  return static_cast<float>(1 - static_cast<double>(value));
}

// Calls update(i, gradient, lanes) for every vector of the group; i counts from the start of the buffers.
template <class Update>
SLIPSTREAM_INLINE void for_each_gradient(const KernelCall& call, float gradient_scale, const Update& update) {
  const Tensor& gradient = call.inputs[1];
  const Vector scale(gradient_scale);
  call.threads.parallel_for(gradient.elements(), kUpdateBlock, [&](int64_t begin, int64_t end, int) {
    with_typed(gradient, 0, [&](const auto* gradients) {
      for_each_vector(end - begin, [&](int64_t i, auto lanes) {
        update(begin + i, load(gradients + begin + i, lanes) * scale, lanes);
      });
    });
  });
}

// Adam (Kingma and Ba, arXiv:1412.6980), with decoupled weight decay (Loshchilov and Hutter,
// arXiv:1711.05101) or with the decay added to the gradient.
template <bool Decoupled>
void adam_update(const KernelCall& call) {
  float *parameter = call.outputs[0].as<float>(), *first = call.outputs[1].as<float>(),
        *second = call.outputs[2].as<float>();
  const float* hyper = call.inputs[4].as<float>();
  const float rate = hyper[0], beta2 = hyper[2], decay = hyper[4];
  const Vector blend1(one_minus(hyper[1])), keep2(beta2), blend2(one_minus(beta2)), epsilon(hyper[3]);
  const Vector kept(static_cast<float>(1 - static_cast<double>(rate) * static_cast<double>(decay)));
  const Vector penalty(decay);
  const Vector step(static_cast<float>(-static_cast<double>(rate) / static_cast<double>(hyper[5])));
  const Vector root(static_cast<float>(__builtin_sqrt(static_cast<double>(hyper[6]))));
  for_each_gradient(call, hyper[7], [&](int64_t i, Vector gradient, auto lanes) {
    Vector p = load(parameter + i, lanes);
    if constexpr (Decoupled) {
      p = p * kept;
    } else {
      gradient = fma(p, penalty, gradient);
    }
    const Vector old = load(first + i, lanes);
    const Vector mean = old + blend1 * (gradient - old);
    const Vector square = load(second + i, lanes) * keep2 + blend2 * gradient * gradient;
    const Vector denominator = sqrt(square) / root + epsilon;
    store(first + i, mean, lanes);
    store(second + i, square, lanes);
    store(parameter + i, p + step * mean / denominator, lanes);
  });
}

void adamw(const KernelCall& call) { adam_update<true>(call); }
void adam(const KernelCall& call) { adam_update<false>(call); }

// Stochastic gradient descent with (Nesterov) momentum (Sutskever et al., ICML 2013).
void sgd(const KernelCall& call) {
  float *parameter = call.outputs[0].as<float>(), *momentum = call.outputs[1].as<float>();
  const float* hyper = call.inputs[3].as<float>();
  const Vector step(-hyper[0]), keep(hyper[1]), fresh(one_minus(hyper[2])), decay(hyper[3]);
  const bool nesterov = hyper[4] != 0;
  for_each_gradient(call, hyper[5], [&](int64_t i, Vector gradient, auto lanes) {
    const Vector p = load(parameter + i, lanes);
    const Vector decayed = fma(p, decay, gradient);
    const Vector velocity = load(momentum + i, lanes) * keep + decayed * fresh;
    store(momentum + i, velocity, lanes);
    const Vector direction = nesterov ? fma(keep, velocity, decayed) : velocity;
    store(parameter + i, fma(step, direction, p), lanes);
  });
}

// Lion (Chen et al., arXiv:2302.06675).
void lion(const KernelCall& call) {
  float *parameter = call.outputs[0].as<float>(), *first = call.outputs[1].as<float>();
  const float* hyper = call.inputs[3].as<float>();
  const Vector rate(hyper[0]), beta1(hyper[1]), blend1(one_minus(hyper[1])), beta2(hyper[2]),
      blend2(one_minus(hyper[2]));
  const Vector kept(static_cast<float>(1 - static_cast<double>(hyper[0]) * static_cast<double>(hyper[3])));
  for_each_gradient(call, hyper[4], [&](int64_t i, Vector gradient, auto lanes) {
    const Vector mean = load(first + i, lanes), zero(0.0f);
    const Vector blend = mean * beta1 + gradient * blend1;
    const Vector down = select(less(zero, blend), rate, blend * rate);
    const Vector signed_rate = select(less(blend, zero), -rate, down);
    store(parameter + i, load(parameter + i, lanes) * kept - signed_rate, lanes);
    store(first + i, mean * beta2 + gradient * blend2, lanes);
  });
}

// Adagrad (Duchi et al., JMLR 2011).
void adagrad(const KernelCall& call) {
  float *parameter = call.outputs[0].as<float>(), *sum = call.outputs[1].as<float>();
  const float* hyper = call.inputs[3].as<float>();
  const Vector step(-hyper[0]), epsilon(hyper[1]), decay(hyper[2]);
  for_each_gradient(call, hyper[3], [&](int64_t i, Vector gradient, auto lanes) {
    const Vector p = load(parameter + i, lanes);
    const Vector decayed = fma(p, decay, gradient);
    const Vector total = load(sum + i, lanes) + decayed * decayed;
    store(sum + i, total, lanes);
    store(parameter + i, p + step * decayed / (sqrt(total) + epsilon), lanes);
  });
}

// Fixed blocks, by the length alone: float64 sums of each, added in order.
void sum_of_squares(const KernelCall& call) {
  const Tensor& x = call.inputs[0];
  const int64_t count = x.elements();
  const int64_t block = count <= 65536 * kUpdateBlock ? kUpdateBlock : (count + 65535) / 65536;
  const int64_t blocks = (count + block - 1) / block;
  const RowScratch scratch(call.threads, 2 * blocks, kUpdateBlock);
  double* partials = reinterpret_cast<double*>(scratch.shared());
  call.threads.parallel_for(blocks, 4, [&](int64_t begin, int64_t end, int thread) {
    float* own = scratch.own(thread);
    for (int64_t task = begin; task < end; task++) {
      const int64_t stop = (task + 1) * block < count ? (task + 1) * block : count;
      // Eight sums, which the compiler turns into vectors of doubles.
      double sums[8] = {};
      for (int64_t start = task * block; start < stop; start += kUpdateBlock) {
        const int64_t length = stop - start < kUpdateBlock ? stop - start : kUpdateBlock;
        const float* values = read_floats(x, start, length, own);
        int64_t i = 0;
        for (; i + 8 <= length; i += 8) {
          for (int k = 0; k < 8; k++) {
            const double value = static_cast<double>(values[i + k]);
            sums[k] += value * value;
          }
        }
        for (; i < length; i++) sums[0] += static_cast<double>(values[i]) * static_cast<double>(values[i]);
      }
      double total = 0;
      for (int k = 0; k < 8; k++) total += sums[k];
      partials[task] = total;
    }
  });
  double total = 0;
  for (int64_t task = 0; task < blocks; task++) total += partials[task];
  call.outputs[0].as<float>()[0] = static_cast<float>(total);
}

SLIPSTREAM_KERNEL("adamw", kVectorIsa, adamw);
SLIPSTREAM_KERNEL("adam", kVectorIsa, adam);
SLIPSTREAM_KERNEL("sgd", kVectorIsa, sgd);
SLIPSTREAM_KERNEL("lion", kVectorIsa, lion);
SLIPSTREAM_KERNEL("adagrad", kVectorIsa, adagrad);
SLIPSTREAM_KERNEL("sum_of_squares", kVectorIsa, sum_of_squares);

}  // namespace
}  // namespace slipstream
