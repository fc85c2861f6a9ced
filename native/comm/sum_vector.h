// The sums of floats over `Vector`: included into one file an instruction set. Four vectors of all terms are
// added before anything is stored, so that an output may be an input.
#pragma once

#include "comm/sum.h"
#include "core/vector.h"

namespace slipstream::comm {
namespace {

template <class T>
void sum_vectors(const void* const* inputs, int input_count, void* const* outputs, int output_count,
                 int64_t elements) {
  const auto input = [&](int index) { return static_cast<const T*>(inputs[index]); };
  const auto output = [&](int index) { return static_cast<T*>(outputs[index]); };
  constexpr int64_t step = Vector::lanes;
  int64_t i = 0;
  for (; i + 4 * step <= elements; i += 4 * step) {
    Vector a = Vector::load(input(0) + i), b = Vector::load(input(0) + i + step);
    Vector c = Vector::load(input(0) + i + 2 * step), d = Vector::load(input(0) + i + 3 * step);
    for (int k = 1; k < input_count; k++) {
      a = a + Vector::load(input(k) + i);
      b = b + Vector::load(input(k) + i + step);
      c = c + Vector::load(input(k) + i + 2 * step);
      d = d + Vector::load(input(k) + i + 3 * step);
    }
    for (int k = 0; k < output_count; k++) {
      a.store(output(k) + i);
      b.store(output(k) + i + step);
      c.store(output(k) + i + 2 * step);
      d.store(output(k) + i + 3 * step);
    }
  }
  for (; i < elements; i += step) {
    const int64_t count = elements - i < step ? elements - i : step;
    Vector a = Vector::load(input(0) + i, count);
    for (int k = 1; k < input_count; k++) a = a + Vector::load(input(k) + i, count);
    for (int k = 0; k < output_count; k++) a.store(output(k) + i, count);
  }
}

[[maybe_unused]] const bool registered =
    register_sums(kVectorIsa, {sum_vectors<float>, sum_vectors<bf16>, sum_vectors<f16>});

}  // namespace
}  // namespace slipstream::comm
