#include "kernels/rows/norm.h"
