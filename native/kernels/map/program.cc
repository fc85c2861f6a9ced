// Decoding of `map` programs: axes are merged, inputs classified, and block buffers assigned by liveness.
#include "kernels/map/program.h"

#include <vector>

namespace slipstream {

namespace {

// Small enough that the buffers of a usual program stay in a first-level cache of 32 KiB.
constexpr int64_t kLargeBlock = 1024;
constexpr int64_t kSmallBlock = 512;
constexpr int64_t kManyValues = 5;

int arity(Opcode opcode) {
  if (opcode == Opcode::constant) return 0;
  if (opcode < Opcode::add || opcode > Opcode::select) return 1;
  return opcode < Opcode::select ? 2 : 3;
}

// Strides of the inputs over the output's axes (0 where broadcast), with axes merged wherever every input
// walks them as one.
void merge_axes(const KernelCall& call, MapProgram* program) {
  const Tensor& y = call.outputs[0];
  std::vector<std::vector<int64_t>> strides(program->inputs, std::vector<int64_t>(kMaximumRank, 0));
  for (int input = 0; input < program->inputs; input++) {
    const Tensor& x = call.inputs[input];
    int64_t stride = 1;
    for (int axis = x.rank - 1; axis >= 0; axis--) {
      if (x.sizes[axis] != 1) strides[input][axis + y.rank - x.rank] = stride;
      stride *= x.sizes[axis];
    }
  }
  for (int axis = 0; axis < y.rank; axis++) {
    const int64_t size = y.sizes[axis];
    if (size == 1) continue;
    bool merges = program->rank > 0;
    for (int input = 0; merges && input < program->inputs; input++) {
      merges = program->values[input].strides[program->rank - 1] == strides[input][axis] * size;
    }
    if (!merges) program->rank++;
    const int last = program->rank - 1;
    program->sizes[last] = merges ? program->sizes[last] * size : size;
    for (int input = 0; input < program->inputs; input++) {
      program->values[input].strides[last] = strides[input][axis];
    }
  }
}

// The number of output elements after which an input repeats, if it varies only with trailing axes and
// covers them contiguously; 1 for a scalar, 0 where there is no such period.
int64_t period_of(const MapProgram& program, const MapValue& input) {
  int64_t period = 1;
  int axis = program.rank - 1;
  for (; axis >= 0 && input.strides[axis] == period; axis--) period *= program.sizes[axis];
  for (; axis >= 0; axis--) {
    if (input.strides[axis] != 0) return 0;
  }
  return period;
}

void decode(const KernelCall& call, MapProgram* program) {
  const double* attribute = call.attributes + 1;
  for (int i = 0; i < program->instructions; i++, attribute += 5) {
    MapInstruction& step = program->code[i];
    step.opcode = static_cast<Opcode>(static_cast<int32_t>(attribute[0]));
    step.a = static_cast<int32_t>(attribute[1]);
    step.b = static_cast<int32_t>(attribute[2]);
    step.c = static_cast<int32_t>(attribute[3]);
    step.immediate = static_cast<float>(attribute[4]);
    if (step.opcode != Opcode::power || step.b < program->inputs) continue;
    // Powers that have an exact equal without a logarithm.
    const MapInstruction& exponent = program->code[step.b - program->inputs];
    if (exponent.opcode != Opcode::constant) continue;
    if (exponent.immediate == 2.0f) {
      step.opcode = Opcode::multiply;
      step.b = step.a;
    } else if (exponent.immediate == -1.0f) {
      step.opcode = Opcode::reciprocal;
    }
  }
}

// Sets the block's size, by the number of values that are kept at once, and from it each input's access.
void choose_block(MapProgram* program, int64_t kept) {
  program->block = kept > kManyValues ? kSmallBlock : kLargeBlock;
  int64_t longest = 1;
  for (int input = 0; input < program->inputs; input++) {
    const int64_t period = period_of(*program, program->values[input]);
    if (period <= program->block && period > longest) longest = period;
  }
  program->block = program->block / longest * longest;
  for (int input = 0; input < program->inputs; input++) {
    MapValue& value = program->values[input];
    if (value.access == MapAccess::unused) continue;
    const int64_t period = period_of(*program, value);
    if (period == program->elements) {
      value.access = MapAccess::full;
    } else if (period > 0 && program->block % period == 0) {
      value.access = MapAccess::fixed;
    } else {
      value.access = MapAccess::gathered;
    }
  }
}

}  // namespace

MapProgram::MapProgram(const KernelCall& call)
    : inputs(call.input_count),
      instructions(static_cast<int>(call.attributes[0])),
      values(new MapValue[inputs + instructions]),
      code(new MapInstruction[instructions]),
      elements(call.outputs[0].elements()) {
  if (elements == 0) return;
  merge_axes(call, this);
  decode(call, this);
  const int total = inputs + instructions, result = instructions > 0 ? total - 1 : 0;
  std::vector<int> last_use(total, -1);
  for (int i = 0; i < instructions; i++) {
    const int count = arity(code[i].opcode);
    if (count > 0) last_use[code[i].a] = i;
    if (count > 1) last_use[code[i].b] = i;
    if (count > 2) last_use[code[i].c] = i;
  }
  last_use[result] = instructions;
  int64_t held = 0;
  for (int input = 0; input < inputs; input++) {
    if (last_use[input] < 0) continue;
    values[input].access = MapAccess::gathered;
    held++;
  }
  for (int i = 0; i < instructions; i++) held += code[i].opcode == Opcode::constant;
  choose_block(this, held);
  std::vector<int64_t> free;
  int64_t slots = 0;
  const auto take = [&] {
    if (free.empty()) return slots++;
    const int64_t slot = free.back();
    free.pop_back();
    return slot;
  };
  for (int input = 0; input < inputs; input++) {
    if (last_use[input] >= 0) values[input].slot = slots++;
  }
  for (int i = 0; i < instructions; i++) {
    if (code[i].opcode == Opcode::constant) values[inputs + i].slot = slots++;
  }
  const auto kept = [&](int value) {
    return value < inputs ? values[value].access == MapAccess::fixed
                          : code[value - inputs].opcode == Opcode::constant;
  };
  for (int i = 0; i < instructions; i++) {
    if (code[i].opcode == Opcode::constant) continue;
    const int operands[3] = {code[i].a, code[i].b, code[i].c};
    const int count = arity(code[i].opcode);
    for (int k = 0; k < count; k++) {
      const int operand = operands[k];
      bool repeated = false;
      for (int j = 0; j < k; j++) repeated = repeated || operands[j] == operand;
      if (!repeated && last_use[operand] == i && !kept(operand)) free.push_back(values[operand].slot);
    }
    values[inputs + i].slot = take();
    if (last_use[inputs + i] < 0) free.push_back(values[inputs + i].slot);
  }
  const int64_t slot_floats = (block + 15) / 16 * 16;
  for (int value = 0; value < total; value++) values[value].slot *= slot_floats;
  scratch_floats = slots * slot_floats;
}

MapProgram::~MapProgram() {
  delete[] values;
  delete[] code;
}

}  // namespace slipstream
