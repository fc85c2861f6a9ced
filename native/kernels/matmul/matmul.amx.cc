#include "kernels/matmul/matmul.h"

#include "kernels/matmul/linear_cross_entropy.h"
#include "kernels/matmul/matmul.h"
#include "kernels/matmul/measure.h"

namespace slipstream {

SLIPSTREAM_KERNEL("matmul", kTileIsa, matmul);
SLIPSTREAM_KERNEL("pack_matrix", kTileIsa, pack_matrix);
SLIPSTREAM_KERNEL("matmul_packed", kTileIsa, matmul_packed);
SLIPSTREAM_KERNEL("linear_cross_entropy", kTileIsa, linear_cross_entropy);
SLIPSTREAM_KERNEL("linear_cross_entropy_gradient", kTileIsa, linear_cross_entropy_gradient);
SLIPSTREAM_KERNEL("measure_peak", kTileIsa, measure_peak);
SLIPSTREAM_KERNEL("measure_bandwidth", kTileIsa, measure_bandwidth);

}  // namespace slipstream
