#include "kernels/quantized/matmul.h"
#include "kernels/quantized/measure.h"

namespace slipstream {

SLIPSTREAM_KERNEL("matmul_quantized", kTileIsa, matmul_quantized);
SLIPSTREAM_KERNEL("measure_byte_peak", kTileIsa, measure_byte_peak);

}  // namespace slipstream
