#include "kernels/movement/reduce.h"
