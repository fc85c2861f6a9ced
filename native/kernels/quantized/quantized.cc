// The scalar twins.
#include "kernels/quantized/matmul.h"
#include "kernels/quantized/measure.h"
#include "kernels/quantized/quantize.h"
#include "kernels/quantized/repack.h"
#include "kernels/quantized/rows.h"
#include "kernels/quantized/unpack.h"

namespace slipstream {

SLIPSTREAM_KERNEL("quantize_rows", Isa::scalar, quantize_rows);
SLIPSTREAM_KERNEL("matmul_quantized", Isa::scalar, matmul_quantized);
SLIPSTREAM_KERNEL("repack_blocks", Isa::scalar, repack_blocks);
SLIPSTREAM_KERNEL("quantize_matrix", Isa::scalar, quantize_matrix);
SLIPSTREAM_KERNEL("embedding_quantized", Isa::scalar, embedding_quantized);
SLIPSTREAM_KERNEL("dequantize_matrix", Isa::scalar, dequantize_matrix);
SLIPSTREAM_KERNEL("measure_byte_peak", Isa::scalar, measure_byte_peak);

}  // namespace slipstream
