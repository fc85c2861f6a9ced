// The scalar twins.
#define SLIPSTREAM_SCALAR_VECTORS 1
#include "kernels/quantized/blocks.h"

namespace slipstream {

SLIPSTREAM_KERNEL("quantize_blocks", Isa::scalar, quantize_blocks);
SLIPSTREAM_KERNEL("dequantize_blocks", Isa::scalar, dequantize_blocks);

}  // namespace slipstream
