#include "executor/finite.h"

namespace slipstream {

namespace {

// An exponent of all ones marks infinities and NaNs.
template <class Bits>
bool exponents_below(const Bits* bits, int64_t count, Bits mask) {
  bool finite = true;
  for (int64_t i = 0; i < count; i++) finite &= (bits[i] & mask) != mask;
  return finite;
}

}  // namespace

bool all_finite(const Tensor& tensor) {
  switch (tensor.dtype) {
    case DType::f32:
      return exponents_below<uint32_t>(tensor.as<uint32_t>(), tensor.elements(), 0x7f800000u);
    case DType::f64:
      return exponents_below<uint64_t>(tensor.as<uint64_t>(), tensor.elements(), 0x7ff0000000000000u);
    case DType::bf16:
      return exponents_below<uint16_t>(tensor.as<uint16_t>(), tensor.elements(), 0x7f80);
    case DType::f16:
      return exponents_below<uint16_t>(tensor.as<uint16_t>(), tensor.elements(), 0x7c00);
    default:
      return true;
  }
}

}  // namespace slipstream
