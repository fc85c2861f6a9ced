// The scalar twins.
#define SLIPSTREAM_SCALAR_VECTORS 1
#include "kernels/matmul/matmul.h"

#include "kernels/matmul/linear_cross_entropy.h"
#include "kernels/matmul/measure.h"

namespace slipstream {

SLIPSTREAM_KERNEL("matmul", Isa::scalar, matmul);
SLIPSTREAM_KERNEL("pack_matrix", Isa::scalar, pack_matrix);
SLIPSTREAM_KERNEL("matmul_packed", Isa::scalar, matmul_packed);
SLIPSTREAM_KERNEL("linear_cross_entropy", Isa::scalar, linear_cross_entropy);
SLIPSTREAM_KERNEL("linear_cross_entropy_gradient", Isa::scalar, linear_cross_entropy_gradient);
SLIPSTREAM_KERNEL("measure_peak", Isa::scalar, measure_peak);
SLIPSTREAM_KERNEL("measure_bandwidth", Isa::scalar, measure_bandwidth);

}  // namespace slipstream
