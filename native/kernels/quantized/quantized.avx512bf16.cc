#include "kernels/quantized/matmul.h"
#include "kernels/quantized/measure.h"
#include "kernels/quantized/quantize.h"
#include "kernels/quantized/repack.h"
#include "kernels/quantized/rows.h"
#include "kernels/quantized/unpack.h"

namespace slipstream {

SLIPSTREAM_KERNEL("quantize_rows", Isa::avx512bf16, quantize_rows);
SLIPSTREAM_KERNEL("matmul_quantized", Isa::avx512bf16, matmul_quantized);
SLIPSTREAM_KERNEL("repack_blocks", Isa::avx512bf16, repack_blocks);
SLIPSTREAM_KERNEL("quantize_matrix", Isa::avx512bf16, quantize_matrix);
SLIPSTREAM_KERNEL("embedding_quantized", Isa::avx512bf16, embedding_quantized);
SLIPSTREAM_KERNEL("dequantize_matrix", Isa::avx512bf16, dequantize_matrix);
SLIPSTREAM_KERNEL("measure_byte_peak", Isa::avx512bf16, measure_byte_peak);

}  // namespace slipstream
