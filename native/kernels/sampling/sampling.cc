// The scalar twins.
#define SLIPSTREAM_SCALAR_VECTORS 1
#include "kernels/sampling/sampling.h"
