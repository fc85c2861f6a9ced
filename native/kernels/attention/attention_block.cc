// Scalar twins of `attention_block`, `attention_block_gradient` and `attention_delta`: the definition, row by
// row, in float32.
#define SLIPSTREAM_SCALAR_VECTORS 1
#include "kernels/attention/block.h"
#include "kernels/attention/delta.h"
#include "kernels/attention/elements.h"

namespace slipstream {

namespace {

SLIPSTREAM_INLINE bool sees(const SeenPlaces& seen, int32_t place) {
  return place >= seen.low && place < seen.high;
}

void attention_block_scalar(const KernelCall& call) {
  const Tensor &q = call.inputs[0], &k = call.inputs[1], &v = call.inputs[2];
  const BlockProblem problem = read_block_problem(call, q, k, 3);
  const Tensor *out_before = call.optional_input(6), *logsumexp_before = call.optional_input(7);
  const int64_t size = problem.size;
  call.threads.parallel_tasks(problem.heads, [&](int64_t head, int thread) {
    float* weights = static_cast<float*>(call.threads.scratch(thread, problem.keys * sizeof(float)));
    const int64_t group = head / problem.group_heads();
    const Rows keys = head_rows(k, 0, group), values = head_rows(v, 0, group);
    const Rows queries = head_rows(q, 0, head), outputs = head_rows(call.outputs[0], 0, head);
    const Rows before = out_before ? head_rows(*out_before, 0, head) : Rows{};
    SequenceFinder finder{problem};
    for (int64_t i = 0; i < problem.queries; i++) {
      const SeenPlaces seen = finder.seen(problem.query_places[i]);
      const int64_t statistic = head * problem.queries + i;
      const float past = logsumexp_before ? logsumexp_before->as<float>()[statistic] : kNothingSeen;
      float top = past;
      for (int64_t j = 0; j < problem.keys; j++) {
        if (!sees(seen, problem.key_places[j])) continue;
        weights[j] = problem.scale * dot(queries, i, keys, j, size);
        if (weights[j] > top) top = weights[j];
      }
      const float kept = has_seen(past) ? __builtin_expf(past - top) : 0.0f;
      float sum = kept;
      for (int64_t j = 0; j < problem.keys; j++) {
        if (!sees(seen, problem.key_places[j])) continue;
        weights[j] = __builtin_expf(weights[j] - top);
        sum += weights[j];
      }
      for (int64_t d = 0; d < size; d++) {
        float total = before.data == nullptr ? 0.0f : kept * element(before, i, d);
        for (int64_t j = 0; j < problem.keys; j++) {
          if (sees(seen, problem.key_places[j])) total += weights[j] * element(values, j, d);
        }
        store(outputs, i, d, sum == 0 ? 0.0f : total / sum);
      }
      call.outputs[1].as<float>()[statistic] = sum == 0 ? kNothingSeen : top + __builtin_logf(sum);
    }
  });
}

void attention_block_gradient_scalar(const KernelCall& call) {
  const Tensor &d_out = call.inputs[0], &q = call.inputs[1], &k = call.inputs[2], &v = call.inputs[3];
  const BlockProblem problem = read_block_problem(call, q, k, 6);
  const int64_t size = problem.size, sums = static_cast<int64_t>(call.attributes[3]);
  // Each result starts from what is added to, or from zeros.
  const Tensor* before[] = {sums == 1 ? &call.inputs[9] : nullptr, sums == 2 ? &call.inputs[9] : nullptr,
                            sums == 2 ? &call.inputs[10] : nullptr};
  for (int i = 0; i < 3; i++) {
    float* target = call.outputs[i].as<float>();
    for (int64_t e = 0; e < call.outputs[i].elements(); e++)
      target[e] = before[i] ? before[i]->as<float>()[e] : 0.0f;
  }
  call.threads.parallel_tasks(problem.groups, [&](int64_t group, int) {
    const Rows keys = head_rows(k, 0, group), values = head_rows(v, 0, group);
    for (int64_t h = 0; h < problem.group_heads(); h++) {
      const int64_t head = group * problem.group_heads() + h;
      const Rows queries = head_rows(q, 0, head), d_outputs = head_rows(d_out, 0, head);
      SequenceFinder finder{problem};
      for (int64_t i = 0; i < problem.queries; i++) {
        const SeenPlaces seen = finder.seen(problem.query_places[i]);
        const int64_t statistic = head * problem.queries + i;
        float* d_query = reinterpret_cast<float*>(head_rows(call.outputs[0], 0, head).row(i));
        for (int64_t j = 0; j < problem.keys; j++) {
          if (!sees(seen, problem.key_places[j])) continue;
          const float score = problem.scale * dot(queries, i, keys, j, size);
          const float weight = __builtin_expf(score - call.inputs[4].as<float>()[statistic]);
          const float d_weight = dot(d_outputs, i, values, j, size);
          const float d_score = problem.scale * weight * (d_weight - call.inputs[5].as<float>()[statistic]);
          float* d_key = reinterpret_cast<float*>(head_rows(call.outputs[1], 0, group).row(j));
          float* d_value = reinterpret_cast<float*>(head_rows(call.outputs[2], 0, group).row(j));
          for (int64_t d = 0; d < size; d++) {
            d_value[d] += weight * element(d_outputs, i, d);
            d_key[d] += d_score * element(queries, i, d);
            d_query[d] += d_score * element(keys, j, d);
          }
        }
      }
    }
  });
}

}  // namespace

SLIPSTREAM_KERNEL("attention_block", Isa::scalar, attention_block_scalar);
SLIPSTREAM_KERNEL("attention_block_gradient", Isa::scalar, attention_block_gradient_scalar);

}  // namespace slipstream
