// Sums of the ranks' terms, element by element: the one place where collectives calculate. Terms are added in
// the order in which they are given, in float32 (f64 and i32 in their own type), and rounded once at the end.
#pragma once

#include <cstdint>

#include "core/isa.h"
#include "core/tensor.h"

namespace slipstream::comm {

// outputs[k][i] = inputs[0][i] + inputs[1][i] + ... for every k. An output may be the memory of an input.
using SumFunction = void (*)(const void* const* inputs, int input_count, void* const* outputs,
                             int output_count, int64_t elements);

// The fastest sum of this machine; null for a dtype that cannot be summed (u8, i8).
SumFunction sum_function(DType dtype);

// What each instruction set's file adds before `main`.
struct FloatSums {
  SumFunction f32, bf16, f16;
};
bool register_sums(Isa isa, FloatSums sums);

}  // namespace slipstream::comm
