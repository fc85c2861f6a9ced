// What a block of keys contributes to the gradients of attention: the tiles of backward.h over the key blocks
// that 64 queries see, with the logsumexp over all blocks.
//
// Data: a unit is one key/value head; it packs the key blocks that any query may see as in backward.h, with
// the bounds of their places. Tasks are 64 queries of one head. Where threads share a unit, every task takes
// its turn at every key block, also at those that it passes over, so that their sums grow in the order of the
// tasks.
#pragma once

#include "kernels/attention/backward.h"
#include "kernels/attention/block_tiles.h"

namespace slipstream {
namespace {

template <class Engine>
void attention_block_gradient(const KernelCall& call) {
  const Tensor &d_out = call.inputs[0], &q = call.inputs[1], &k = call.inputs[2], &v = call.inputs[3];
  const Tensor &d_q = call.outputs[0], &d_k = call.outputs[1], &d_v = call.outputs[2];
  const float *logsumexp = call.inputs[4].as<float>(), *delta = call.inputs[5].as<float>();
  const BlockProblem problem = read_block_problem(call, q, k, 6);
  const int sums = static_cast<int>(call.attributes[3]);
  const Tensor* d_q_before = sums == 1 ? &call.inputs[9] : nullptr;
  const Tensor* d_k_before = sums == 2 ? &call.inputs[9] : nullptr;
  const Tensor* d_v_before = sums == 2 ? &call.inputs[10] : nullptr;
  const int64_t size = problem.size, pitch = round_up(size, Engine::kPitchMultiple);
  const int64_t group_heads = problem.group_heads();
  const int64_t query_blocks = block_count(problem.queries), key_blocks = block_count(problem.keys);
  const SeenBounds bounds(problem);
  struct Unit : BackwardUnit<Engine> {
    KeyTile* tiles;
    Unit(Pieces& pieces, int64_t keys, int64_t pitch) : BackwardUnit<Engine>(pieces, keys, pitch) {
      tiles = pieces.take<KeyTile>(block_count(keys));
    }
  };
  using Scratch = BackwardScratch<Engine>;

  const auto pack = [&](int64_t group, int64_t block, const Unit& unit, const Scratch& scratch) {
    const KeyTile tile(problem, block * kAttentionBlock);
    unit.tiles[block] = tile;
    unit.turns[block] = 0;
    if (!tile.is_seen(bounds.low, bounds.high)) return;
    pack_backward_block<Engine>(head_rows(k, 0, group), head_rows(v, 0, group), block, problem.keys, size,
                                pitch, unit, scratch);
  };
  const auto compute = [&](int64_t group, int64_t task, bool shared, const Unit& unit,
                           const Scratch& scratch) {
    const int64_t head = group * group_heads + task / query_blocks;
    const int64_t first = task % query_blocks * kAttentionBlock, statistics = head * problem.queries + first;
    const QueryTile queries(problem, first);
    const int64_t columns = round_up(queries.count, 32);
    bool begun = false;
    for (int64_t key = 0; key < problem.keys; key += kAttentionBlock) {
      const int64_t block = key / kAttentionBlock;
      const KeyTile& tile = unit.tiles[block];
      const auto wait = [&] {
        if (shared) wait_for_turn(unit.turns + block, task);
      };
      const auto pass = [&] {
        if (shared) pass_turn(unit.turns + block);
      };
      if (!tile.is_seen_by(queries)) {
        wait();
        pass();
        continue;
      }
      if (!begun) {
        copy_rows(head_rows(d_out, 0, head), first, queries.count, size, pitch, scratch.d_output_rows);
        pack_queries<Engine>(head_rows(q, 0, head), first, queries.count, size, pitch, scratch);
        for (int64_t i = 0; i < kAttentionBlock; i++) {
          scratch.normalizers[i] = i < queries.count ? logsumexp[statistics + i] * kLog2E : 0.0f;
          scratch.deltas[i] = i < queries.count ? delta[statistics + i] : 0.0f;
        }
      }
      const int64_t keys = smaller(kAttentionBlock, problem.keys - key);
      const auto mask = [&](int64_t rows, int64_t padded_keys, float factor) {
        if (!block_needs_mask<Engine>(queries, tile, keys)) return factor;
        mask_block_scores(queries, tile, problem.key_places + key, keys, padded_keys, columns, factor,
                          scratch.scores);
        clear_padding<Engine>(rows, padded_keys, scratch);
        return 1.0f;
      };
      backward_tile<Engine>(!begun, key, keys, queries.count, problem.scale, size, pitch, unit, scratch, mask,
                            wait, pass);
      begun = true;
    }
    const Rows before = sums_so_far(d_q_before, head), target = head_rows(d_q, 0, head);
    if (begun) {
      add_transposed(scratch.d_queries, problem.scale, queries.count, size, before, target, first);
    } else {
      add_rows(nullptr, 0, 0, queries.count, size, before, target, first);
    }
  };
  const auto finish = [&](int64_t group, int64_t block, const Unit& unit, const Scratch&) {
    const int64_t first = block * kAttentionBlock, count = smaller(kAttentionBlock, problem.keys - first);
    const bool seen = unit.tiles[block].is_seen(bounds.low, bounds.high);
    add_rows(seen ? unit.d_keys + first * pitch : nullptr, pitch, problem.scale, count, size,
             sums_so_far(d_k_before, group), head_rows(d_k, 0, group), first);
    add_rows(seen ? unit.d_values + first * pitch : nullptr, pitch, 1.0f, count, size,
             sums_so_far(d_v_before, group), head_rows(d_v, 0, group), first);
  };

  Pieces task_size{nullptr}, unit_size{nullptr};
  Scratch(task_size, pitch);
  Unit(unit_size, problem.keys, pitch);
  const int64_t bytes = task_size.used + unit_size.used, tasks = query_blocks * group_heads;
  const auto whole = [&](int64_t group, int thread) {
    [[maybe_unused]] const typename Engine::Session session;
    Pieces pieces{static_cast<uint8_t*>(call.threads.scratch(thread, bytes))};
    const Unit unit(pieces, problem.keys, pitch);
    const Scratch scratch(pieces, pitch);
    for (int64_t block = 0; block < key_blocks; block++) pack(group, block, unit, scratch);
    for (int64_t task = 0; task < tasks; task++) compute(group, task, false, unit, scratch);
    for (int64_t block = 0; block < key_blocks; block++) finish(group, block, unit, scratch);
  };
  const auto shared = [&](int64_t group) {
    Pieces shared_pieces{static_cast<uint8_t*>(call.threads.scratch(0, bytes))};
    const Unit unit(shared_pieces, problem.keys, pitch);
    const auto run = [&](int64_t count, const auto& body) {
      call.threads.parallel_tasks(count, [&](int64_t task, int thread) {
        [[maybe_unused]] const typename Engine::Session session;
        Pieces pieces{thread == 0 ? shared_pieces.base + shared_pieces.used
                                  : static_cast<uint8_t*>(call.threads.scratch(thread, task_size.used))};
        body(task, Scratch(pieces, pitch));
      });
    };
    run(key_blocks, [&](int64_t block, const Scratch& scratch) { pack(group, block, unit, scratch); });
    run(tasks, [&](int64_t task, const Scratch& scratch) { compute(group, task, true, unit, scratch); });
    run(key_blocks, [&](int64_t block, const Scratch& scratch) { finish(group, block, unit, scratch); });
  };
  const auto load_of = [&](int64_t) {
    // A block without queries still writes the gradients of its keys.
    return UnitLoad{problem.queries * (problem.keys + 1), tasks + key_blocks, bytes};
  };
  for_each_unit(call.threads, problem.groups, load_of, whole, shared);
}

}  // namespace
}  // namespace slipstream
