#include "kernels/sampling/sampling.h"
