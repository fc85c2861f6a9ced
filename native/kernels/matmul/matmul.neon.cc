#include "kernels/matmul/matmul.h"
#include "kernels/matmul/linear_cross_entropy.h"
#include "kernels/matmul/measure.h"

namespace slipstream {

SLIPSTREAM_KERNEL("matmul", Isa::neon, matmul);
SLIPSTREAM_KERNEL("pack_matrix", Isa::neon, pack_matrix);
SLIPSTREAM_KERNEL("matmul_packed", Isa::neon, matmul_packed);
SLIPSTREAM_KERNEL("linear_cross_entropy", Isa::neon, linear_cross_entropy);
SLIPSTREAM_KERNEL("linear_cross_entropy_gradient", Isa::neon, linear_cross_entropy_gradient);
SLIPSTREAM_KERNEL("measure_peak", Isa::neon, measure_peak);
SLIPSTREAM_KERNEL("measure_bandwidth", Isa::neon, measure_bandwidth);

}  // namespace slipstream
