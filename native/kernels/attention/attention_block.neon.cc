// Attention to blocks of keys with NEON: every dtype in float32 products.
#include "kernels/attention/block_backward.h"
#include "kernels/attention/block_forward.h"
#include "kernels/attention/delta.h"

namespace slipstream {

namespace {

void attention_block_neon(const KernelCall& call) { attention_block<FloatEngine>(call); }
void attention_block_gradient_neon(const KernelCall& call) { attention_block_gradient<FloatEngine>(call); }

}  // namespace

SLIPSTREAM_KERNEL("attention_block", Isa::neon, attention_block_neon);
SLIPSTREAM_KERNEL("attention_block_gradient", Isa::neon, attention_block_gradient_neon);

}  // namespace slipstream
