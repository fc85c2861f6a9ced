#include "kernels/quantized/matmul.h"
#include "kernels/quantized/measure.h"
#include "kernels/quantized/quantize.h"
#include "kernels/quantized/repack.h"
#include "kernels/quantized/rows.h"
#include "kernels/quantized/unpack.h"

namespace slipstream {

SLIPSTREAM_KERNEL("quantize_rows", Isa::avx2, quantize_rows);
SLIPSTREAM_KERNEL("matmul_quantized", Isa::avx2, matmul_quantized);
SLIPSTREAM_KERNEL("repack_blocks", Isa::avx2, repack_blocks);
SLIPSTREAM_KERNEL("quantize_matrix", Isa::avx2, quantize_matrix);
SLIPSTREAM_KERNEL("embedding_quantized", Isa::avx2, embedding_quantized);
SLIPSTREAM_KERNEL("dequantize_matrix", Isa::avx2, dequantize_matrix);
SLIPSTREAM_KERNEL("measure_byte_peak", Isa::avx2, measure_byte_peak);

}  // namespace slipstream
