// `measure_byte_peak`: the operations on bytes that the machine could do, for benchmarks.
#pragma once

#include "core/kernel.h"
#include "kernels/quantized/dot.h"
#if defined(__AMX_TILE__) || defined(SLIPSTREAM_AMX_EMULATED)
#include "core/amx.h"
#endif

namespace slipstream {
namespace {

constexpr int kByteChains = 12;  // independent, enough to cover the latency of the unit

// Attributes: iterations. Output: f32 [1], the operations done by all threads together: a product and an
// addition for each byte.
void measure_byte_peak(const KernelCall& call) {
  const int64_t iterations = static_cast<int64_t>(call.attributes[0]);
#if defined(__AMX_TILE__) || defined(SLIPSTREAM_AMX_EMULATED)
  call.threads.run([&](int) {
    tile_configure_full();
    for (int64_t i = 0; i < iterations; i++) {
      tile_dot_i8_u8<0, 4, 6>();
      tile_dot_i8_u8<1, 4, 7>();
      tile_dot_i8_u8<2, 5, 6>();
      tile_dot_i8_u8<3, 5, 7>();
    }
    tile_release();
  });
  const double products = 4.0 * 16 * 16 * 64;
#else
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
  const double products = 4.0 * kWidth * kByteChains;
#endif
  const double operations = 2 * products * static_cast<double>(iterations) * call.threads.size();
  *call.outputs[0].as<float>() = static_cast<float>(operations);
}

}  // namespace
}  // namespace slipstream
