// The `map` interpreter (docs/kernels.md): a straight-line program over blocks of up to 1024 output elements.
// Every value of a block is a buffer of float32 in the first-level cache; float32 operands and results of the
// output's shape are used where they lie, and inputs that repeat with the block are laid out once a thread.
// Instructions run over whole vectors: the last lanes of a last block hold rubbish that is never stored.
//
// The output may be the memory of an input of the same shape and dtype: an element is written after the last
// instruction that reads its block.
#pragma once

#include "core/float_rows.h"
#include "core/vector_math.h"
#include "kernels/map/program.h"

namespace slipstream {
namespace {

template <class Operation>
SLIPSTREAM_INLINE void unary(float* out, const float* a, int64_t count, const Operation& operation) {
  for (int64_t i = 0; i < count; i += Vector::lanes) operation(Vector::load(a + i)).store(out + i);
}

template <class Operation>
SLIPSTREAM_INLINE void binary(float* out, const float* a, const float* b, int64_t count,
                              const Operation& operation) {
  for (int64_t i = 0; i < count; i += Vector::lanes) {
    operation(Vector::load(a + i), Vector::load(b + i)).store(out + i);
  }
}

// Rounds to T and back: what storing an intermediate value would have done.
template <class T>
SLIPSTREAM_INLINE void round_through(float* out, const float* a, int64_t count) {
  for (int64_t i = 0; i < count; i += Vector::lanes) {
    T rounded[Vector::lanes];
    Vector::load(a + i).store(rounded);
    Vector::load(rounded).store(out + i);
  }
}

SLIPSTREAM_INLINE Vector one_where(Mask mask) { return select(mask, Vector(1.0f), Vector(0.0f)); }

// One instruction over `count` elements, a multiple of the lanes.
inline void evaluate(Opcode opcode, float* out, const float* a, const float* b, const float* c,
                     int64_t count) {
  using V = Vector;
  switch (opcode) {
    case Opcode::constant:
      return;
    case Opcode::negate:
      return unary(out, a, count, [](V x) { return -x; });
    case Opcode::absolute:
      return unary(out, a, count, [](V x) { return abs(x); });
    case Opcode::exp:
      return unary(out, a, count, [](V x) { return exp(x); });
    case Opcode::log:
      return unary(out, a, count, [](V x) { return log(x); });
    case Opcode::sqrt:
      return unary(out, a, count, [](V x) { return sqrt(x); });
    case Opcode::rsqrt:
      return unary(out, a, count, [](V x) { return V(1.0f) / sqrt(x); });
    case Opcode::reciprocal:
      return unary(out, a, count, [](V x) { return V(1.0f) / x; });
    case Opcode::tanh:
      return unary(out, a, count, [](V x) { return tanh(x); });
    case Opcode::sigmoid:
      return unary(out, a, count, [](V x) { return sigmoid(x); });
    case Opcode::relu:
      return unary(out, a, count, [](V x) { return max(V(0.0f), x); });
    case Opcode::silu:
      return unary(out, a, count, [](V x) { return silu(x); });
    case Opcode::gelu:
      return unary(out, a, count, [](V x) { return gelu(x); });
    case Opcode::gelu_tanh:
      return unary(out, a, count, [](V x) { return gelu_tanh(x); });
    case Opcode::erf:
      return unary(out, a, count, [](V x) { return erf(x); });
    case Opcode::sin:
      return unary(out, a, count, [](V x) { return sin(x); });
    case Opcode::cos:
      return unary(out, a, count, [](V x) { return cos(x); });
    case Opcode::sign:
      return unary(out, a, count, [](V x) {
        const V positive = select(less(V(0.0f), x), V(1.0f), x);
        return select(less(x, V(0.0f)), V(-1.0f), positive);
      });
    case Opcode::floor:
      return unary(out, a, count, [](V x) { return floor(x); });
    case Opcode::is_finite:
      return unary(out, a, count, [](V x) { return one_where(less(abs(x), V(__builtin_inff()))); });
    case Opcode::add:
      return binary(out, a, b, count, [](V x, V y) { return x + y; });
    case Opcode::subtract:
      return binary(out, a, b, count, [](V x, V y) { return x - y; });
    case Opcode::multiply:
      return binary(out, a, b, count, [](V x, V y) { return x * y; });
    case Opcode::divide:
      return binary(out, a, b, count, [](V x, V y) { return x / y; });
    case Opcode::maximum:
      return binary(out, a, b, count, [](V x, V y) { return maximum_or_nan(x, y); });
    case Opcode::minimum:
      return binary(out, a, b, count, [](V x, V y) { return minimum_or_nan(x, y); });
    case Opcode::power:
      for (int64_t i = 0; i < count; i++) out[i] = __builtin_powf(a[i], b[i]);
      return;
    case Opcode::less:
      return binary(out, a, b, count, [](V x, V y) { return one_where(less(x, y)); });
    case Opcode::less_equal:
      return binary(out, a, b, count, [](V x, V y) { return one_where(less_equal(x, y)); });
    case Opcode::equal:
      return binary(out, a, b, count, [](V x, V y) { return one_where(equal(x, y)); });
    case Opcode::select:
      for (int64_t i = 0; i < count; i += V::lanes) {
        select(equal(V::load(a + i), V(0.0f)), V::load(c + i), V::load(b + i)).store(out + i);
      }
      return;
    case Opcode::round_bf16:
      return round_through<bf16>(out, a, count);
    case Opcode::round_f16:
      return round_through<f16>(out, a, count);
  }
}

// Output elements [start, start + count) of a broadcast input, segment by segment along the innermost axis.
inline void gather_block(const MapProgram& program, const MapValue& value, const Tensor& tensor,
                         int64_t start, int64_t count, float* target) {
  const int inner = program.rank - 1;
  const int64_t inner_size = inner < 0 ? 1 : program.sizes[inner];
  const int64_t inner_stride = inner < 0 ? 0 : value.strides[inner];
  for (int64_t done = 0; done < count;) {
    int64_t index = (start + done) / inner_size;
    const int64_t within = (start + done) % inner_size;
    int64_t offset = within * inner_stride;
    for (int axis = inner - 1; axis >= 0; axis--) {
      offset += index % program.sizes[axis] * value.strides[axis];
      index /= program.sizes[axis];
    }
    int64_t length = inner_size - within;
    if (length > count - done) length = count - done;
    if (inner_stride == 0) {
      float element;
      convert_to_floats(tensor, offset, 1, &element);
      for_each_vector(length,
                      [&](int64_t i, auto lanes) { store(target + done + i, Vector(element), lanes); });
    } else {
      convert_to_floats(tensor, offset, length, target + done);
    }
    done += length;
  }
}

// The buffers that do not change from block to block.
inline void fill_fixed_slots(const KernelCall& call, const MapProgram& program, float* slots) {
  for (int input = 0; input < program.inputs; input++) {
    const MapValue& value = program.values[input];
    if (value.access != MapAccess::fixed) continue;
    const int64_t count = program.block < program.elements ? program.block : program.elements;
    gather_block(program, value, call.inputs[input], 0, count, slots + value.slot);
  }
  for (int i = 0; i < program.instructions; i++) {
    if (program.code[i].opcode != Opcode::constant) continue;
    float* slot = slots + program.values[program.inputs + i].slot;
    for (int64_t k = 0; k < padded(program.block); k++) slot[k] = program.code[i].immediate;
  }
}

// Evaluates output elements [start, start + count). `places` holds where each value's block lies.
inline void evaluate_block(const KernelCall& call, const MapProgram& program, int64_t start, int64_t count,
                           float* slots, const float** places) {
  const Tensor& y = call.outputs[0];
  const bool whole = count % Vector::lanes == 0;
  for (int input = 0; input < program.inputs; input++) {
    const MapValue& value = program.values[input];
    if (value.access == MapAccess::unused || value.access == MapAccess::fixed) continue;
    const Tensor& x = call.inputs[input];
    float* slot = slots + value.slot;
    places[input] = slot;
    if (value.access == MapAccess::gathered) {
      gather_block(program, value, x, start, count, slot);
    } else if (whole) {
      places[input] = read_floats(x, start, count, slot);
    } else {
      convert_to_floats(x, start, count, slot);
    }
  }
  const int64_t steps = (count + Vector::lanes - 1) / Vector::lanes * Vector::lanes;
  const int last = program.instructions - 1;
  for (int i = 0; i <= last; i++) {
    const MapInstruction& step = program.code[i];
    if (step.opcode == Opcode::constant) continue;
    float* slot = slots + program.values[program.inputs + i].slot;
    float* out = i == last && whole ? floats_to_write(y, start, slot) : slot;
    const bool three = step.opcode == Opcode::select;
    const bool two = step.opcode >= Opcode::add && step.opcode <= Opcode::select;
    evaluate(step.opcode, out, places[step.a], two ? places[step.b] : nullptr,
             three ? places[step.c] : nullptr, steps);
    places[program.inputs + i] = out;
  }
  write_floats(y, start, count, places[last < 0 ? 0 : program.inputs + last]);
}

// y = operation(a, b) for elements of one dtype, read and written where they lie.
template <class Operation>
SLIPSTREAM_INLINE void combine(const KernelCall& call, const Tensor& a, const Tensor& b,
                               const Operation& operation) {
  const Tensor& y = call.outputs[0];
  call.threads.parallel_for(y.elements(), 8192, [&](int64_t begin, int64_t end, int) {
    with_float_type(y.dtype, [&](auto element) {
      using T = decltype(element);
      const T *first = a.as<T>() + begin, *second = b.as<T>() + begin;
      T* out = y.as<T>() + begin;
      for_each_vector(end - begin, [&](int64_t i, auto lanes) {
        store(out + i, operation(load(first + i, lanes), load(second + i, lanes)), lanes);
      });
    });
  });
}

// The sum or the product of two tensors of one shape and float dtype, such as a residual connection's: no
// block buffers. False where the program is anything else.
inline bool map_at_once(const KernelCall& call, const MapProgram& program) {
  if (program.instructions != 1) return false;
  const MapInstruction& step = program.code[0];
  if (step.opcode != Opcode::add && step.opcode != Opcode::multiply) return false;
  const DType dtype = call.outputs[0].dtype;
  if (dtype != DType::f32 && dtype != DType::bf16 && dtype != DType::f16) return false;
  for (const int32_t operand : {step.a, step.b}) {
    if (program.values[operand].access != MapAccess::full || call.inputs[operand].dtype != dtype)
      return false;
  }
  const Tensor &a = call.inputs[step.a], &b = call.inputs[step.b];
  if (step.opcode == Opcode::add) {
    combine(call, a, b, [](Vector x, Vector y) { return x + y; });
  } else {
    combine(call, a, b, [](Vector x, Vector y) { return x * y; });
  }
  return true;
}

void map(const KernelCall& call) {
  const MapProgram program(call);
  if (program.elements == 0 || map_at_once(call, program)) return;
  const int64_t blocks = (program.elements + program.block - 1) / program.block;
  const int values = program.inputs + program.instructions;
  const int64_t place_floats = padded(2 * values);
  const RowScratch scratch(call.threads, 0, program.scratch_floats + place_floats);
  const int64_t grain = program.block >= 8192 ? 1 : 8192 / program.block;
  call.threads.parallel_for(blocks, grain, [&](int64_t begin, int64_t end, int thread) {
    float* slots = scratch.own(thread);
    const float** places = reinterpret_cast<const float**>(slots + program.scratch_floats);
    for (int value = 0; value < values; value++) places[value] = slots + program.values[value].slot;
    fill_fixed_slots(call, program, slots);
    for (int64_t block = begin; block < end; block++) {
      const int64_t start = block * program.block;
      const int64_t left = program.elements - start;
      evaluate_block(call, program, start, left < program.block ? left : program.block, slots, places);
    }
  });
}

SLIPSTREAM_KERNEL("map", kVectorIsa, map);

}  // namespace
}  // namespace slipstream
