// Attention over a paged cache (Kwon et al., "Efficient Memory Management for Large Language Model Serving
// with PagedAttention", 2023): the queries of a sequence are the last tokens of its context.
//
// Two ways, chosen by the number of query rows a head (queries times heads of the group) of a sequence, so
// that results depend neither on the threads nor on the other sequences of the batch:
//   up to 16   decode.h: contexts are cut into pieces, and the pieces of all sequences into equal shares, as
//   in Lean
//              Attention (Sanovar et al., arXiv 2405.10480), so that long and short contexts together keep
//              all threads busy. Unlike there, the cuts of a context depend on its length alone. Whoever
//              finishes the last piece of a sequence merges all of them in order
//   more       forward.h over rows gathered by the block table
#pragma once

#include "kernels/attention/decode.h"
#include "kernels/attention/forward.h"

namespace slipstream {
namespace {

// Tokens of the shortest pieces, and how many pieces a longer context is cut into at the most.
constexpr int64_t kDecodePiece = 256, kUsualPieces = 32;

struct PagedProblem {
  const KernelCall& call;
  const Tensor &q, &keys, &values, &out;
  const int32_t *query_offsets, *context_lengths, *tables;
  const Tensor *key_scales, *value_scales;
  int64_t heads, groups, size, sequences, table_width;
  float scale;
  int64_t window, block_size, splits;

  explicit PagedProblem(const KernelCall& given)
      : call(given),
        q(given.inputs[0]),
        keys(given.inputs[1]),
        values(given.inputs[2]),
        out(given.outputs[0]),
        query_offsets(given.inputs[3].as<int32_t>()),
        context_lengths(given.inputs[4].as<int32_t>()),
        tables(given.inputs[5].as<int32_t>()),
        key_scales(given.optional_input(6)),
        value_scales(given.optional_input(7)),
        heads(q.size(1)),
        groups(keys.size(1)),
        size(q.size(2)),
        sequences(given.inputs[4].size(0)),
        table_width(given.inputs[5].size(1)),
        scale(static_cast<float>(given.attributes[0])),
        window(static_cast<int64_t>(given.attributes[1])),
        block_size(static_cast<int64_t>(given.attributes[2])),
        splits(given.attribute_count > 3 ? smaller(kMostPieces, static_cast<int64_t>(given.attributes[3]))
                                         : 0) {}

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
  SLIPSTREAM_INLINE Rows cache_rows(const Tensor& cache, const Tensor* scales, int64_t sequence,
                                    int64_t group) const {
    Rows rows = head_rows(cache, 0, group);
    rows.blocks = tables + sequence * table_width;
    rows.block_size = block_size;
    rows.scales = scales == nullptr ? nullptr : scales->as<float>() + group;
    rows.scale_stride = groups;
    return rows;
  }
  SLIPSTREAM_INLINE Rows key_rows(int64_t sequence, int64_t group) const {
    return cache_rows(keys, key_scales, sequence, group);
  }
  SLIPSTREAM_INLINE Rows value_rows(int64_t sequence, int64_t group) const {
    return cache_rows(values, value_scales, sequence, group);
  }

  // The first token that any query of the sequence sees.
  SLIPSTREAM_INLINE int64_t first_seen(int64_t sequence) const {
    return visibility(sequence).begin(first_position(sequence));
  }
  // Tokens of a piece. For comparisons, an attribute asks for so many equal pieces a sequence instead.
  SLIPSTREAM_INLINE int64_t piece_tokens(int64_t sequence) const {
    const int64_t context = context_lengths[sequence];
    if (splits > 0) return larger(1, (context + splits - 1) / splits);
    return larger(kDecodePiece, round_up((context + kUsualPieces - 1) / kUsualPieces, kDecodeChunk));
  }
  // Pieces of the context that the sequence's queries see: [first_piece, first_piece + pieces).
  SLIPSTREAM_INLINE int64_t first_piece(int64_t sequence) const {
    return first_seen(sequence) / piece_tokens(sequence);
  }
  SLIPSTREAM_INLINE int64_t pieces(int64_t sequence) const {
    if (!decodes(sequence) || queries(sequence) == 0) return 0;
    const int64_t tokens = piece_tokens(sequence);
    return (context_lengths[sequence] + tokens - 1) / tokens - first_piece(sequence);
  }
};

// The sequences of few rows.
struct Decoding {
  // Its pieces are the items [first_item, first_item + pieces). Where there are several, their results are at
  // `first_partial`, `finished` of them so far.
  struct Sequence {
    int64_t first_item, first_partial, pieces;
    int32_t finished;
  };

