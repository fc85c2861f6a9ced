// Attention forward: FlashAttention-2 (Dao, "FlashAttention-2: Faster Attention with Better Parallelism and
// Work Partitioning", 2023) with the tiles turned over: lanes are queries, so that the softmax runs down
// columns and needs no sums across lanes.
//
// Data: keys and values of a unit are packed once, keys as rows [64][pitch] a block, values transposed
// [pitch][64] a block. A task is 64 queries of one head; it keeps the transposed output [pitch][64] and, per
// query, the running maximum and sum in base 2, and walks over the key blocks that its queries see:
//   scores [64 keys][64 queries] = keys . queries^T          (reduction over the head size)
//   weights = 2^(scores - maximum), as a b operand
//   output^T [pitch][64 queries] = output^T * rescale + values^T . weights   (reduction over the keys)
#pragma once

#include "kernels/attention/blocks.h"
#include "kernels/attention/units.h"

namespace slipstream {
namespace {

template <class Engine>
struct PackedUnit {
  using Element = typename Engine::Element;
  Element* keys;    // [blocks * 64][pitch]
  Element* values;  // [blocks][pitch][64]

  PackedUnit(Pieces& pieces, int64_t length, int64_t pitch) {
    const int64_t rows = round_up(length, kAttentionBlock);
    keys = pieces.take<Element>(rows * pitch);
    values = pieces.take<Element>(rows * pitch);
  }
};

template <class Engine>
struct ForwardScratch {
  using Element = typename Engine::Element;
  Element *rows, *grouped, *queries, *weights;
  float *scores, *output, *maximum, *sum, *rescale;

