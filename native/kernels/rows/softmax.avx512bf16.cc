#include "kernels/rows/softmax.h"
