// Attention to a block of keys, forward: the tiles of forward.h over the key blocks that 64 queries see.
// Where other blocks were attended to before, a task goes on from there: their result, transposed, is the
// output so far, their logsumexp the maximum, and 1 the sum.
//
// Data: a unit is one key/value head; it packs the key blocks that any query may see as in forward.h, with
// the bounds of their places. Tasks are 64 queries of one head, the last ones first.
#pragma once

#include "kernels/attention/block_tiles.h"
#include "kernels/attention/forward.h"

namespace slipstream {
namespace {

// The result so far of a task's queries; rows are null where there is none.
struct BlockHead {
  Rows queries, before, output;
  const float* logsumexp_before;
  float* logsumexp;
};

template <class Engine>
struct BlockForwardScratch : ForwardScratch<Engine> {
  float* before;

  BlockForwardScratch(Pieces& pieces, int64_t pitch) : ForwardScratch<Engine>(pieces, pitch) {
    before = pieces.take<float>(kAttentionBlock * pitch);
  }
};

// Queries that see nothing of the block keep what they have: 0 and kNothingSeen where it is the first.
inline void keep_result(const BlockHead& head, int64_t first, int64_t count, int64_t size) {
  const bool has_before = head.before.data != nullptr;
  for (int64_t i = first; i < first + count; i++) {
    head.logsumexp[i] = has_before ? head.logsumexp_before[i] : kNothingSeen;
    if (head.before.data == head.output.data) continue;
    for (int64_t d = 0; d < size; d += Vector::lanes) {
      const int64_t width = smaller(Vector::lanes, size - d);
      store_any(add_before(Vector(0.0f), head.before, i, d, width), head.output, i, d, width);
    }
  }
}

// Loads queries, and where their online softmax stands.
template <class Engine>
void begin_queries(const BlockHead& head, int64_t first, int64_t count, int64_t size, int64_t pitch,
                   const BlockForwardScratch<Engine>& scratch) {
  copy_rows(head.queries, first, count, size, pitch, scratch.rows);
  columns_of_rows<Engine>(scratch.rows, count, pitch, scratch.queries);
  for (int64_t i = 0; i < kAttentionBlock; i++) {
    const bool goes_on =
        head.before.data != nullptr && i < count && has_seen(head.logsumexp_before[first + i]);
    scratch.maximum[i] = goes_on ? head.logsumexp_before[first + i] * kLog2E : -__builtin_inff();
    scratch.sum[i] = goes_on ? 1.0f : 0.0f;
  }
  if (head.before.data == nullptr) return;
  copy_rows(head.before, first, count, size, pitch, scratch.before);
  transpose_units(scratch.before, round_up(count, 32), pitch, pitch, scratch.output, kAttentionBlock);
}

template <class Engine>
void block_forward_task(const BlockProblem& problem, const BlockHead& head, const QueryTile& queries,
                        int64_t first, const KeyTile* tiles, int64_t pitch, const PackedUnit<Engine>& unit,
                        const BlockForwardScratch<Engine>& scratch) {
  const int64_t count = queries.count, columns = round_up(count, 32), size = problem.size;
  bool begun = false;
  for (int64_t key = 0; key < problem.keys; key += kAttentionBlock) {
    const KeyTile& tile = tiles[key / kAttentionBlock];
    if (!tile.is_seen_by(queries)) continue;
    if (!begun) begin_queries<Engine>(head, first, count, size, pitch, scratch);
    const int64_t keys = smaller(kAttentionBlock, problem.keys - key);
    const auto mask = [&](int64_t padded_keys, float factor) {
      if (factor >= 0 && !block_needs_mask<Engine>(queries, tile, keys)) return factor;
      mask_block_scores(queries, tile, problem.key_places + key, keys, padded_keys, columns, factor,
                        scratch.scores);
      return 1.0f;
    };
    forward_tile<Engine>(!begun && head.before.data == nullptr, key, keys, columns, problem.scale, size,
                         pitch, unit, scratch, mask);
    begun = true;
  }
  if (!begun) return keep_result(head, first, count, size);
  for (int64_t i = 0; i < count; i++) {
    const float sum = scratch.sum[i];
    head.logsumexp[first + i] = sum == 0 ? kNothingSeen : scratch.maximum[i] * kLn2 + __builtin_logf(sum);
    scratch.rescale[i] = sum == 0 ? 0.0f : 1.0f / sum;
  }
  store_transposed(scratch.output, scratch.rescale, count, size, head.output, first);
}

template <class Engine>
void attention_block(const KernelCall& call) {
  const Tensor &q = call.inputs[0], &k = call.inputs[1], &v = call.inputs[2];
  const BlockProblem problem = read_block_problem(call, q, k, 3);
  const Tensor *out_before = call.optional_input(6), *logsumexp_before = call.optional_input(7);
  const int64_t pitch = round_up(problem.size, Engine::kPitchMultiple), group_heads = problem.group_heads();
  const int64_t query_blocks = block_count(problem.queries), key_blocks = block_count(problem.keys);
  const SeenBounds bounds(problem);
  struct Unit : PackedUnit<Engine> {
    KeyTile* tiles;
    Unit(Pieces& pieces, int64_t keys, int64_t pitch) : PackedUnit<Engine>(pieces, keys, pitch) {
      tiles = pieces.take<KeyTile>(block_count(keys));
    }
  };
  using Scratch = BlockForwardScratch<Engine>;

  const auto pack = [&](int64_t group, int64_t block, const Unit& unit, const Scratch& scratch) {
    const KeyTile tile(problem, block * kAttentionBlock);
    unit.tiles[block] = tile;
    if (!tile.is_seen(bounds.low, bounds.high)) return;
    pack_forward_block<Engine>(head_rows(k, 0, group), head_rows(v, 0, group), block, problem.keys,
                               problem.size, pitch, unit, scratch);
  };
  const auto compute = [&](int64_t group, int64_t task, const Unit& unit, const Scratch& scratch) {
    const int64_t index = group * group_heads + task % group_heads;
    const int64_t first = (query_blocks - 1 - task / group_heads) * kAttentionBlock;
    const int64_t statistics = index * problem.queries;
    const BlockHead head{head_rows(q, 0, index), sums_so_far(out_before, index),
                         head_rows(call.outputs[0], 0, index),
                         logsumexp_before ? logsumexp_before->as<float>() + statistics : nullptr,
                         call.outputs[1].as<float>() + statistics};
    block_forward_task<Engine>(problem, head, QueryTile(problem, first), first, unit.tiles, pitch, unit,
                               scratch);
  };

  Pieces task_size{nullptr}, unit_size{nullptr};
  Scratch(task_size, pitch);
  Unit(unit_size, problem.keys, pitch);
  const int64_t bytes = task_size.used + unit_size.used;
  const auto whole = [&](int64_t group, int thread) {
    [[maybe_unused]] const typename Engine::Session session;
    Pieces pieces{static_cast<uint8_t*>(call.threads.scratch(thread, bytes))};
    const Unit unit(pieces, problem.keys, pitch);
    const Scratch scratch(pieces, pitch);
    for (int64_t block = 0; block < key_blocks; block++) pack(group, block, unit, scratch);
    for (int64_t task = 0; task < query_blocks * group_heads; task++) compute(group, task, unit, scratch);
  };
  const auto shared = [&](int64_t group) {
    Pieces shared_pieces{static_cast<uint8_t*>(call.threads.scratch(0, bytes))};
    const Unit unit(shared_pieces, problem.keys, pitch);
    const auto run = [&](int64_t tasks, const auto& body) {
      call.threads.parallel_tasks(tasks, [&](int64_t task, int thread) {
        [[maybe_unused]] const typename Engine::Session session;
        Pieces pieces{thread == 0 ? shared_pieces.base + shared_pieces.used
                                  : static_cast<uint8_t*>(call.threads.scratch(thread, task_size.used))};
        body(group, task, unit, Scratch(pieces, pitch));
      });
    };
    run(key_blocks, pack);
    run(query_blocks * group_heads, compute);
  };
  const auto load_of = [&](int64_t) {
    return UnitLoad{problem.queries * (problem.keys + 1), query_blocks * group_heads, bytes};
  };
  for_each_unit(call.threads, problem.groups, load_of, whole, shared);
}

}  // namespace
}  // namespace slipstream
