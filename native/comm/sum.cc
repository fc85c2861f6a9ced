#define SLIPSTREAM_SCALAR_VECTORS
#include "comm/sum.h"

#include <array>

#include "comm/sum_vector.h"

namespace slipstream::comm {

namespace {

constexpr int kIsaCount = static_cast<int>(Isa::amx_emulated) + 1;

// Made at its first use: registrars of other files may run before this file's.
std::array<FloatSums, kIsaCount>& registry() {
  static std::array<FloatSums, kIsaCount> sums{};
  return sums;
}

const FloatSums& fastest() {
  static const FloatSums* const found = [] {
    // bf16's rounding instruction takes subnormal numbers for 0, so no sums are made for its level.
    int level = static_cast<int>(detect_isa());
    while (level > 0 && registry()[static_cast<size_t>(level)].f32 == nullptr) level--;
    return &registry()[static_cast<size_t>(level)];
  }();
  return *found;
}

// Accumulator is unsigned for integers: sums beyond the range wrap, as everywhere.
template <class T, class Accumulator>
void sum_plain(const void* const* inputs, int input_count, void* const* outputs, int output_count,
               int64_t elements) {
  for (int64_t i = 0; i < elements; i++) {
    Accumulator sum = static_cast<Accumulator>(static_cast<const T*>(inputs[0])[i]);
    for (int k = 1; k < input_count; k++) {
      sum += static_cast<Accumulator>(static_cast<const T*>(inputs[k])[i]);
    }
    for (int k = 0; k < output_count; k++) static_cast<T*>(outputs[k])[i] = static_cast<T>(sum);
  }
}

}  // namespace

bool register_sums(Isa isa, FloatSums sums) {
  registry()[static_cast<size_t>(isa)] = sums;
  return true;
}

SumFunction sum_function(DType dtype) {
  switch (dtype) {
    case DType::f32:
      return fastest().f32;
    case DType::bf16:
      return fastest().bf16;
    case DType::f16:
      return fastest().f16;
    case DType::f64:
      return sum_plain<double, double>;
    case DType::i32:
      return sum_plain<int32_t, uint32_t>;
    default:
      return nullptr;
  }
}

}  // namespace slipstream::comm
