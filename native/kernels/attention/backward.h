// Attention backward: FlashAttention-2's recomputation of the weights, tile by tile, with the same turned
// tiles as forward.h: lanes are queries.
//
// Data: a unit keeps its keys and values as rows [64][pitch] a block, its keys transposed [pitch][64] a
// block, and float32 sums of d_keys and d_values [64][pitch] a block. A task is 64 queries of one head; it
// keeps the transposed d_queries [pitch][64] and walks over the key blocks that its queries see:
//   scores, d_weights [64 keys][64 queries] = keys . queries^T, values . d_outputs^T
//   weights = e^(scale scores - logsumexp);  d_scores = weights (d_weights - rowsum(d_outputs outputs))
//   d_values += weights . d_outputs;  d_keys += d_scores . queries;  d_queries^T += keys^T . d_scores
//
// A key block's sums grow in the order of the tasks (heads of the group, then query blocks), whoever runs
// them: where threads share a unit, a task waits for its turn at each key block. Tasks are handed out in that
// order and pass the key blocks in ascending order, so that the earliest unfinished task never waits.
#pragma once

#include "kernels/attention/blocks.h"
#include "kernels/attention/turns.h"
#include "kernels/attention/units.h"

namespace slipstream {
namespace {

template <class Engine>
struct BackwardUnit {
  using Element = typename Engine::Element;
  Element *keys, *values, *transposed_keys;
  float *d_keys, *d_values;
  int32_t* turns;

  BackwardUnit(Pieces& pieces, int64_t length, int64_t pitch) {
    const int64_t rows = round_up(length, kAttentionBlock);
    keys = pieces.take<Element>(rows * pitch);
    values = pieces.take<Element>(rows * pitch);
    transposed_keys = pieces.take<Element>(rows * pitch);
    d_keys = pieces.take<float>(rows * pitch);
    d_values = pieces.take<float>(rows * pitch);
    turns = pieces.take<int32_t>(block_count(length));
  }
};

template <class Engine>
struct BackwardScratch {
  using Element = typename Engine::Element;
  Element *query_rows, *query_groups, *query_columns;
  Element *d_output_rows, *d_output_groups, *d_output_columns;
  Element *weights, *d_score_rows, *d_score_groups;
  float *scores, *d_weights, *d_queries, *normalizers, *deltas;

