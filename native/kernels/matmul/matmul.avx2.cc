#include "kernels/matmul/matmul.h"

namespace slipstream {

SLIPSTREAM_KERNEL("matmul", Isa::avx2, matmul);
SLIPSTREAM_KERNEL("pack_matrix", Isa::avx2, pack_matrix);
SLIPSTREAM_KERNEL("matmul_packed", Isa::avx2, matmul_packed);

}  // namespace slipstream
