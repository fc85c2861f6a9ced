#include "kernels/rows/swiglu.h"
