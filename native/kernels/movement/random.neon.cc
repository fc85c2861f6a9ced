#include "kernels/movement/random.h"