  const PagedProblem& problem;
  int64_t group_heads, pitch, items = 0, most_rows = 0, partial_count = 0;
  Sequence* sequences = nullptr;
  float* partials = nullptr;  // [partial_count][heads * most queries][partial_pitch]

  explicit Decoding(const PagedProblem& given)
      : problem(given),
        group_heads(given.group_heads()),
        pitch(round_up(given.size, kMultipliesBf16 ? 32 : Vector::lanes)) {
    for (int64_t s = 0; s < problem.sequences; s++) {
      const int64_t pieces = problem.pieces(s);
      items += pieces;
      if (pieces > 1) partial_count += pieces;
      if (pieces > 0) most_rows = larger(most_rows, problem.queries(s) * group_heads);
    }
  }

  SLIPSTREAM_INLINE int64_t partial_size() const { return problem.groups * most_rows * partial_pitch(pitch); }

  void take_shared(Pieces& memory) {
    sequences = memory.take<Sequence>(problem.sequences);
    partials = memory.take<float>(partial_count * partial_size());
  }

  void place_sequences() {
    int64_t item = 0, partial = 0;
    for (int64_t s = 0; s < problem.sequences; s++) {
      const int64_t pieces = problem.pieces(s);
      sequences[s] = {item, partial, pieces, 0};
      item += pieces;
      if (pieces > 1) partial += pieces;
    }
  }

  int64_t sequence_of(int64_t item) const {
    int64_t low = 0, high = problem.sequences;  // the last sequence whose first item is not behind this one
    while (high - low > 1) {
      const int64_t middle = (low + high) / 2;
      (sequences[middle].first_item <= item ? low : high) = middle;
    }
    return low;
  }

  DecodeTask task_of(int64_t item, int64_t s) const {
    const int64_t tokens = problem.piece_tokens(s);
    const int64_t piece = problem.first_piece(s) + item - sequences[s].first_item;
    return {problem.visibility(s),
            problem.key_rows(s, 0),
            problem.value_rows(s, 0),
            problem.q.dtype,
            problem.scale * kLog2E,
            problem.first_position(s),
            problem.queries(s),
            problem.groups,
            group_heads,
            larger(piece * tokens, problem.first_seen(s)),
            smaller(problem.context_lengths[s], (piece + 1) * tokens),
            problem.size,
            pitch};
  }

  // Calls body(head's rows, query, row among the rows of all groups).
  template <class Body>
  SLIPSTREAM_INLINE void for_each_row(const Tensor& tensor, int64_t s, const Body& body) const {
    const int64_t queries = problem.queries(s);
    for (int64_t head = 0; head < problem.heads; head++) {
      const Rows rows = head_rows(tensor, problem.query_offsets[s], head);
      const int64_t group = head / group_heads;
      for (int64_t i = 0; i < queries; i++) {
        body(rows, i, (group * queries + i) * group_heads + head % group_heads);
      }
    }
  }

  void write(int64_t s, int64_t pieces, const float* partial) const {
    for_each_row(problem.out, s, [&](const Rows& rows, int64_t i, int64_t row) {
      merge_pieces(partial + row * partial_pitch(pitch), partial_size(), pieces, problem.size, rows, i);
    });
  }

