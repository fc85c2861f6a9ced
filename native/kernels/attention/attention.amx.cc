// Attention with AMX: bf16 by tiles, other dtypes as with AVX-512.
#include "kernels/attention/amx_engine.h"
#include "kernels/attention/backward.h"
#include "kernels/attention/forward.h"
#include "kernels/attention/paged.h"

namespace slipstream {

namespace {

void attention_amx(const KernelCall& call) {
  const Tensor* inputs = call.inputs;
  if (multiplies_bf16(read_problem(call, inputs[0], inputs[1], inputs[3]), inputs[0].dtype)) {
    attention<AmxEngine>(call);
  } else {
    attention_avx512(call);
  }
}

void attention_gradient_amx(const KernelCall& call) {
  const Tensor* inputs = call.inputs;
  if (multiplies_bf16(read_problem(call, inputs[1], inputs[2], inputs[6]), inputs[1].dtype)) {
    attention_gradient<AmxEngine>(call);
  } else {
    attention_gradient_avx512(call);
  }
}

void paged_attention_amx(const KernelCall& call) {
  const Tensor* inputs = call.inputs;
  const auto fits = [](DType cache) { return cache == DType::bf16 || cache == DType::i8; };
  if (inputs[0].dtype == DType::bf16 && fits(inputs[1].dtype) && fits(inputs[2].dtype)) {
    paged_attention<AmxEngine>(call);
  } else {
    paged_attention_avx512(call);
  }
}

}  // namespace

SLIPSTREAM_KERNEL("attention", kTileIsa, attention_amx);
SLIPSTREAM_KERNEL("attention_gradient", kTileIsa, attention_gradient_amx);
SLIPSTREAM_KERNEL("paged_attention", kTileIsa, paged_attention_amx);

}  // namespace slipstream
