#include "kernels/movement/fill.h"
