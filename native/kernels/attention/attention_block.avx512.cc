// Attention to blocks of keys with AVX-512: every dtype in float32 products.
#include "kernels/attention/block_backward.h"
#include "kernels/attention/block_forward.h"
#include "kernels/attention/delta.h"

namespace slipstream {

void attention_block_avx512(const KernelCall& call) { attention_block<FloatEngine>(call); }
void attention_block_gradient_avx512(const KernelCall& call) { attention_block_gradient<FloatEngine>(call); }

SLIPSTREAM_KERNEL("attention_block", Isa::avx512, attention_block_avx512);
SLIPSTREAM_KERNEL("attention_block_gradient", Isa::avx512, attention_block_gradient_avx512);

}  // namespace slipstream
