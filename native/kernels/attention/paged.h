// Attention over a paged cache (Kwon et al., "Efficient Memory Management for Large Language Model Serving
// with PagedAttention", 2023): the queries of a sequence are the last tokens of its context.
//
// Two ways, chosen by the number of query rows (queries times heads of the group) of a unit, so that results
// depend neither on the threads nor on the other sequences of the batch:
//   up to 16 rows   decode.h: pieces of 512 tokens, each read from the cache once for all rows, in float32;
//                   the pieces' outputs are merged in order
//   more            forward.h over rows gathered by the block table
#pragma once

#include "kernels/attention/decode.h"
#include "kernels/attention/forward.h"

namespace slipstream {
namespace {

constexpr int64_t kDecodeRows = 16;

struct PagedProblem {
  const KernelCall& call;
  const Tensor &q, &keys, &values, &out;
  const int32_t *query_offsets, *context_lengths, *tables;
  int64_t heads, groups, size, sequences, table_width;
  float scale;
  int64_t window, block_size;

  explicit PagedProblem(const KernelCall& given)
      : call(given),
        q(given.inputs[0]),
        keys(given.inputs[1]),
        values(given.inputs[2]),
        out(given.outputs[0]),
        query_offsets(given.inputs[3].as<int32_t>()),
        context_lengths(given.inputs[4].as<int32_t>()),
        tables(given.inputs[5].as<int32_t>()),
        heads(q.size(1)),
        groups(keys.size(1)),
        size(q.size(2)),
        sequences(given.inputs[4].size(0)),
        table_width(given.inputs[5].size(1)),
        scale(static_cast<float>(given.attributes[0])),
        window(static_cast<int64_t>(given.attributes[1])),
        block_size(static_cast<int64_t>(given.attributes[2])) {}

