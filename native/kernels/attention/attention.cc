// Scalar twins of `attention` and `attention_gradient`: the definition, row by row, in float32. A query's row
// of weights is the only thing kept beside the operands.
#include "kernels/attention/elements.h"
#include "kernels/attention/problem.h"

namespace slipstream {

namespace {

void attention_scalar(const KernelCall& call) {
  const Tensor &q = call.inputs[0], &k = call.inputs[1], &v = call.inputs[2];
  const Problem problem = read_problem(call, q, k, call.inputs[3]);
  const Tensor* logsumexp = call.optional_output(1);
  const int64_t longest = problem.longest();
  call.threads.parallel_tasks(problem.units(), [&](int64_t unit, int thread) {
    float* weights = static_cast<float*>(call.threads.scratch(thread, longest * sizeof(float)));
    const Visibility visibility = problem.visibility(unit);
    const int64_t token = problem.first_token(unit), group = unit % problem.groups;
    const Rows keys = head_rows(k, token, group), values = head_rows(v, token, group);
    for (int64_t h = 0; h < problem.group_heads(); h++) {
      const int64_t head = group * problem.group_heads() + h;
      const Rows queries = head_rows(q, token, head), outputs = head_rows(call.outputs[0], token, head);
      for (int64_t i = 0; i < visibility.keys; i++) {
        const int64_t begin = visibility.begin(i), end = visibility.end(i);
        float top = -__builtin_inff(), sum = 0;
        for (int64_t j = begin; j < end; j++) {
          weights[j] = problem.scale * dot(queries, i, keys, j, problem.size);
          if (weights[j] > top) top = weights[j];
        }
        for (int64_t j = begin; j < end; j++) {
          weights[j] = __builtin_expf(weights[j] - top);
          sum += weights[j];
        }
        for (int64_t d = 0; d < problem.size; d++) {
          float total = 0;
          for (int64_t j = begin; j < end; j++) total += weights[j] * element(values, j, d);
          store(outputs, i, d, total / sum);
        }
        if (logsumexp) logsumexp->as<float>()[head * problem.tokens + token + i] = top + __builtin_logf(sum);
      }
    }
  });
}

void attention_gradient_scalar(const KernelCall& call) {
  const Tensor &d_out = call.inputs[0], &q = call.inputs[1], &k = call.inputs[2], &v = call.inputs[3];
  const Tensor &out = call.inputs[4], &logsumexp = call.inputs[5];
  const Problem problem = read_problem(call, q, k, call.inputs[6]);
  const int64_t size = problem.size, longest = problem.longest();
  call.threads.parallel_tasks(problem.units(), [&](int64_t unit, int thread) {
    const Visibility visibility = problem.visibility(unit);
    const int64_t length = visibility.keys, token = problem.first_token(unit), group = unit % problem.groups;
    Pieces pieces{static_cast<uint8_t*>(
        call.threads.scratch(thread, (2 * longest * size + size) * sizeof(float) + 3 * 64))};
    float* d_keys = pieces.take<float>(longest * size);
    float* d_values = pieces.take<float>(longest * size);
    float* d_query = pieces.take<float>(size);
    for (int64_t i = 0; i < length * size; i++) d_keys[i] = d_values[i] = 0;
    const Rows keys = head_rows(k, token, group), values = head_rows(v, token, group);
    for (int64_t h = 0; h < problem.group_heads(); h++) {
      const int64_t head = group * problem.group_heads() + h;
      const Rows queries = head_rows(q, token, head), outputs = head_rows(out, token, head);
      const Rows d_outputs = head_rows(d_out, token, head);
      const Rows d_queries = head_rows(call.outputs[0], token, head);
      for (int64_t i = 0; i < length; i++) {
        const float normalizer = logsumexp.as<float>()[head * problem.tokens + token + i];
        const float delta = dot(d_outputs, i, outputs, i, size);
        for (int64_t d = 0; d < size; d++) d_query[d] = 0;
        for (int64_t j = visibility.begin(i); j < visibility.end(i); j++) {
          const float weight = __builtin_expf(problem.scale * dot(queries, i, keys, j, size) - normalizer);
          const float d_score = problem.scale * weight * (dot(d_outputs, i, values, j, size) - delta);
          for (int64_t d = 0; d < size; d++) {
            d_values[j * size + d] += weight * element(d_outputs, i, d);
            d_keys[j * size + d] += d_score * element(queries, i, d);
            d_query[d] += d_score * element(keys, j, d);
          }
        }
        for (int64_t d = 0; d < size; d++) store(d_queries, i, d, d_query[d]);
      }
    }
    const Rows key_target = head_rows(call.outputs[1], token, group);
    const Rows value_target = head_rows(call.outputs[2], token, group);
    for (int64_t j = 0; j < length; j++) {
      for (int64_t d = 0; d < size; d++) {
        store(key_target, j, d, d_keys[j * size + d]);
        store(value_target, j, d, d_values[j * size + d]);
      }
    }
  });
}

}  // namespace

SLIPSTREAM_KERNEL("attention", Isa::scalar, attention_scalar);
SLIPSTREAM_KERNEL("attention_gradient", Isa::scalar, attention_gradient_scalar);

}  // namespace slipstream
