// copy, fill and iota (docs/kernels.md), in blocks of 4096 elements.
#pragma once

#include <type_traits>

#include "core/float_rows.h"

namespace slipstream {
namespace {

constexpr int64_t kCopyBlock = 4096;

// Between dtypes through float32; dtypes that float32 does not serve (i8, f64) only to themselves.
void copy(const KernelCall& call) {
  const Tensor &x = call.inputs[0], &y = call.outputs[0];
  const int64_t count = x.elements();
  if (x.dtype == y.dtype) {
    if (x.data == y.data) return;
    call.threads.parallel_for(x.bytes(), 262144, [&](int64_t begin, int64_t end, int) {
      std::memcpy(y.as<char>() + begin, x.as<char>() + begin, static_cast<size_t>(end - begin));
    });
    return;
  }
  const RowScratch scratch(call.threads, 0, kCopyBlock);
  call.threads.parallel_for(count, 4 * kCopyBlock, [&](int64_t begin, int64_t end, int thread) {
    float* own = scratch.own(thread);
    for (int64_t start = begin; start < end; start += kCopyBlock) {
      const int64_t length = end - start < kCopyBlock ? end - start : kCopyBlock;
      write_floats(y, start, length, read_floats(x, start, length, own));
    }
  });
}

void fill(const KernelCall& call) {
  const Tensor& y = call.outputs[0];
  const double value = call.attributes[0];
  call.threads.parallel_for(y.elements(), 65536, [&](int64_t begin, int64_t end, int) {
    const auto set = [&](auto* target, auto element) {
      for (int64_t i = begin; i < end; i++) target[i] = element;
    };
    switch (y.dtype) {
      case DType::f64:
        return set(y.as<double>(), value);
      case DType::i32:
        return set(y.as<int32_t>(), static_cast<int32_t>(value));
      case DType::u8:
        return set(y.as<uint8_t>(), static_cast<uint8_t>(static_cast<int32_t>(value)));
      case DType::i8:
        return set(y.as<int8_t>(), static_cast<int8_t>(static_cast<int32_t>(value)));
      case DType::bf16:
        return set(y.as<uint16_t>(), to_bf16(static_cast<float>(value)).bits);
      case DType::f16:
        return set(y.as<uint16_t>(), to_f16(static_cast<float>(value)).bits);
      case DType::f32:
        return set(y.as<float>(), static_cast<float>(value));
    }
  });
}

// Every element is its own index along the axis.
void iota(const KernelCall& call) {
  const Tensor& y = call.outputs[0];
  const int axis = static_cast<int>(call.attributes[0]);
  int64_t inner = 1;
  for (int i = axis + 1; i < y.rank; i++) inner *= y.sizes[i];
  const int64_t size = y.sizes[axis];
  call.threads.parallel_for(y.elements(), 65536, [&](int64_t begin, int64_t end, int) {
    with_typed(y, 0, [&](auto* target) {
      for (int64_t i = begin; i < end; i++) {
        const int64_t position = i / inner % size;
        if constexpr (sizeof(*target) == 4 && !requires { target->bits; }) {
          target[i] = static_cast<std::remove_reference_t<decltype(*target)>>(position);
        } else {
          Vector(static_cast<float>(position)).store(target + i, 1);
        }
      }
    });
  });
}

SLIPSTREAM_KERNEL("copy", kVectorIsa, copy);
SLIPSTREAM_KERNEL("fill", kVectorIsa, fill);
SLIPSTREAM_KERNEL("iota", kVectorIsa, iota);

}  // namespace
}  // namespace slipstream
