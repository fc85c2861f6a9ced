#include "kernels/rows/rope.h"
