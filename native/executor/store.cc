// The `store` kernel: copies, or adds with `accumulate` (attribute 0), a result into the memory of a leaf.
// For what no kernel can write directly, so it is kept simple: float32 arithmetic, element by element.
#include <cstring>

#include "core/float16.h"
#include "core/kernel.h"

namespace slipstream {

namespace {

float load(const Tensor& tensor, int64_t index) {
  switch (tensor.dtype) {
    case DType::f32:
      return tensor.as<float>()[index];
    case DType::bf16:
      return to_float(tensor.as<bf16>()[index]);
    case DType::f16:
      return to_float(tensor.as<f16>()[index]);
    case DType::i32:
      return static_cast<float>(tensor.as<int32_t>()[index]);
    case DType::u8:
      return tensor.as<uint8_t>()[index];
    case DType::i8:
      return tensor.as<int8_t>()[index];
    case DType::f64:
      return static_cast<float>(tensor.as<double>()[index]);
  }
  return 0;
}

void put(const Tensor& tensor, int64_t index, float value) {
  switch (tensor.dtype) {
    case DType::f32:
      tensor.as<float>()[index] = value;
      break;
    case DType::bf16:
      tensor.as<bf16>()[index] = to_bf16(value);
      break;
    case DType::f16:
      tensor.as<f16>()[index] = to_f16(value);
      break;
    case DType::i32:
      tensor.as<int32_t>()[index] = static_cast<int32_t>(value);
      break;
    case DType::u8:
      tensor.as<uint8_t>()[index] = static_cast<uint8_t>(value);
      break;
    case DType::i8:
      tensor.as<int8_t>()[index] = static_cast<int8_t>(value);
      break;
    case DType::f64:
      tensor.as<double>()[index] = value;
      break;
  }
}

void store(const KernelCall& call) {
  const Tensor& from = call.inputs[0];
  const Tensor& to = call.outputs[0];
  const bool accumulate = call.attributes[0] != 0;
  const bool plain = !accumulate && from.dtype == to.dtype;
  const bool floats = from.dtype == DType::f32 && to.dtype == DType::f32;
  call.threads.parallel_for(to.elements(), 4096, [&](int64_t begin, int64_t end, int) {
    if (plain) {
      const int64_t width = bytes_per_element(to.dtype);
      std::memmove(to.as<char>() + begin * width, from.as<char>() + begin * width, (end - begin) * width);
    } else if (floats) {
      const float* source = from.as<float>();
      float* target = to.as<float>();
      for (int64_t i = begin; i < end; i++) target[i] += source[i];
    } else {
      for (int64_t i = begin; i < end; i++) put(to, i, load(from, i) + (accumulate ? load(to, i) : 0.0f));
    }
  });
}

SLIPSTREAM_KERNEL("store", Isa::scalar, store);

}  // namespace

}  // namespace slipstream
