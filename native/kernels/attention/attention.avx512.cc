// Attention with AVX-512: every dtype in float32 products.
#include "kernels/attention/backward.h"
#include "kernels/attention/forward.h"
#include "kernels/attention/paged.h"
#include "kernels/attention/quantized.h"

namespace slipstream {

void attention_avx512(const KernelCall& call) { attention<FloatEngine>(call); }
void attention_gradient_avx512(const KernelCall& call) { attention_gradient<FloatEngine>(call); }
void paged_attention_avx512(const KernelCall& call) { paged_attention<FloatEngine>(call); }

SLIPSTREAM_KERNEL("attention", Isa::avx512, attention_avx512);
SLIPSTREAM_KERNEL("attention_gradient", Isa::avx512, attention_gradient_avx512);
SLIPSTREAM_KERNEL("paged_attention", Isa::avx512, paged_attention_avx512);
SLIPSTREAM_KERNEL("cache_write_quantized", Isa::avx512, cache_write_quantized);

}  // namespace slipstream
