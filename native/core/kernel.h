// The interface of kernels and the table in which they are looked up by name, once, when a program is
// built. A kernel gets its operands with the sizes of this run, its attributes as numbers in the order of
// the op's attribute list, and the thread pool. It never allocates beyond per-thread scratch and has no
// state: the same inputs give the same bits whatever the thread timing.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "core/isa.h"
#include "core/tensor.h"
#include "core/thread_pool.h"

namespace slipstream {

struct KernelCall {
  const Tensor* inputs;
  int input_count;
  const Tensor* outputs;
  int output_count;
  const double* attributes;
  int attribute_count;
  ThreadPool& threads;

  // An optional operand: absent where the list is shorter or the pointer is null.
  SLIPSTREAM_INLINE const Tensor* optional_input(int index) const {
    return index < input_count && inputs[index].present() ? &inputs[index] : nullptr;
  }
  SLIPSTREAM_INLINE const Tensor* optional_output(int index) const {
    return index < output_count && outputs[index].present() ? &outputs[index] : nullptr;
  }
};

using KernelFunction = void (*)(const KernelCall&);

struct KernelEntry {
  std::string name;
  Isa isa;
  KernelFunction function;
};

// Adds a kernel; called by static registrars before `main`.
bool register_kernel(const char* name, Isa isa, KernelFunction function);

// The kernel of that name for the highest level not above `limit`; null where there is none.
const KernelEntry* find_kernel(std::string_view name, Isa limit);

const std::vector<KernelEntry>& all_kernels();

#define SLIPSTREAM_CONCATENATE_(a, b) a##b
#define SLIPSTREAM_CONCATENATE(a, b) SLIPSTREAM_CONCATENATE_(a, b)
// SLIPSTREAM_KERNEL("matmul", Isa::avx512, matmul_avx512): registers a kernel from its own file.
#define SLIPSTREAM_KERNEL(name, isa, function)                                       \
  [[maybe_unused]] static const bool SLIPSTREAM_CONCATENATE(registered_, __LINE__) = \
      ::slipstream::register_kernel(name, isa, function)

}  // namespace slipstream
