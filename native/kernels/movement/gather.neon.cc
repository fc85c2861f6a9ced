#include "kernels/movement/gather.h"
