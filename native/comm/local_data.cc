#include "comm/local_data.h"

#include <algorithm>
#include <cstring>
#include <stdexcept>

#include "comm/strided.h"
#include "comm/sum.h"

namespace slipstream::comm {

namespace {

using Calls = std::vector<const CollectiveCall*>;

// Shares of a sum are whole units, so that no two ranks write the same line of memory.
constexpr int64_t kUnit = 128;

int64_t units_of(const Tensor& tensor) { return (tensor.elements() + kUnit - 1) / kUnit; }

void sum_runs(const Calls& calls, size_t index, int64_t from, int64_t to, void* const* outputs, int count) {
  const Tensor& own = calls[0]->inputs[index];
  std::vector<const void*> terms;
  for (const CollectiveCall* call : calls) {
    terms.push_back(call->inputs[index].as<char>() + from * bytes_per_element(own.dtype));
  }
  sum_function(own.dtype)(terms.data(), static_cast<int>(terms.size()), outputs, count, to - from);
}

// Each rank sums its share of the bucket, one range of the tensors laid end to end, for all ranks.
void all_reduce(const Calls& calls, int rank) {
  const auto size = static_cast<int64_t>(calls.size());
  const std::span<const Tensor> tensors = calls[0]->inputs;
  int64_t units = 0;
  for (const Tensor& tensor : tensors) units += units_of(tensor);
  const int64_t first = units * rank / size, last = units * (rank + 1) / size;
  int64_t before = 0;
  for (size_t index = 0; index < tensors.size(); index++) {
    const int64_t elements = tensors[index].elements();
    const int64_t from = std::clamp((first - before) * kUnit, int64_t{0}, elements);
    const int64_t to = std::clamp((last - before) * kUnit, int64_t{0}, elements);
    before += units_of(tensors[index]);
    if (from >= to) continue;
    std::vector<void*> outputs;
    for (const CollectiveCall* call : calls) {
      outputs.push_back(call->outputs[index].as<char>() + from * bytes_per_element(tensors[index].dtype));
    }
    sum_runs(calls, index, from, to, outputs.data(), static_cast<int>(outputs.size()));
  }
}

void reduce_scatter(const Calls& calls, int rank) {
  const CollectiveCall& own = *calls[static_cast<size_t>(rank)];
  const auto size = static_cast<int64_t>(calls.size());
  for (size_t index = 0; index < own.inputs.size(); index++) {
    const Tensor& input = own.inputs[index];
    int64_t inner = 1;
    for (int axis = own.dimension; axis < input.rank; axis++) inner *= input.sizes[axis];
    const int64_t run = inner / size;
    if (run == 0) continue;
    char* target = own.outputs[index].as<char>();
    const int64_t rows = input.elements() / inner;
    for (int64_t row = 0; row < rows; row++) {
      void* const outputs[] = {target + row * run * bytes_per_element(input.dtype)};
      const int64_t from = row * inner + rank * run;
      sum_runs(calls, index, from, from + run, outputs, 1);
    }
  }
}

void all_gather(const Calls& calls, int rank) {
  const CollectiveCall& own = *calls[static_cast<size_t>(rank)];
  for (size_t index = 0; index < own.inputs.size(); index++) {
    const Tensor output = gathered(own, index, static_cast<int>(calls.size()));
    for (size_t peer = 0; peer < calls.size(); peer++) {
      const Tensor& input = calls[peer]->inputs[index];
      copy_box(part_of(input, 0, 0, 1),
               part_of(output, own.dimension, static_cast<int64_t>(peer), static_cast<int64_t>(calls.size())),
               input.sizes, input.rank, bytes_per_element(input.dtype));
    }
  }
}

void all_to_all(const Calls& calls, int rank) {
  const CollectiveCall& own = *calls[static_cast<size_t>(rank)];
  const auto size = static_cast<int64_t>(calls.size());
  for (size_t index = 0; index < own.inputs.size(); index++) {
    const Tensor output = gathered(own, index, static_cast<int>(size));
    Tensor part = own.inputs[index];
    part.sizes[own.dimension] /= size;
    for (int64_t peer = 0; peer < size; peer++) {
      const Tensor& input = calls[static_cast<size_t>(peer)]->inputs[index];
      copy_box(part_of(input, own.dimension, rank, size), part_of(output, own.other_dimension, peer, size),
               part.sizes, part.rank, bytes_per_element(part.dtype));
    }
  }
}

void all_to_all_variable(const Calls& calls, int rank) {
  const CollectiveCall& own = *calls[static_cast<size_t>(rank)];
  const int64_t width = bytes_per_element(own.inputs[0].dtype);
  char* target = own.outputs[0].as<char>();
  for (const CollectiveCall* call : calls) {
    int64_t start = 0;
    for (int before = 0; before < rank; before++) start += call->send_counts[static_cast<size_t>(before)];
    const int64_t bytes = call->send_counts[static_cast<size_t>(rank)] * width;
    if (bytes > 0) {
      std::memcpy(target, call->inputs[0].as<char>() + start * width, static_cast<size_t>(bytes));
    }
    target += bytes;
  }
}

// Each tensor of one rank, whole.
void copy_from(const CollectiveCall& from, const CollectiveCall& to) {
  for (size_t index = 0; index < to.outputs.size(); index++) {
    const Tensor& input = from.inputs[index];
    void* const target = to.outputs[index].data;
    if (input.bytes() > 0 && target != input.data) {
      std::memcpy(target, input.data, static_cast<size_t>(input.bytes()));
    }
  }
}

}  // namespace

Tensor gathered(const CollectiveCall& call, size_t index, int size) {
  Tensor result = call.inputs[index];
  result.data = call.outputs[index].data;
  if (call.kind == CollectiveKind::all_gather) {
    result.sizes[call.dimension] *= size;
  } else {
    result.sizes[call.dimension] /= size;
    result.sizes[call.other_dimension] *= size;
  }
  return result;
}

void move_data(const std::vector<const CollectiveCall*>& calls, int rank) {
  const CollectiveCall& own = *calls[static_cast<size_t>(rank)];
  switch (own.kind) {
    case CollectiveKind::barrier:
      return;
    case CollectiveKind::all_reduce:
      return all_reduce(calls, rank);
    case CollectiveKind::reduce_scatter:
      return reduce_scatter(calls, rank);
    case CollectiveKind::all_gather:
      return all_gather(calls, rank);
    case CollectiveKind::all_to_all:
      return all_to_all(calls, rank);
    case CollectiveKind::permute: {
      const int size = static_cast<int>(calls.size());
      return copy_from(*calls[static_cast<size_t>((((rank - own.peer) % size) + size) % size)], own);
    }
    case CollectiveKind::broadcast:
      return copy_from(*calls[static_cast<size_t>(own.peer)], own);
    case CollectiveKind::all_to_all_variable:
      return all_to_all_variable(calls, rank);
    case CollectiveKind::exchange:
      own.received->clear();
      for (const CollectiveCall* call : calls) {
        const Tensor& input = call->inputs[0];
        own.received->emplace_back(input.as<char>(), static_cast<size_t>(input.bytes()));
      }
      return;
    case CollectiveKind::send:
    case CollectiveKind::receive:
      throw std::logic_error("internal: a message is no collective");
  }
}

}  // namespace slipstream::comm
