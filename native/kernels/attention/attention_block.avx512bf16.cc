// Attention to blocks of keys with AVX512-BF16: bf16 by vdpbf16ps, other dtypes as with AVX-512.
#include "kernels/attention/bf16_engine.h"
#include "kernels/attention/block_backward.h"
#include "kernels/attention/block_forward.h"

namespace slipstream {

namespace {

void attention_block_avx512bf16(const KernelCall& call) {
  const Tensor* inputs = call.inputs;
  if (block_multiplies_bf16(read_block_problem(call, inputs[0], inputs[1], 3), inputs[0].dtype)) {
    attention_block<Bf16Engine>(call);
  } else {
    attention_block_avx512(call);
  }
}

void attention_block_gradient_avx512bf16(const KernelCall& call) {
  const Tensor* inputs = call.inputs;
  if (block_multiplies_bf16(read_block_problem(call, inputs[1], inputs[2], 6), inputs[1].dtype)) {
    attention_block_gradient<Bf16Engine>(call);
  } else {
    attention_block_gradient_avx512(call);
  }
}

}  // namespace

SLIPSTREAM_KERNEL("attention_block", Isa::avx512bf16, attention_block_avx512bf16);
SLIPSTREAM_KERNEL("attention_block_gradient", Isa::avx512bf16, attention_block_gradient_avx512bf16);

}  // namespace slipstream
