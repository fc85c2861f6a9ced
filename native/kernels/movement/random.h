// random (docs/kernels.md), in batches of 16 Philox blocks: 64 words, which are 64 uniform or 32 normal
// elements. Element i of a uniform tensor takes word i of the stream, of a normal one words 2 i and 2 i + 1.
#pragma once

#include "core/float_rows.h"
#include "core/random.h"

namespace slipstream {
namespace {

void random_numbers(const KernelCall& call) {
  constexpr int kBlocks = 16, kWords = 4 * kBlocks;
  const Tensor& y = call.outputs[0];
  const int32_t* seed = call.inputs[0].as<int32_t>();
  const bool normal = call.attributes[0] != 0;
  const RandomStream random = {static_cast<uint32_t>(seed[0]), static_cast<uint32_t>(seed[1]),
                               static_cast<uint32_t>(call.attributes[1])};
  const int64_t batch = normal ? kWords / 2 : kWords, count = y.elements();
  call.threads.parallel_for((count + batch - 1) / batch, 64, [&](int64_t begin, int64_t end, int) {
    alignas(64) uint32_t words[kWords];
    alignas(64) float values[kWords];
    for (int64_t task = begin; task < end; task++) {
      philox_blocks<kBlocks>(random, static_cast<uint64_t>(task) * kBlocks, words);
      if (normal) {
        for (int i = 0; i < kWords / 2; i++) values[i] = normal_from_bits(words[2 * i], words[2 * i + 1]);
      } else {
        for (int i = 0; i < kWords; i++) values[i] = uniform_from_bits(words[i]);
      }
      const int64_t start = task * batch;
      write_floats(y, start, count - start < batch ? count - start : batch, values);
    }
  });
}

SLIPSTREAM_KERNEL("random", kVectorIsa, random_numbers);

}  // namespace
}  // namespace slipstream
