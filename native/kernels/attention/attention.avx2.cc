// Attention with AVX2 and FMA: every dtype in float32 products.
#include "kernels/attention/backward.h"
#include "kernels/attention/forward.h"
#include "kernels/attention/paged.h"
#include "kernels/attention/quantized.h"

namespace slipstream {

namespace {

void attention_avx2(const KernelCall& call) { attention<FloatEngine>(call); }
void attention_gradient_avx2(const KernelCall& call) { attention_gradient<FloatEngine>(call); }
void paged_attention_avx2(const KernelCall& call) { paged_attention<FloatEngine>(call); }

}  // namespace

SLIPSTREAM_KERNEL("attention", Isa::avx2, attention_avx2);
SLIPSTREAM_KERNEL("attention_gradient", Isa::avx2, attention_gradient_avx2);
SLIPSTREAM_KERNEL("paged_attention", Isa::avx2, paged_attention_avx2);
SLIPSTREAM_KERNEL("cache_write_quantized", Isa::avx2, cache_write_quantized);

}  // namespace slipstream
