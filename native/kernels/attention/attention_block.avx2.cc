// Attention to blocks of keys with AVX2 and FMA: every dtype in float32 products.
#include "kernels/attention/block_backward.h"
#include "kernels/attention/block_forward.h"
#include "kernels/attention/delta.h"

namespace slipstream {

namespace {

void attention_block_avx2(const KernelCall& call) { attention_block<FloatEngine>(call); }
void attention_block_gradient_avx2(const KernelCall& call) { attention_block_gradient<FloatEngine>(call); }

}  // namespace

SLIPSTREAM_KERNEL("attention_block", Isa::avx2, attention_block_avx2);
SLIPSTREAM_KERNEL("attention_block_gradient", Isa::avx2, attention_block_gradient_avx2);

}  // namespace slipstream