  ForwardScratch(Pieces& pieces, int64_t pitch) {
    rows = pieces.take<Element>(kAttentionBlock * pitch);
    grouped = pieces.take<Element>(kAttentionBlock * pitch);
    queries = pieces.take<Element>(kAttentionBlock * pitch);
    weights = pieces.take<Element>(kAttentionBlock * kAttentionBlock);
    scores = pieces.take<float>(kAttentionBlock * kAttentionBlock);
    output = pieces.take<float>(kAttentionBlock * pitch);
    maximum = pieces.take<float>(kAttentionBlock);
    sum = pieces.take<float>(kAttentionBlock);
    rescale = pieces.take<float>(kAttentionBlock);
  }
};

template <class Engine>
void pack_forward_block(const Rows& keys, const Rows& values, int64_t block, int64_t length, int64_t size,
                        int64_t pitch, const PackedUnit<Engine>& unit,
                        const ForwardScratch<Engine>& scratch) {
  const int64_t first = block * kAttentionBlock, count = smaller(kAttentionBlock, length - first);
  copy_rows(keys, first, count, size, pitch, unit.keys + first * pitch);
  copy_rows(values, first, count, size, pitch, scratch.rows);
  transpose_grouped<Engine>(group_rows<Engine>(scratch.rows, count, pitch, scratch.grouped), count, pitch,
                            unit.values + first * pitch);
}

// One step of the online softmax: scores [keys][columns] times `scale` >= 0 become weights, the maxima and
// sums of the columns move on, and `rescale` says by how much what was summed before shrinks. Returns whether
// that is anything but 1 for any column.
template <class Engine>
bool softmax_step(int64_t keys, int64_t columns, float scale, const ForwardScratch<Engine>& scratch) {
  constexpr int kPair = Engine::kPair;
  const Vector factor = scale, nothing = -__builtin_inff();
  bool changed = false;
  for (int64_t c = 0; c < columns; c += Vector::lanes) {
    const float* scores = scratch.scores + c;
    Vector tops[4] = {nothing, nothing, nothing, nothing};
    int64_t j = 0;
    for (; j + 4 <= keys; j += 4) {
#pragma GCC unroll 4
      for (int i = 0; i < 4; i++) tops[i] = max(Vector::load(scores + (j + i) * kAttentionBlock), tops[i]);
    }
    for (; j < keys; j++) tops[0] = max(Vector::load(scores + j * kAttentionBlock), tops[0]);
    const Vector before = Vector::load(scratch.maximum + c);
    const Vector top = max(max(max(tops[0], tops[1]), max(tops[2], tops[3])) * factor, before);
    // Columns that have seen no key yet: any finite maximum gives weights of 0.
    const Vector shift = select(equal(top, nothing), Vector(0.0f), top);
    const Vector shrink = exp2<Engine::kExponentialDegree>(before - shift);
    changed = changed || any(less(shrink, Vector(1.0f)));
    Vector sum = Vector::load(scratch.sum + c) * shrink;
    typename Engine::Element* weights = scratch.weights + c * kPair;
    for (j = 0; j < keys; j += kPair) {
      Vector group[kPair];
#pragma GCC unroll 2
      for (int i = 0; i < kPair; i++) {
        const Vector score = Vector::load(scores + (j + i) * kAttentionBlock);
        group[i] = exp2<Engine::kExponentialDegree>(fma(score, factor, -shift));
        sum = sum + group[i];
      }
      Engine::store_group(weights + j * kAttentionBlock, group);
    }
    top.store(scratch.maximum + c);
    sum.store(scratch.sum + c);
    shrink.store(scratch.rescale + c);
  }
  return changed;
}

// The loaded queries against the keys [key, key + keys): the output, its maxima and sums move on. `first`:
// they hold nothing yet but minus infinity and 0. mask(padded_keys, factor) masks the scores where pairs do
// not see each other, and gives what is left to multiply them by.
template <class Engine, class Mask>
SLIPSTREAM_INLINE void forward_tile(bool first, int64_t key, int64_t keys, int64_t columns, float scale,
                                    int64_t size, int64_t pitch, const PackedUnit<Engine>& unit,
                                    const ForwardScratch<Engine>& scratch, const Mask& mask) {
  const int64_t padded_keys = round_up(keys, Engine::kReductionMultiple);
  Engine::template multiply<Keep::nothing>(
      round_up(keys, Engine::kRowMultiple), columns, round_up(size, Engine::kReductionMultiple),
      unit.keys + key * pitch, pitch, scratch.queries, kAttentionBlock, scratch.scores, kAttentionBlock);
  const float factor = mask(padded_keys, scale * kLog2E);
  const bool changed = softmax_step<Engine>(padded_keys, columns, factor, scratch);
  const auto add = [&]<Keep keep>() {
    Engine::template multiply<keep>(round_up(size, Engine::kRowMultiple), columns, padded_keys,
                                    unit.values + key * pitch, kAttentionBlock, scratch.weights,
                                    kAttentionBlock, scratch.output, kAttentionBlock, scratch.rescale);
  };
  if (first) {
    add.template operator()<Keep::nothing>();
  } else if (changed) {
    add.template operator()<Keep::scaled_sum>();
  } else {
    add.template operator()<Keep::sum>();
  }
}

// The queries [first, first + count) of one head; query row i is at `offset` + i in its sequence.
// `logsumexp`, where wanted, has an element a query row.
template <class Engine>
void forward_block(const Visibility& visibility, const Rows& queries, const Rows& output, float* logsumexp,
                   int64_t first, int64_t count, int64_t offset, float scale, int64_t size, int64_t pitch,
                   const PackedUnit<Engine>& unit, const ForwardScratch<Engine>& scratch) {
  const int64_t position = first + offset, columns = round_up(count, 32);
  copy_rows(queries, first, count, size, pitch, scratch.rows);
  columns_of_rows<Engine>(scratch.rows, count, pitch, scratch.queries);
  for (int64_t c = 0; c < columns; c += Vector::lanes) {
    Vector(-__builtin_inff()).store(scratch.maximum + c);
    Vector(0.0f).store(scratch.sum + c);
  }
  const int64_t begin = visibility.begin(position) / kAttentionBlock * kAttentionBlock;
  const int64_t end = visibility.end(position + count - 1);
  for (int64_t key = begin; key < end; key += kAttentionBlock) {
    const int64_t keys = smaller(kAttentionBlock, visibility.keys - key);
    const auto mask = [&](int64_t padded_keys, float factor) {
      if (factor >= 0 && !needs_mask<Engine>(visibility, key, keys, position, count)) return factor;
      mask_scores(visibility, key, keys, padded_keys, position, count, columns, factor, scratch.scores);
      return 1.0f;
    };
    forward_tile<Engine>(key == begin, key, keys, columns, scale, size, pitch, unit, scratch, mask);
  }
  for (int64_t i = 0; i < count; i++) {
    if (logsumexp != nullptr) {
      logsumexp[first + i] = scratch.maximum[i] * kLn2 + __builtin_logf(scratch.sum[i]);
    }
    scratch.rescale[i] = 1.0f / scratch.sum[i];
  }
  store_transposed(scratch.output, scratch.rescale, count, size, output, first);
}

// What one unit attends to, and how many queries it has: the last ones of its keys.
struct ForwardUnit {
  Visibility visibility;
  Rows keys, values;
  int64_t queries = 0;
};
struct ForwardHead {
  Rows queries, output;
  float* logsumexp = nullptr;
};

// Attention of all units: unit_of(unit) is a ForwardUnit, head_of(unit, head of the group) a ForwardHead.
// Units without queries are passed over.
template <class Engine, class UnitOf, class HeadOf>
void forward_units(ThreadPool& threads, int64_t units, int64_t group_heads, float scale, int64_t size,
                   const UnitOf& unit_of, const HeadOf& head_of) {
  const int64_t pitch = round_up(size, Engine::kPitchMultiple);
  using Packed = PackedUnit<Engine>;
  using Scratch = ForwardScratch<Engine>;
  Pieces task_size{nullptr};
  Scratch(task_size, pitch);
  const auto bytes_of = [&](const ForwardUnit& unit) {
    Pieces unit_size{nullptr};
    Packed(unit_size, unit.visibility.keys, pitch);
    return unit_size.used + task_size.used;
  };

  // Key blocks before the first one that any query sees are not packed.
  const auto first_block = [](const ForwardUnit& unit) {
    return unit.visibility.begin(unit.visibility.keys - unit.queries) / kAttentionBlock;
  };
  const auto pack = [&](const ForwardUnit& unit, int64_t, int64_t block, const Packed& packed,
                        const Scratch& scratch) {
    pack_forward_block<Engine>(unit.keys, unit.values, first_block(unit) + block, unit.visibility.keys, size,
                               pitch, packed, scratch);
  };
  // The last query blocks first: they are the longest where attention is causal.
  const auto compute = [&](const ForwardUnit& unit, int64_t index, int64_t task, const Packed& packed,
                           const Scratch& scratch) {
    const ForwardHead head = head_of(index, task % group_heads);
    const int64_t first = (block_count(unit.queries) - 1 - task / group_heads) * kAttentionBlock;
    forward_block<Engine>(unit.visibility, head.queries, head.output, head.logsumexp, first,
                          smaller(kAttentionBlock, unit.queries - first), unit.visibility.keys - unit.queries,
                          scale, size, pitch, packed, scratch);
  };
  const auto whole = [&](int64_t index, int thread) {
    [[maybe_unused]] const typename Engine::Session session;
    const ForwardUnit unit = unit_of(index);
    Pieces pieces{static_cast<uint8_t*>(threads.scratch(thread, bytes_of(unit)))};
    const Packed packed(pieces, unit.visibility.keys, pitch);
    const Scratch scratch(pieces, pitch);
    const int64_t blocks = block_count(unit.visibility.keys) - first_block(unit);
    const int64_t tasks = block_count(unit.queries) * group_heads;
    for (int64_t block = 0; block < blocks; block++) pack(unit, index, block, packed, scratch);
    for (int64_t task = 0; task < tasks; task++) compute(unit, index, task, packed, scratch);
  };
  const auto shared = [&](int64_t index) {
    const ForwardUnit unit = unit_of(index);
    Pieces shared_pieces{static_cast<uint8_t*>(threads.scratch(0, bytes_of(unit)))};
    const Packed packed(shared_pieces, unit.visibility.keys, pitch);
    const auto run = [&](int64_t tasks, const auto& body) {
      threads.parallel_tasks(tasks, [&](int64_t task, int thread) {
        [[maybe_unused]] const typename Engine::Session session;
        Pieces pieces{thread == 0 ? shared_pieces.base + shared_pieces.used
                                  : static_cast<uint8_t*>(threads.scratch(thread, task_size.used))};
        body(unit, index, task, packed, Scratch(pieces, pitch));
      });
    };
    run(block_count(unit.visibility.keys) - first_block(unit), pack);
    run(block_count(unit.queries) * group_heads, compute);
  };
  const auto load_of = [&](int64_t index) {
    const ForwardUnit unit = unit_of(index);
    return UnitLoad{unit.visibility.pairs(unit.queries), block_count(unit.queries) * group_heads,
                    bytes_of(unit)};
  };
  for_each_unit(threads, units, load_of, whole, shared);
}

template <class Engine>
void attention(const KernelCall& call) {
  const Tensor &q = call.inputs[0], &k = call.inputs[1], &v = call.inputs[2], &out = call.outputs[0];
  const Problem problem = read_problem(call, q, k, call.inputs[3]);
  const Tensor* logsumexp = call.optional_output(1);
  forward_units<Engine>(
      call.threads, problem.units(), problem.group_heads(), problem.scale, problem.size,
      [&](int64_t unit) {
        const Visibility visibility = problem.visibility(unit);
        const int64_t token = problem.first_token(unit), group = unit % problem.groups;
        return ForwardUnit{visibility, head_rows(k, token, group), head_rows(v, token, group),
                           visibility.keys};
      },
      [&](int64_t unit, int64_t member) {
        const int64_t head = unit % problem.groups * problem.group_heads() + member;
        const int64_t token = problem.first_token(unit);
        return ForwardHead{head_rows(q, token, head), head_rows(out, token, head),
                           logsumexp ? logsumexp->as<float>() + head * problem.tokens + token : nullptr};
      });
}

}  // namespace
}  // namespace slipstream
