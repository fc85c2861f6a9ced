#include "kernels/matmul/matmul.h"

namespace slipstream {

SLIPSTREAM_KERNEL("matmul", Isa::avx512, matmul);
SLIPSTREAM_KERNEL("pack_matrix", Isa::avx512, pack_matrix);
SLIPSTREAM_KERNEL("matmul_packed", Isa::avx512, matmul_packed);

}  // namespace slipstream
