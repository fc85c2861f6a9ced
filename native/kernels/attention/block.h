// Attention to one block of keys that a rank holds: what both directions share.
//
// Every query and key has a *place*, its number among all tokens of the packed sequences (-1: padding), so
// that the tokens may lie in any order. A query sees the keys whose places are in one range [low, high),
// which follows from its own place, the offsets of the sequences, causality and the window. Tiles of 64
// queries by 64 keys are compared by the least and greatest of these: those of which no pair sees each other
// are passed over, those of which every pair does are not masked.
#pragma once

#include "kernels/attention/problem.h"

namespace slipstream {

// Kernels that other instruction sets fall back to for the dtypes that gain nothing there.
void attention_block_avx512(const KernelCall&);
void attention_block_gradient_avx512(const KernelCall&);

namespace {

constexpr int32_t kNoPlace = -1;

// The logsumexp of a query that has seen no key yet: finite, so that a search for what is not passes it over.
constexpr float kNothingSeen = -1e30f;
SLIPSTREAM_INLINE bool has_seen(float logsumexp) { return !(logsumexp <= kNothingSeen); }

// The sizes and masks of an `attention_block` or `attention_block_gradient` call.
struct BlockProblem {
  int64_t queries, keys, heads, groups, size, sequences;
  const int32_t *query_places, *key_places, *offsets;
  float scale;
  bool causal;
  int64_t window;

  SLIPSTREAM_INLINE int64_t group_heads() const { return groups == 0 ? 0 : heads / groups; }
};

SLIPSTREAM_INLINE BlockProblem read_block_problem(const KernelCall& call, const Tensor& q, const Tensor& k,
                                                  int first_places) {
  const Tensor& offsets = call.inputs[first_places + 2];
  return {q.size(0),
          k.size(0),
          q.size(1),
          k.size(1),
          q.size(2),
          offsets.size(0) - 1,
          call.inputs[first_places].as<int32_t>(),
          call.inputs[first_places + 1].as<int32_t>(),
          offsets.as<int32_t>(),
          static_cast<float>(call.attributes[0]),
          call.attributes[1] != 0,
          static_cast<int64_t>(call.attributes[2])};
}

// Whether a call multiplies in bf16, as in `multiplies_bf16`: by the longest sequence, of which a block may
// hold a part.
SLIPSTREAM_INLINE bool block_multiplies_bf16(const BlockProblem& problem, DType dtype) {
  int64_t longest = 0;
  for (int64_t s = 0; s < problem.sequences; s++)
    longest = larger(longest, problem.offsets[s + 1] - problem.offsets[s]);
  const bool few_keys = longest <= 16 || (problem.window > 0 && problem.window <= 16);
  return dtype == DType::bf16 && !few_keys;
}

// The places [low, high) that a query sees; none where they are equal.
struct SeenPlaces {
  int32_t low, high;
};

// Finds what queries see. Neighbours are mostly of one sequence: the last one found is tried first.
struct SequenceFinder {
  const BlockProblem& problem;
  int64_t sequence = 0;

  SLIPSTREAM_INLINE SeenPlaces seen(int32_t place) {
    const int32_t* offsets = problem.offsets;
    if (place < 0 || problem.sequences == 0 || place >= offsets[problem.sequences]) return {0, 0};
    if (place < offsets[sequence] || place >= offsets[sequence + 1]) {
      int64_t first = 0, last = problem.sequences - 1;
      while (first < last) {
        const int64_t middle = (first + last) / 2;
        if (offsets[middle + 1] > place) {
          last = middle;
        } else {
          first = middle + 1;
        }
      }
      sequence = first;
    }
    const int64_t start = offsets[sequence];
    const int64_t low = problem.window > 0 ? larger(start, place - problem.window + 1) : start;
    return {static_cast<int32_t>(low), problem.causal ? place + 1 : offsets[sequence + 1]};
  }
};

// What up to 64 queries see.
struct QueryTile {
  int64_t count = 0;
  int32_t low[kAttentionBlock], high[kAttentionBlock];
  // The bounds of low and high; `any_` over those that see anything at all.
  int32_t any_low = INT32_MAX, any_high = 0, all_low = 0, all_high = INT32_MAX;

  QueryTile(const BlockProblem& problem, int64_t first) {
    SequenceFinder finder{problem};
    count = smaller(kAttentionBlock, problem.queries - first);
    for (int64_t i = 0; i < count; i++) {
      const SeenPlaces seen = finder.seen(problem.query_places[first + i]);
      low[i] = seen.low;
      high[i] = seen.high;
      if (seen.low < seen.high) {
        any_low = static_cast<int32_t>(smaller(any_low, seen.low));
        any_high = static_cast<int32_t>(larger(any_high, seen.high));
      }
      all_low = static_cast<int32_t>(larger(all_low, seen.low));
      all_high = static_cast<int32_t>(smaller(all_high, seen.high));
    }
  }
};

// The least and greatest place of up to 64 keys; padding counts as -1.
struct KeyTile {
  int32_t least = INT32_MAX, greatest = kNoPlace;

  KeyTile() = default;
  KeyTile(const BlockProblem& problem, int64_t first) {
    const int64_t end = smaller(first + kAttentionBlock, problem.keys);
    for (int64_t i = first; i < end; i++) {
      const int32_t place = problem.key_places[i];
      least = place < least ? place : least;
      greatest = place > greatest ? place : greatest;
    }
  }

  SLIPSTREAM_INLINE bool is_seen(int32_t any_low, int32_t any_high) const {
    return greatest >= any_low && least < any_high;
  }
  SLIPSTREAM_INLINE bool is_seen_by(const QueryTile& tile) const {
    return is_seen(tile.any_low, tile.any_high);
  }
  SLIPSTREAM_INLINE bool is_seen_whole(const QueryTile& tile) const {
    return least >= tile.all_low && greatest < tile.all_high;
  }
};

// The bounds of what any query of the call sees.
struct SeenBounds {
  int32_t low = INT32_MAX, high = 0;

  explicit SeenBounds(const BlockProblem& problem) {
    for (int64_t first = 0; first < problem.queries; first += kAttentionBlock) {
      const QueryTile tile(problem, first);
      low = static_cast<int32_t>(smaller(low, tile.any_low));
      high = static_cast<int32_t>(larger(high, tile.any_high));
    }
  }
};

}  // namespace
}  // namespace slipstream