  BackwardScratch(Pieces& pieces, int64_t pitch) {
    const int64_t block = kAttentionBlock * pitch, tile = kAttentionBlock * kAttentionBlock;
    query_rows = pieces.take<Element>(block);
    query_groups = Engine::kPair == 1 ? query_rows : pieces.take<Element>(block);
    query_columns = pieces.take<Element>(block);
    d_output_rows = pieces.take<Element>(block);
    d_output_groups = Engine::kPair == 1 ? d_output_rows : pieces.take<Element>(block);
    d_output_columns = pieces.take<Element>(block);
    weights = pieces.take<Element>(tile);
    d_score_rows = pieces.take<Element>(tile);
    d_score_groups = Engine::kPair == 1 ? d_score_rows : pieces.take<Element>(tile);
    scores = pieces.take<float>(tile);
    d_weights = pieces.take<float>(tile);
    d_queries = pieces.take<float>(block);
    normalizers = pieces.take<float>(kAttentionBlock);
    deltas = pieces.take<float>(kAttentionBlock);
  }
};

template <class Engine>
void pack_backward_block(const Rows& keys, const Rows& values, int64_t block, int64_t length, int64_t size,
                         int64_t pitch, const BackwardUnit<Engine>& unit,
                         const BackwardScratch<Engine>& scratch) {
  const int64_t first = block * kAttentionBlock, count = smaller(kAttentionBlock, length - first);
  copy_rows(keys, first, count, size, pitch, unit.keys + first * pitch);
  copy_rows(values, first, count, size, pitch, unit.values + first * pitch);
  transpose_grouped<Engine>(group_rows<Engine>(unit.keys + first * pitch, count, pitch, scratch.query_groups),
                            count, pitch, unit.transposed_keys + first * pitch);
  std::memset(unit.d_keys + first * pitch, 0, kAttentionBlock * pitch * sizeof(float));
  std::memset(unit.d_values + first * pitch, 0, kAttentionBlock * pitch * sizeof(float));
  unit.turns[block] = 0;
}

// scores (times `scale`, base 2) and d_weights of a tile become weights and d_scores.
template <class Engine>
void gradient_step(int64_t keys, int64_t columns, float scale, const BackwardScratch<Engine>& scratch) {
  constexpr int kPair = Engine::kPair;
  const Vector factor = scale;
  for (int64_t c = 0; c < columns; c += Vector::lanes) {
    const Vector normalizer = Vector::load(scratch.normalizers + c), delta = Vector::load(scratch.deltas + c);
    for (int64_t j = 0; j < keys; j += kPair) {
      Vector d_scores[kPair];
#pragma GCC unroll 2
      for (int i = 0; i < kPair; i++) {
        const int64_t at = (j + i) * kAttentionBlock + c;
        const Vector score = fma(Vector::load(scratch.scores + at), factor, -normalizer);
        const Vector weight = exp2<Engine::kExponentialDegree>(score);
        d_scores[i] = weight * (Vector::load(scratch.d_weights + at) - delta);
        Engine::store_row(scratch.weights + at, weight);
        Engine::store_row(scratch.d_score_rows + at, d_scores[i]);
      }
      if constexpr (kPair > 1) {
        Engine::store_group(scratch.d_score_groups + j * kAttentionBlock + c * kPair, d_scores);
      }
    }
  }
}

// Packs the queries [first, first + count) with their d_outputs, whose rows are there already.
template <class Engine>
void pack_queries(const Rows& queries, int64_t first, int64_t count, int64_t size, int64_t pitch,
                  const BackwardScratch<Engine>& scratch) {
  copy_rows(queries, first, count, size, pitch, scratch.query_rows);
  group_rows<Engine>(scratch.query_rows, count, pitch, scratch.query_groups);
  group_rows<Engine>(scratch.d_output_rows, count, pitch, scratch.d_output_groups);
  columns_of_rows<Engine>(scratch.query_rows, count, pitch, scratch.query_columns);
  columns_of_rows<Engine>(scratch.d_output_rows, count, pitch, scratch.d_output_columns);
}

// Packs the queries [first, first + count) with their d_outputs, normalizers and deltas.
template <class Engine>
void load_queries(const Rows& queries, const Rows& outputs, const Rows& d_outputs, const float* logsumexp,
                  int64_t first, int64_t count, int64_t size, int64_t pitch,
                  const BackwardScratch<Engine>& scratch) {
  // The outputs' rows are needed for the deltas alone: they pass through the place of the tile's products.
  copy_rows(outputs, first, count, size, pitch, scratch.query_rows);
  copy_rows(d_outputs, first, count, size, pitch, scratch.d_output_rows);
  for (int64_t i = 0; i < kAttentionBlock; i++) {
    Vector sum = 0.0f;
    if (i < count) {
      for (int64_t d = 0; d < pitch; d += Vector::lanes) {
        sum = fma(Vector::load(scratch.query_rows + i * pitch + d),
                  Vector::load(scratch.d_output_rows + i * pitch + d), sum);
      }
    }
    scratch.deltas[i] = slipstream::sum(sum);
    scratch.normalizers[i] = i < count ? logsumexp[first + i] * kLog2E : 0.0f;
  }
  pack_queries<Engine>(queries, first, count, size, pitch, scratch);
}

// The loaded queries [first, first + count) against the keys [key, key + keys): d_queries, d_keys and
// d_values move on. `is_first`: d_queries hold nothing yet. mask(rows, padded_keys, factor) masks the scores
// where pairs do not see each other, and gives what is left to multiply them by. wait() and pass() stand
// around what is added to the key block's sums.
template <class Engine, class Mask, class Wait, class Pass>
SLIPSTREAM_INLINE void backward_tile(bool is_first, int64_t key, int64_t keys, int64_t count, float scale,
                                     int64_t size, int64_t pitch, const BackwardUnit<Engine>& unit,
                                     const BackwardScratch<Engine>& scratch, const Mask& mask,
                                     const Wait& wait, const Pass& pass) {
  constexpr int64_t kBlock = kAttentionBlock;
  const int64_t columns = round_up(count, 32), queries = round_up(count, Engine::kReductionMultiple);
  const int64_t depth = round_up(size, Engine::kReductionMultiple);
  const int64_t height = round_up(size, Engine::kRowMultiple);
  const int64_t width = round_up(size, Engine::kColumnMultiple);
  const int64_t rows = round_up(keys, Engine::kRowMultiple);
  const int64_t padded_keys = round_up(keys, Engine::kReductionMultiple);
  Engine::template multiply<Keep::nothing>(rows, columns, depth, unit.keys + key * pitch, pitch,
                                           scratch.query_columns, kBlock, scratch.scores, kBlock);
  Engine::template multiply<Keep::nothing>(rows, columns, depth, unit.values + key * pitch, pitch,
                                           scratch.d_output_columns, kBlock, scratch.d_weights, kBlock);
  const float factor = mask(rows, padded_keys, scale * kLog2E);
  gradient_step<Engine>(padded_keys, columns, factor, scratch);
  wait();
  Engine::template multiply<Keep::sum>(rows, width, queries, scratch.weights, kBlock, scratch.d_output_groups,
                                       pitch, unit.d_values + key * pitch, pitch);
  Engine::template multiply<Keep::sum>(rows, width, queries, scratch.d_score_rows, kBlock,
                                       scratch.query_groups, pitch, unit.d_keys + key * pitch, pitch);
  pass();
  const auto add = [&]<Keep keep>() {
    Engine::template multiply<keep>(height, columns, padded_keys, unit.transposed_keys + key * pitch, kBlock,
                                    scratch.d_score_groups, kBlock, scratch.d_queries, kBlock);
  };
  if (is_first) {
    add.template operator()<Keep::nothing>();
  } else {
    add.template operator()<Keep::sum>();
  }
}

// Padding behind the products' rows: weights of 0 must not meet what memory held.
template <class Engine>
SLIPSTREAM_INLINE void clear_padding(int64_t rows, int64_t padded_keys,
                                     const BackwardScratch<Engine>& scratch) {
  for (int64_t i = rows * kAttentionBlock; i < padded_keys * kAttentionBlock; i++) scratch.d_weights[i] = 0;
}

// The loaded queries [first, first + count) of the unit's head number `head` against all keys they see.
template <class Engine>
void backward_block(const Visibility& visibility, const Turns& turns, int64_t head, int64_t first,
                    int64_t count, float scale, int64_t size, int64_t pitch, const BackwardUnit<Engine>& unit,
                    const BackwardScratch<Engine>& scratch) {
  constexpr int64_t kBlock = kAttentionBlock;
  const int64_t columns = round_up(count, 32);
  const int64_t begin = visibility.begin(first) / kBlock * kBlock, end = visibility.end(first + count - 1);
  for (int64_t key = begin; key < end; key += kBlock) {
    const int64_t keys = smaller(kBlock, visibility.keys - key);
    const auto mask = [&](int64_t rows, int64_t padded_keys, float factor) {
      if (!needs_mask<Engine>(visibility, key, keys, first, count)) return factor;
      mask_scores(visibility, key, keys, padded_keys, first, count, columns, factor, scratch.scores);
      clear_padding<Engine>(rows, padded_keys, scratch);
      return 1.0f;
    };
    backward_tile<Engine>(
        key == begin, key, keys, count, scale, size, pitch, unit, scratch, mask,
        [&] { turns.wait(key / kBlock, head, first / kBlock); }, [&] { turns.pass(key / kBlock); });
  }
}

template <class Engine>
void attention_gradient(const KernelCall& call) {
  const Tensor &d_out = call.inputs[0], &q = call.inputs[1], &k = call.inputs[2], &v = call.inputs[3];
  const Tensor &out = call.inputs[4], &d_q = call.outputs[0], &d_k = call.outputs[1], &d_v = call.outputs[2];
  const float* logsumexp = call.inputs[5].as<float>();
  const Problem problem = read_problem(call, q, k, call.inputs[6]);
  const int64_t size = problem.size, pitch = round_up(size, Engine::kPitchMultiple);
  const int64_t group_heads = problem.group_heads();
  using Unit = BackwardUnit<Engine>;
  using Scratch = BackwardScratch<Engine>;

  const auto pack = [&](int64_t index, int64_t block, const Unit& unit, const Scratch& scratch) {
    const int64_t token = problem.first_token(index), group = index % problem.groups;
    pack_backward_block<Engine>(head_rows(k, token, group), head_rows(v, token, group), block,
                                problem.visibility(index).keys, size, pitch, unit, scratch);
  };
  const auto compute = [&](int64_t index, int64_t task, bool shared, const Unit& unit,
                           const Scratch& scratch) {
    const Visibility visibility = problem.visibility(index);
    const int64_t blocks = block_count(visibility.keys), token = problem.first_token(index);
    const int64_t head = index % problem.groups * group_heads + task / blocks;
    const int64_t first = task % blocks * kAttentionBlock;
    const int64_t count = smaller(kAttentionBlock, visibility.keys - first);
    load_queries<Engine>(head_rows(q, token, head), head_rows(out, token, head),
                         head_rows(d_out, token, head), logsumexp + head * problem.tokens + token, first,
                         count, size, pitch, scratch);
    const Turns turns{shared ? unit.turns : nullptr, visibility};
    backward_block<Engine>(visibility, turns, task / blocks, first, count, problem.scale, size, pitch, unit,
                           scratch);
    for (int64_t i = 0; i < kAttentionBlock; i++) scratch.deltas[i] = problem.scale;
    store_transposed(scratch.d_queries, scratch.deltas, count, size, head_rows(d_q, token, head), first);
  };
  const auto finish = [&](int64_t index, int64_t block, const Unit& unit, const Scratch&) {
    const int64_t token = problem.first_token(index), group = index % problem.groups;
    const int64_t first = block * kAttentionBlock;
    const int64_t count = smaller(kAttentionBlock, problem.visibility(index).keys - first);
    store_rows(unit.d_keys + first * pitch, pitch, problem.scale, count, size, head_rows(d_k, token, group),
               first);
    store_rows(unit.d_values + first * pitch, pitch, 1.0f, count, size, head_rows(d_v, token, group), first);
  };

  Pieces task_size{nullptr};
  Scratch(task_size, pitch);
  const auto bytes_of = [&](int64_t length) {
    Pieces unit_size{nullptr};
    Unit(unit_size, length, pitch);
    return unit_size.used + task_size.used;
  };
  const auto whole = [&](int64_t index, int thread) {
    [[maybe_unused]] const typename Engine::Session session;
    const int64_t length = problem.visibility(index).keys, blocks = block_count(length);
    Pieces pieces{static_cast<uint8_t*>(call.threads.scratch(thread, bytes_of(length)))};
    const Unit unit(pieces, length, pitch);
    const Scratch scratch(pieces, pitch);
    for (int64_t block = 0; block < blocks; block++) pack(index, block, unit, scratch);
    for (int64_t task = 0; task < blocks * group_heads; task++) compute(index, task, false, unit, scratch);
    for (int64_t block = 0; block < blocks; block++) finish(index, block, unit, scratch);
  };
  const auto shared = [&](int64_t index) {
    const int64_t length = problem.visibility(index).keys, blocks = block_count(length);
    Pieces shared_pieces{static_cast<uint8_t*>(call.threads.scratch(0, bytes_of(length)))};
    const Unit unit(shared_pieces, length, pitch);
    const auto run = [&](int64_t tasks, const auto& body) {
      call.threads.parallel_tasks(tasks, [&](int64_t task, int thread) {
        [[maybe_unused]] const typename Engine::Session session;
        Pieces pieces{thread == 0 ? shared_pieces.base + shared_pieces.used
                                  : static_cast<uint8_t*>(call.threads.scratch(thread, task_size.used))};
        body(index, task, unit, Scratch(pieces, pitch));
      });
    };
    run(blocks, pack);
    run(blocks * group_heads, [&](int64_t unit_index, int64_t task, const Unit& of, const Scratch& scratch) {
      compute(unit_index, task, true, of, scratch);
    });
    run(blocks, finish);
  };
  const auto load_of = [&](int64_t unit) {
    const Visibility visibility = problem.visibility(unit);
    return UnitLoad{visibility.pairs(visibility.keys), block_count(visibility.keys) * group_heads,
                    bytes_of(visibility.keys)};
  };
  for_each_unit(call.threads, problem.units(), load_of, whole, shared);
}

}  // namespace
}  // namespace slipstream
