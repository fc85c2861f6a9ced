// `measure_byte_peak`: the operations on bytes that the machine could do, for benchmarks.
#pragma once

#include "core/kernel.h"
#include "kernels/quantized/dot.h"

namespace slipstream {
namespace {

constexpr int kByteChains = 12;  // independent, enough to cover the latency of the unit

// Attributes: iterations. Output: f32 [1], the operations done by all threads together: a product and an
// addition for each byte.
void measure_byte_peak(const KernelCall& call) {
  const int64_t iterations = static_cast<int64_t>(call.attributes[0]);
  volatile float sink = 0;
  call.threads.run([&](int thread) {
    const uint8_t weights[4 * kWidth] = {1};
    const int8_t activations[4] = {1, 2, static_cast<int8_t>(thread), 3};
    const Bytes bytes = load_bytes(weights);
    const Activations a = spread(activations);
    Integers sums[kByteChains];
    for (int chain = 0; chain < kByteChains; chain++) sums[chain] = splat_integer(chain);
    for (int64_t i = 0; i < iterations; i++) {
#pragma GCC unroll 12
      for (int chain = 0; chain < kByteChains; chain++) sums[chain] = dot(sums[chain], bytes, a);
    }
    float total = 0;
    for (const Integers& sum : sums) {
      float values[kWidth];
      store(values, to_vector(sum));
      total += values[0];
    }
    sink = total;
  });
  const double operations =
      2.0 * 4 * kWidth * kByteChains * static_cast<double>(iterations) * call.threads.size();
  *call.outputs[0].as<float>() = static_cast<float>(operations);
}

}  // namespace
}  // namespace slipstream
