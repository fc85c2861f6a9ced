#include "kernels/quantized/blocks.h"

namespace slipstream {

SLIPSTREAM_KERNEL("quantize_blocks", Isa::avx2, quantize_blocks);
SLIPSTREAM_KERNEL("dequantize_blocks", Isa::avx2, dequantize_blocks);

}  // namespace slipstream
