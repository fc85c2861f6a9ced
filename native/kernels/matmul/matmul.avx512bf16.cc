#include "kernels/matmul/matmul.h"
#include "kernels/matmul/linear_cross_entropy.h"
#include "kernels/matmul/measure.h"

namespace slipstream {

SLIPSTREAM_KERNEL("matmul", Isa::avx512bf16, matmul);
SLIPSTREAM_KERNEL("pack_matrix", Isa::avx512bf16, pack_matrix);
SLIPSTREAM_KERNEL("matmul_packed", Isa::avx512bf16, matmul_packed);
SLIPSTREAM_KERNEL("linear_cross_entropy", Isa::avx512bf16, linear_cross_entropy);
SLIPSTREAM_KERNEL("linear_cross_entropy_gradient", Isa::avx512bf16, linear_cross_entropy_gradient);
SLIPSTREAM_KERNEL("measure_peak", Isa::avx512bf16, measure_peak);
SLIPSTREAM_KERNEL("measure_bandwidth", Isa::avx512bf16, measure_bandwidth);

}  // namespace slipstream
