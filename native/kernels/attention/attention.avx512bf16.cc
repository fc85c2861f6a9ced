// Attention with AVX512-BF16: bf16 by vdpbf16ps, other dtypes as with AVX-512.
#include "kernels/attention/backward.h"
#include "kernels/attention/bf16_engine.h"
#include "kernels/attention/forward.h"
#include "kernels/attention/paged.h"

namespace slipstream {

namespace {

void attention_avx512bf16(const KernelCall& call) {
  const Tensor* inputs = call.inputs;
  if (multiplies_bf16(read_problem(call, inputs[0], inputs[1], inputs[3]), inputs[0].dtype)) {
    attention<Bf16Engine>(call);
  } else {
    attention_avx512(call);
  }
}

void attention_gradient_avx512bf16(const KernelCall& call) {
  const Tensor* inputs = call.inputs;
  if (multiplies_bf16(read_problem(call, inputs[1], inputs[2], inputs[6]), inputs[1].dtype)) {
    attention_gradient<Bf16Engine>(call);
  } else {
    attention_gradient_avx512(call);
  }
}

void paged_attention_avx512bf16(const KernelCall& call) {
  const Tensor* inputs = call.inputs;
  const auto fits = [](DType cache) { return cache == DType::bf16 || cache == DType::i8; };
  if (inputs[0].dtype == DType::bf16 && fits(inputs[1].dtype) && fits(inputs[2].dtype)) {
    paged_attention<Bf16Engine>(call);
  } else {
    paged_attention_avx512(call);
  }
}

}  // namespace

SLIPSTREAM_KERNEL("attention", Isa::avx512bf16, attention_avx512bf16);
SLIPSTREAM_KERNEL("attention_gradient", Isa::avx512bf16, attention_gradient_avx512bf16);
SLIPSTREAM_KERNEL("paged_attention", Isa::avx512bf16, paged_attention_avx512bf16);

}  // namespace slipstream
