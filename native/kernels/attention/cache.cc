// Scalar twins of the kernels over a key/value cache: writing rows into slots, copying blocks, and attention
// through block tables.
#include <cstring>

#include "kernels/attention/elements.h"
#include "kernels/attention/problem.h"

namespace slipstream {

namespace {

// Whole numbers of at most 127 for row 0, to be multiplied by the scale that is returned.
float quantize_row(const Rows& values, int64_t size, int8_t* row) {
  float largest = 0;
  for (int64_t d = 0; d < size; d++) {
    const float magnitude = __builtin_fabsf(element(values, 0, d));
    if (!(magnitude <= largest)) largest = magnitude;
  }
  for (int64_t d = 0; d < size; d++) {
    const float multiple = largest > 0 ? element(values, 0, d) * 127 / largest : 0;
    row[d] = static_cast<int8_t>(__builtin_rintf(multiple > 127 ? 127 : multiple < -127 ? -127 : multiple));
  }
  return largest / 127;
}

// Threads share out the columns, not the tokens: of tokens with the same slot, the last one stays.
void cache_write(const KernelCall& call) {
  const Tensor &values = call.inputs[1], &cache = call.outputs[0];
  const int32_t* slots = call.inputs[2].as<int32_t>();
  const int64_t tokens = values.size(0), width = values.size(1) * values.size(2);
  const int64_t from_bytes = bytes_per_element(values.dtype), to_bytes = bytes_per_element(cache.dtype);
  call.threads.parallel_for(width, 1024, [&](int64_t begin, int64_t end, int) {
    for (int64_t token = 0; token < tokens; token++) {
      if (slots[token] < 0) continue;
      const Rows from{values.as<uint8_t>() + token * width * from_bytes, values.dtype};
      const Rows to{cache.as<uint8_t>() + slots[token] * width * to_bytes, cache.dtype};
      if (values.dtype == cache.dtype) {
        std::memcpy(to.data + begin * to_bytes, from.data + begin * from_bytes, (end - begin) * to_bytes);
      } else {
        for (int64_t i = begin; i < end; i++) store(to, 0, i, element(from, 0, i));
      }
    }
  });
}

// Threads share out the heads, not the tokens: of tokens with the same slot, the last one stays.
void cache_write_quantized(const KernelCall& call) {
  const Tensor &values = call.inputs[2], &cache = call.outputs[0], &scales = call.outputs[1];
  const int32_t* slots = call.inputs[3].as<int32_t>();
  const int64_t tokens = values.size(0), groups = values.size(1), size = values.size(2);
  if (tokens * size == 0) return;
  call.threads.parallel_for(groups, 1 + 4096 / (tokens * size), [&](int64_t begin, int64_t end, int) {
    for (int64_t token = 0; token < tokens; token++) {
      if (slots[token] < 0) continue;
      for (int64_t group = begin; group < end; group++) {
        const int64_t row = slots[token] * groups + group;
        scales.as<float>()[row] =
            quantize_row(head_rows(values, token, group), size, cache.as<int8_t>() + row * size);
      }
    }
  });
}

// Threads share out the bytes of a block, not the copies: those stay one after the other, so that a block can
// be the destination of one and the source of a later one.
void cache_copy(const KernelCall& call) {
  const Tensor& cache = call.outputs[0];
  const int32_t* sources = call.inputs[1].as<int32_t>();
  const int32_t* destinations = call.inputs[2].as<int32_t>();
  const int64_t copies = call.inputs[1].size(0), slots = cache.size(0);
  if (slots == 0 || copies == 0) return;
  const int64_t block = cache.bytes() / slots * static_cast<int64_t>(call.attributes[0]);
  call.threads.parallel_for(block, 16384, [&](int64_t begin, int64_t end, int) {
    for (int64_t i = 0; i < copies; i++) {
      if (destinations[i] < 0 || destinations[i] == sources[i]) continue;
      std::memcpy(cache.as<uint8_t>() + destinations[i] * block + begin,
                  cache.as<uint8_t>() + sources[i] * block + begin, end - begin);
    }
  });
}

void paged_attention_scalar(const KernelCall& call) {
  const Tensor &q = call.inputs[0], &k = call.inputs[1], &v = call.inputs[2], &tables = call.inputs[5];
  const int32_t* offsets = call.inputs[3].as<int32_t>();
  const int32_t* lengths = call.inputs[4].as<int32_t>();
  const int64_t heads = q.size(1), groups = k.size(1), size = q.size(2), sequences = call.inputs[4].size(0);
  const float scale = static_cast<float>(call.attributes[0]);
  int64_t longest = 0;
  for (int64_t s = 0; s < sequences; s++) longest = larger(longest, lengths[s]);
  call.threads.parallel_tasks(sequences * heads, [&](int64_t task, int thread) {
    float* weights = static_cast<float*>(call.threads.scratch(thread, longest * sizeof(float)));
    const int64_t s = task / heads, head = task % heads, group = head / (heads / groups);
    const Visibility visibility{lengths[s], true, static_cast<int64_t>(call.attributes[1])};
    Rows keys = head_rows(k, 0, group), values = head_rows(v, 0, group);
    keys.blocks = values.blocks = tables.as<int32_t>() + s * tables.size(1);
    keys.block_size = values.block_size = static_cast<int64_t>(call.attributes[2]);
    keys.scale_stride = values.scale_stride = groups;
    if (const Tensor* scales = call.optional_input(6)) keys.scales = scales->as<float>() + group;
    if (const Tensor* scales = call.optional_input(7)) values.scales = scales->as<float>() + group;
    const Rows queries = head_rows(q, offsets[s], head),
               outputs = head_rows(call.outputs[0], offsets[s], head);
    const int64_t count = offsets[s + 1] - offsets[s];
    for (int64_t i = 0; i < count; i++) {
      const int64_t position = lengths[s] - count + i;
      float top = -__builtin_inff(), sum = 0;
      for (int64_t j = visibility.begin(position); j <= position; j++) {
        weights[j] = scale * dot(queries, i, keys, j, size);
        if (weights[j] > top) top = weights[j];
      }
      for (int64_t j = visibility.begin(position); j <= position; j++) {
        weights[j] = __builtin_expf(weights[j] - top);
        sum += weights[j];
      }
      for (int64_t d = 0; d < size; d++) {
        float total = 0;
        for (int64_t j = visibility.begin(position); j <= position; j++) {
          total += weights[j] * element(values, j, d);
        }
        store(outputs, i, d, total / sum);
      }
    }
  });
}

}  // namespace

SLIPSTREAM_KERNEL("cache_write", Isa::scalar, cache_write);
SLIPSTREAM_KERNEL("cache_write_quantized", Isa::scalar, cache_write_quantized);
SLIPSTREAM_KERNEL("cache_copy", Isa::scalar, cache_copy);
SLIPSTREAM_KERNEL("paged_attention", Isa::scalar, paged_attention_scalar);

}  // namespace slipstream
