#include "kernels/matmul/matmul.h"

namespace slipstream {

SLIPSTREAM_KERNEL("matmul", Isa::scalar, matmul);
SLIPSTREAM_KERNEL("pack_matrix", Isa::scalar, pack_matrix);
SLIPSTREAM_KERNEL("matmul_packed", Isa::scalar, matmul_packed);

}  // namespace slipstream
