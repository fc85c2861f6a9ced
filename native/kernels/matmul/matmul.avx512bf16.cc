#include "kernels/matmul/matmul.h"

namespace slipstream {

SLIPSTREAM_KERNEL("matmul", Isa::avx512bf16, matmul);
SLIPSTREAM_KERNEL("pack_matrix", Isa::avx512bf16, pack_matrix);
SLIPSTREAM_KERNEL("matmul_packed", Isa::avx512bf16, matmul_packed);

}  // namespace slipstream
