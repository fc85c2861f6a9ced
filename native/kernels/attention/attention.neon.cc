// Attention with NEON: every dtype in float32 products.
#include "kernels/attention/backward.h"
#include "kernels/attention/forward.h"
#include "kernels/attention/paged.h"
#include "kernels/attention/quantized.h"

namespace slipstream {

namespace {

void attention_neon(const KernelCall& call) { attention<FloatEngine>(call); }
void attention_gradient_neon(const KernelCall& call) { attention_gradient<FloatEngine>(call); }
void paged_attention_neon(const KernelCall& call) { paged_attention<FloatEngine>(call); }

}  // namespace

SLIPSTREAM_KERNEL("attention", Isa::neon, attention_neon);
SLIPSTREAM_KERNEL("attention_gradient", Isa::neon, attention_gradient_neon);
SLIPSTREAM_KERNEL("paged_attention", Isa::neon, paged_attention_neon);
SLIPSTREAM_KERNEL("cache_write_quantized", Isa::neon, cache_write_quantized);

}  // namespace slipstream
