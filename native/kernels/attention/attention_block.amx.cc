// Attention to blocks of keys with AMX: bf16 by tiles, other dtypes as with AVX-512.
#include "kernels/attention/amx_engine.h"
#include "kernels/attention/block_backward.h"
#include "kernels/attention/block_forward.h"

namespace slipstream {

namespace {

void attention_block_amx(const KernelCall& call) {
  const Tensor* inputs = call.inputs;
  if (block_multiplies_bf16(read_block_problem(call, inputs[0], inputs[1], 3), inputs[0].dtype)) {
    attention_block<AmxEngine>(call);
  } else {
    attention_block_avx512(call);
  }
}

void attention_block_gradient_amx(const KernelCall& call) {
  const Tensor* inputs = call.inputs;
  if (block_multiplies_bf16(read_block_problem(call, inputs[1], inputs[2], 6), inputs[1].dtype)) {
    attention_block_gradient<AmxEngine>(call);
  } else {
    attention_block_gradient_avx512(call);
  }
}

}  // namespace

SLIPSTREAM_KERNEL("attention_block", kTileIsa, attention_block_amx);
SLIPSTREAM_KERNEL("attention_block_gradient", kTileIsa, attention_block_gradient_amx);

}  // namespace slipstream
