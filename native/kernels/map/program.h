// The decoded form of a `map` kernel's program and operands (docs/kernels.md), made once a call.
#pragma once

#include <cstdint>

#include "core/kernel.h"

namespace slipstream {

// Positions in `elementwiseOpcodes` (src/graph/expression.ts); a test holds the two together.
enum class Opcode : int32_t {
  constant,
  negate,
  absolute,
  exp,
  log,
  sqrt,
  rsqrt,
  reciprocal,
  tanh,
  sigmoid,
  relu,
  silu,
  gelu,
  gelu_tanh,
  erf,
  sin,
  cos,
  sign,
  floor,
  is_finite,
  add,
  subtract,
  multiply,
  divide,
  maximum,
  minimum,
  power,
  less,
  less_equal,
  equal,
  select,
  round_bf16,
  round_f16,
};

// How an input's elements reach a block of consecutive output elements.
enum class MapAccess : int32_t {
  unused,
  full,      // same shape: a stretch of its own memory
  fixed,     // the same values in every block (a scalar, or a period that divides the block): filled once
  gathered,  // everything else: copied or filled segment by segment
};

// One value of the program: an input, or the result of an instruction. `slot` is its block buffer, in floats
// from the start of a thread's scratch; several values whose lives do not overlap share one.
struct MapValue {
  MapAccess access = MapAccess::unused;  // inputs only
  int64_t slot = 0;
  int64_t strides[kMaximumRank] = {};  // inputs only: by the merged axes, 0 where broadcast
};

struct MapInstruction {
  Opcode opcode;
  int32_t a, b, c;  // values
  float immediate;
};

// Raw arrays and not vectors, since code of every instruction set reads them.
struct MapProgram {
  explicit MapProgram(const KernelCall& call);
  ~MapProgram();
  MapProgram(const MapProgram&) = delete;
  MapProgram& operator=(const MapProgram&) = delete;

  int inputs = 0, instructions = 0;
  MapValue* values = nullptr;      // inputs, then results
  MapInstruction* code = nullptr;  // constants are no steps: their slots are filled once
  int64_t elements = 0;            // of the output
  int64_t block = 0;               // output elements evaluated at a time
  int64_t scratch_floats = 0;      // of all slots
  int rank = 0;                    // merged axes of the output
  int64_t sizes[kMaximumRank] = {};
};

}  // namespace slipstream
