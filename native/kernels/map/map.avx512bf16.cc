#include "kernels/map/map.h"
