// Looks for numbers that are not finite.
#pragma once

#include "core/tensor.h"

namespace slipstream {

// Whether every element of a float tensor is finite; true for other dtypes.
bool all_finite(const Tensor& tensor);

}  // namespace slipstream
