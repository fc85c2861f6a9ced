#include "comm/sum_vector.h"