  SLIPSTREAM_INLINE int64_t group_heads() const { return groups == 0 ? 0 : heads / groups; }
  SLIPSTREAM_INLINE int64_t queries(int64_t sequence) const {
    return query_offsets[sequence + 1] - query_offsets[sequence];
  }
  SLIPSTREAM_INLINE bool decodes(int64_t sequence) const {
    return queries(sequence) * group_heads() <= kDecodeRows;
  }
  SLIPSTREAM_INLINE Visibility visibility(int64_t sequence) const {
    return {context_lengths[sequence], true, window};
  }
  SLIPSTREAM_INLINE int64_t first_position(int64_t sequence) const {
    return context_lengths[sequence] - queries(sequence);
  }
  SLIPSTREAM_INLINE Rows cache_rows(const Tensor& cache, int64_t sequence, int64_t group) const {
    Rows rows = head_rows(cache, 0, group);
    rows.blocks = tables + sequence * table_width;
    rows.block_size = block_size;
    return rows;
  }
  // Pieces of the context that the sequence's queries see: [first_piece, first_piece + pieces).
  SLIPSTREAM_INLINE int64_t first_piece(int64_t sequence) const {
    return visibility(sequence).begin(first_position(sequence)) / kDecodePiece;
  }
  SLIPSTREAM_INLINE int64_t pieces(int64_t sequence) const {
    if (!decodes(sequence) || queries(sequence) == 0) return 0;
    return (context_lengths[sequence] + kDecodePiece - 1) / kDecodePiece - first_piece(sequence);
  }
};

// The sequences of few rows: all pieces of all units at once, then the merging.
inline void decode_sequences(const PagedProblem& problem) {
  ThreadPool& threads = problem.call.threads;
  const int64_t group_heads = problem.group_heads(), pitch = round_up(problem.size, Vector::lanes);
  int64_t items = 0, most_rows = 0;
  for (int64_t s = 0; s < problem.sequences; s++) {
    const int64_t pieces = problem.pieces(s);
    items += pieces * problem.groups;
    if (pieces > 0) most_rows = larger(most_rows, problem.queries(s) * group_heads);
  }
  if (items == 0) return;
  const int64_t partial = most_rows * partial_pitch(pitch);
  Pieces shared{nullptr}, task_size{nullptr};
  shared.take<int64_t>(problem.sequences + 1);
  shared.take<float>(items * partial);
  DecodeScratch(task_size, most_rows, pitch);
  shared.base = static_cast<uint8_t*>(threads.scratch(0, shared.used + task_size.used));
  const int64_t shared_bytes = shared.used;
  shared.used = 0;
  int64_t* first_items = shared.take<int64_t>(problem.sequences + 1);
  float* partials = shared.take<float>(items * partial);
  first_items[0] = 0;
  for (int64_t s = 0; s < problem.sequences; s++) {
    first_items[s + 1] = first_items[s] + problem.pieces(s) * problem.groups;
  }

  threads.parallel_tasks(items, [&](int64_t item, int thread) {
    int64_t low = 0, high = problem.sequences;  // the last sequence whose first item is not behind this one
    while (high - low > 1) {
      const int64_t middle = (low + high) / 2;
      (first_items[middle] <= item ? low : high) = middle;
    }
    // Heads follow each other: their rows of one token lie side by side.
    const int64_t s = low, number = item - first_items[s], group = number % problem.groups;
    const int64_t piece = problem.first_piece(s) + number / problem.groups;
    Pieces memory{thread == 0 ? shared.base + shared_bytes
                              : static_cast<uint8_t*>(threads.scratch(thread, task_size.used))};
    const DecodeScratch scratch(memory, most_rows, pitch);
    const DecodeTask task{problem.visibility(s),
                          problem.cache_rows(problem.keys, s, group),
                          problem.cache_rows(problem.values, s, group),
                          problem.first_position(s),
                          problem.queries(s),
                          group_heads,
                          piece * kDecodePiece,
                          smaller(problem.context_lengths[s], (piece + 1) * kDecodePiece),
                          problem.size,
                          pitch};
    for (int64_t head = 0; head < group_heads; head++) {
      const Rows rows = head_rows(problem.q, problem.query_offsets[s], group * group_heads + head);
      for (int64_t i = 0; i < task.queries; i++) {
        load_query(rows, i, problem.scale * kLog2E, problem.size, pitch,
                   scratch.queries + (i * group_heads + head) * pitch);
      }
    }
    decode_piece(task, scratch, partials + item * partial);
  });

  threads.parallel_tasks(problem.sequences * problem.groups, [&](int64_t unit, int) {
    const int64_t s = unit / problem.groups, group = unit % problem.groups, pieces = problem.pieces(s);
    if (pieces == 0) return;
    const float* of_unit = partials + (first_items[s] + group) * partial;
    for (int64_t head = 0; head < group_heads; head++) {
      const Rows rows = head_rows(problem.out, problem.query_offsets[s], group * group_heads + head);
      for (int64_t i = 0; i < problem.queries(s); i++) {
        merge_pieces(of_unit + (i * group_heads + head) * partial_pitch(pitch), partial * problem.groups,
                     pieces, problem.size, rows, i);
      }
    }
  });
}

template <class Engine>
void paged_attention(const KernelCall& call) {
  const PagedProblem problem(call);
  const int64_t group_heads = problem.group_heads();
  decode_sequences(problem);
  forward_units<Engine>(
      call.threads, problem.sequences * problem.groups, group_heads, problem.scale, problem.size,
      [&](int64_t unit) {
        const int64_t s = unit / problem.groups, group = unit % problem.groups;
        if (problem.decodes(s)) return ForwardUnit{};
        return ForwardUnit{problem.visibility(s), problem.cache_rows(problem.keys, s, group),
                           problem.cache_rows(problem.values, s, group), problem.queries(s)};
      },
      [&](int64_t unit, int64_t member) {
        const int64_t head = unit % problem.groups * group_heads + member;
        const int64_t token = problem.query_offsets[unit / problem.groups];
        return ForwardHead{head_rows(problem.q, token, head), head_rows(problem.out, token, head)};
      });
}

}  // namespace
}  // namespace slipstream