  // The items [begin, end). `memory` holds a DecodeScratch and one partial result.
  void run(int64_t begin, int64_t end, Pieces memory) const {
    const DecodeScratch scratch(memory, problem.groups, most_rows, pitch);
    float* own_partial = memory.take<float>(partial_size());
    int64_t s = sequence_of(begin), loaded = -1;
    DecodeTask task = task_of(begin, s), following = task;
    for (int64_t item = begin; item < end; item++) {
      int64_t next = s;
      if (item + 1 < end) {
        while (item + 1 >= sequences[next].first_item + sequences[next].pieces) next++;
        following = task_of(item + 1, next);
      }
      if (loaded != s) {
        for_each_row(problem.q, s, [&](const Rows& rows, int64_t i, int64_t row) {
          load_query(task, rows, i, row, scratch);
        });
        loaded = s;
      }
      Sequence& sequence = sequences[s];
      const bool alone = sequence.pieces == 1;
      float* of_sequence = partials + sequence.first_partial * partial_size();
      float* partial = alone ? own_partial : of_sequence + (item - sequence.first_item) * partial_size();
      decode_piece(task, scratch, item + 1 < end ? &following : nullptr, item > begin, partial);
      if (alone) {
        write(s, 1, partial);
      } else if (__atomic_add_fetch(&sequence.finished, 1, __ATOMIC_ACQ_REL) == sequence.pieces) {
        write(s, sequence.pieces, of_sequence);
      }
      task = following;
      s = next;
    }
  }
};

inline void decode_sequences(const PagedProblem& problem) {
  ThreadPool& threads = problem.call.threads;
  Decoding decoding(problem);
  if (decoding.items == 0) return;
  Pieces shared{nullptr}, own{nullptr};
  decoding.take_shared(shared);
  DecodeScratch(own, problem.groups, decoding.most_rows, decoding.pitch);
  own.take<float>(decoding.partial_size());
  const int64_t shared_bytes = shared.used, own_bytes = own.used;
  shared = {static_cast<uint8_t*>(threads.scratch(0, shared_bytes + own_bytes))};
  decoding.take_shared(shared);
  decoding.place_sequences();
  // Two shares a thread: one whose thread is late or slow is made up for, and within a share each piece is
  // fetched while the one before is worked on. Shares differ by one piece at the most.
  const int64_t shares = smaller(decoding.items, 2 * threads.size());
  threads.parallel_tasks(shares, [&](int64_t share, int thread) {
    decoding.run(decoding.items * share / shares, decoding.items * (share + 1) / shares,
                 {thread == 0 ? shared.base + shared_bytes
                              : static_cast<uint8_t*>(threads.scratch(thread, own_bytes))});
  });
}

template <class Engine>
void paged_attention(const KernelCall& call) {
  const PagedProblem problem(call);
  const int64_t group_heads = problem.group_heads();
  decode_sequences(problem);
  bool all_decode = true;
  for (int64_t s = 0; s < problem.sequences; s++) all_decode = all_decode && problem.decodes(s);
  if (all_decode) return;
  forward_units<Engine>(
      call.threads, problem.sequences * problem.groups, group_heads, problem.scale, problem.size,
      [&](int64_t unit) {
        const int64_t s = unit / problem.groups, group = unit % problem.groups;
        if (problem.decodes(s)) return ForwardUnit{};
        return ForwardUnit{problem.visibility(s), problem.key_rows(s, group), problem.value_rows(s, group),
                           problem.queries(s)};
      },
      [&](int64_t unit, int64_t member) {
        const int64_t head = unit % problem.groups * group_heads + member;
        const int64_t token = problem.query_offsets[unit / problem.groups];
        return ForwardHead{head_rows(problem.q, token, head), head_rows(problem.out, token, head)};
      });
}

}  // namespace
}  // namespace slipstream
