// The scalar twins.
#define SLIPSTREAM_SCALAR_VECTORS 1
#include "kernels/rows/swiglu.h"
