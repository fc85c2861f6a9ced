#include "kernels/quantized/blocks.h"

namespace slipstream {

SLIPSTREAM_KERNEL("quantize_blocks", Isa::neon, quantize_blocks);
SLIPSTREAM_KERNEL("dequantize_blocks", Isa::neon, dequantize_blocks);

}  // namespace slipstream
