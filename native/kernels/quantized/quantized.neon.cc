#include "kernels/quantized/matmul.h"
#include "kernels/quantized/measure.h"
#include "kernels/quantized/quantize.h"
#include "kernels/quantized/repack.h"
#include "kernels/quantized/rows.h"
#include "kernels/quantized/unpack.h"

namespace slipstream {

SLIPSTREAM_KERNEL("quantize_rows", Isa::neon, quantize_rows);
SLIPSTREAM_KERNEL("matmul_quantized", Isa::neon, matmul_quantized);
SLIPSTREAM_KERNEL("repack_blocks", Isa::neon, repack_blocks);
SLIPSTREAM_KERNEL("quantize_matrix", Isa::neon, quantize_matrix);
SLIPSTREAM_KERNEL("embedding_quantized", Isa::neon, embedding_quantized);
SLIPSTREAM_KERNEL("dequantize_matrix", Isa::neon, dequantize_matrix);
SLIPSTREAM_KERNEL("measure_byte_peak", Isa::neon, measure_byte_peak);

}  // namespace slipstream
