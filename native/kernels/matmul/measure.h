// `measure_peak` and `measure_bandwidth`: what the machine could do, for benchmarks to compare with.
#pragma once

#include "core/kernel.h"
#include "kernels/matmul/micro.h"

namespace slipstream {
namespace {

// The multiply-add unit alone: independent chains, enough to cover its latency (NEON's units may be four).
#if defined(SLIPSTREAM_NEON)
constexpr int kChains = 24;
#else
constexpr int kChains = 12;
#endif

template <class Step>
SLIPSTREAM_INLINE float run_chains(int64_t iterations, const Step& step) {
  Wide sums[kChains];
  for (int chain = 0; chain < kChains; chain++) sums[chain] = wide_splat(static_cast<float>(chain));
  for (int64_t i = 0; i < iterations; i++) {
#pragma GCC unroll 24
    for (int chain = 0; chain < kChains; chain++) sums[chain] = step(sums[chain]);
  }
  float total = 0;
  for (const Wide& sum : sums) {
    float values[kWideWidth];
    wide_store(values, sum);
    total += values[0];
  }
  return total;
}

#if defined(SLIPSTREAM_TILES)
inline void run_tiles(int64_t iterations) {
  tile_configure_full();
  for (int64_t i = 0; i < iterations; i++) {
    tile_dot_bf16<0, 4, 6>();
    tile_dot_bf16<1, 4, 7>();
    tile_dot_bf16<2, 5, 6>();
    tile_dot_bf16<3, 5, 7>();
  }
  tile_release();
}
#endif

// Attributes: kind (0 float32 multiply-adds, 1 bf16 products), iterations. Output: f32 [1], the
// floating-point operations done by all threads together.
void measure_peak(const KernelCall& call) {
  const int64_t iterations = static_cast<int64_t>(call.attributes[1]);
  double operations = 2.0 * kChains * kWideWidth * static_cast<double>(iterations) * call.threads.size();
  const bool pairs = call.attributes[0] == 1;
  volatile float sink = 0;
  call.threads.run([&](int) {
    const Wide a = wide_splat(0.999f), b = wide_splat(0.001f);
#if defined(SLIPSTREAM_TILES)
    if (pairs) return run_tiles(iterations);
#elif defined(__AVX512BF16__)
    if (pairs) {
      const __m512bh x = _mm512_cvtne2ps_pbh(a, b);
      sink = run_chains(iterations, [&](Wide sum) { return _mm512_dpbf16_ps(sum, x, x); });
      return;
    }
#endif
    sink = run_chains(iterations, [&](Wide sum) { return wide_multiply_add(sum, a, b); });
  });
#if defined(SLIPSTREAM_TILES)
  if (pairs) operations = 4.0 * 16 * 16 * 32 * 2 * static_cast<double>(iterations) * call.threads.size();
#elif defined(__AVX512BF16__)
  if (pairs) operations *= 2;
#else
  static_cast<void>(pairs);
#endif
  *call.outputs[0].as<float>() = static_cast<float>(operations);
}

// Input: u8 [bytes]. Output: f32 [threads]. Together the threads read the input once; each sums what it read.
void measure_bandwidth(const KernelCall& call) {
  constexpr int64_t kStep = 8 * kWideWidth;
  const float* data = call.inputs[0].as<float>();
  float* totals = call.outputs[0].as<float>();
  for (int thread = 0; thread < call.threads.size(); thread++) totals[thread] = 0;
  call.threads.parallel_for(
      call.inputs[0].bytes() / 4 / kStep, 1, [&](int64_t begin, int64_t end, int thread) {
        Wide sums[8];
        for (Wide& sum : sums) sum = wide_splat(0);
        for (int64_t i = begin * kStep; i < end * kStep; i += kStep) {
#pragma GCC unroll 8
          for (int j = 0; j < 8; j++) {
            sums[j] = wide_multiply_add(wide_load(data + i + j * kWideWidth), wide_splat(1), sums[j]);
          }
        }
        float total = 0;
        for (const Wide& sum : sums) {
          float values[kWideWidth];
          wide_store(values, sum);
          total += values[0];
        }
        totals[thread] += total;
      });
}

}  // namespace
}  // namespace slipstream
