// A few query rows a head against a piece of a cache: bound by memory, so each key and value is read once,
// for all rows. A piece is walked over in chunks of at most 64 tokens, all key/value heads of a chunk one
// after another, while the next chunk is fetched in the order in which it lies in memory. Rows of a head
// (queries times heads of the group) are taken in blocks of four, then two and one where fewer are left.
//
// The softmax of a chunk runs along vectors of scores [token][row of the block]: lane i belongs to row i %
// rows. A score is the dot product times `factor`, in base 2. In a cache of i8, scales of keys go into the
// scores and scales of values into the weights.
//
// A partial result is [group][row][maximum, sum, padding.. | output], the output at kPartialHeader: the
// softmax over the piece's tokens alone, not yet divided by its sum.
#pragma once

#include "kernels/attention/decode_products.h"

namespace slipstream {
namespace {

constexpr int64_t kDecodeChunk = 64, kPartialHeader = 16;
// Query rows of a head at the most, and of a block.
constexpr int64_t kDecodeRows = 16, kBlockRows = 4;

SLIPSTREAM_INLINE int64_t partial_pitch(int64_t pitch) { return kPartialHeader + pitch; }

struct DecodeTask {
  Visibility visibility;
  Rows keys, values;  // of the first group; the others' follow at `size` elements, their scales at one
  DType query_dtype;
  float factor;
  int64_t first_position, queries, groups, group_heads, begin, end, size, pitch;

  SLIPSTREAM_INLINE int64_t rows() const { return queries * group_heads; }
  SLIPSTREAM_INLINE bool multiplies_bf16() const {
    return kMultipliesBf16 && query_dtype == DType::bf16 && keys.dtype == DType::bf16;
  }
  // Tokens of a chunk: so many that two chunks stay in the second-level cache.
  SLIPSTREAM_INLINE int64_t chunk_tokens() const {
    const int64_t fitting = (256 << 10) / (keys.stride + values.stride + 1) / 16 * 16;
    return larger(16, smaller(kDecodeChunk, fitting));
  }
};

struct DecodeScratch {
  float* queries;                             // [groups][rows][pitch], in the same memory as
  bf16* bf16_queries;                         // [groups][rows][pitch]
  float *scores, *key_scales, *value_scales;  // [64][rows of a block], [64], [64]
  float *maxima, *sums;                       // [groups][blocks of rows][lanes]

  DecodeScratch(Pieces& pieces, int64_t groups, int64_t rows, int64_t pitch) {
    queries = pieces.take<float>(groups * rows * pitch);
    bf16_queries = reinterpret_cast<bf16*>(queries);
    scores = pieces.take<float>(kDecodeChunk * kBlockRows);
    key_scales = pieces.take<float>(kDecodeChunk + Vector::lanes);
    value_scales = pieces.take<float>(kDecodeChunk + Vector::lanes);
    maxima = pieces.take<float>(groups * kDecodeRows * Vector::lanes);
    sums = pieces.take<float>(groups * kDecodeRows * Vector::lanes);
  }
};

// Row `row` of the task from a row of the queries.
inline void load_query(const DecodeTask& task, const Rows& rows, int64_t index, int64_t row,
                       const DecodeScratch& scratch) {
  if (task.multiplies_bf16()) {
    copy_row(rows, index, task.size, task.pitch, scratch.bf16_queries + row * task.pitch);
  } else {
    copy_row(rows, index, task.size, task.pitch, scratch.queries + row * task.pitch);
  }
}

// Where the tokens [first, first + count) lie. Behind the last one, it is repeated.
struct TokenChunk {
  int64_t first, count;
  int64_t slots[kDecodeChunk];
  const uint8_t *keys[kDecodeChunk], *values[kDecodeChunk];

  void find(const DecodeTask& task, int64_t begin) {
    first = begin;
    count = larger(0, smaller(task.chunk_tokens(), task.end - begin));
    if (count == 0) return;
    const int64_t block_size = task.keys.block_size;
    int64_t block = begin / block_size, inside = begin % block_size;
    int64_t slot = task.keys.blocks[block] * block_size + inside;
    for (int64_t j = 0; j < count; j++) {
      slots[j] = slot++;
      if (++inside == block_size && j + 1 < count) {
        inside = 0;
        slot = task.keys.blocks[++block] * block_size;
      }
    }
    for (int64_t j = 0; j < kDecodeChunk; j++) {
      const int64_t at = slots[smaller(j, count - 1)];
      keys[j] = task.keys.data + at * task.keys.stride;
      values[j] = task.values.data + at * task.values.stride;
    }
  }

  // The share of group `group` in fetching the rows of the chunk.
  SLIPSTREAM_INLINE FetchAhead fetching(const uint8_t* const* rows, int64_t bytes, int64_t group,
                                        int64_t groups) const {
    const int64_t begin = count * group / groups;
    return {rows + begin, count * (group + 1) / groups - begin, bytes};
  }
};

// Calls f.operator()<T>() for the element type of a cache.
template <class F>
SLIPSTREAM_INLINE void with_cache_type(DType dtype, const F& f) {
  if (dtype == DType::f32) {
    f.template operator()<float>();
  } else if (dtype == DType::bf16) {
    f.template operator()<bf16>();
  } else if (dtype == DType::f16) {
    f.template operator()<f16>();
  } else {
    f.template operator()<int8_t>();
  }
}

// Calls f.operator()<rows>(first row, number of the block) for each block of rows.
template <class F>
SLIPSTREAM_INLINE void for_each_block(int64_t rows, const F& f) {
  int64_t row = 0, block = 0;
  for (; rows - row >= 4; row += 4) f.template operator()<4>(row, block++);
  if (rows - row >= 2) {
    f.template operator()<2>(row, block++);
    row += 2;
  }
  if (row < rows) f.template operator()<1>(row, block);
}

// Scales of a chunk's tokens for a group.
SLIPSTREAM_INLINE void gather_scales(const Rows& cache, const TokenChunk& chunk, int64_t group,
                                     float* scales) {
  if (cache.dtype != DType::i8) return;
  for (int64_t j = 0; j < chunk.count; j++)
    scales[j] = cache.scales[chunk.slots[j] * cache.scale_stride + group];
}

// The tokens of a chunk that each row of a block sees, from `low` up to `high`, a lane each as the scores
// have it.
template <int rows>
struct SeenTokens {
  float low[Vector::lanes], high[Vector::lanes], token[Vector::lanes];
  bool all = true, none = true;

  SeenTokens(const DecodeTask& task, const TokenChunk& chunk, int64_t padded, int64_t row) {
    for (int64_t lane = 0; lane < Vector::lanes; lane++) {
      const int64_t position = task.first_position + (row + lane % rows) / task.group_heads;
      const int64_t begin = task.visibility.begin(position) - chunk.first;
      const int64_t end = smaller(chunk.count, task.visibility.end(position) - chunk.first);
      low[lane] = static_cast<float>(begin);
      high[lane] = static_cast<float>(end);
      token[lane] = static_cast<float>(lane / rows);
      all = all && begin <= 0 && end >= padded;
      none = none && (begin >= chunk.count || end <= 0);
    }
  }

  SLIPSTREAM_INLINE Vector keep(Vector scores, int64_t first) const {
    const Vector index = Vector::load(token) + Vector(static_cast<float>(first));
    const Vector nothing = -__builtin_inff();
    return select(less(index, Vector::load(low)), nothing,
                  select(less(index, Vector::load(high)), scores, nothing));
  }
};

// One step of the online softmax over the scores of a chunk, which become weights; `state` is the block's
// number among those of all groups, shrink[row] is by how much what was summed before shrinks.
template <int rows>
void softmax_chunk(const DecodeTask& task, const DecodeScratch& scratch, int64_t padded,
                   const SeenTokens<rows>& seen, int64_t state, float* shrink) {
  constexpr int64_t kTokens = Vector::lanes / rows;
  const bool scaled_keys = task.keys.dtype == DType::i8, scaled_values = task.values.dtype == DType::i8;
  const Vector factor = task.factor, nothing = -__builtin_inff();
  Vector tops = nothing;
  for (int64_t j = 0; j < padded; j += kTokens) {
    float* at = scratch.scores + j * rows;
    Vector scores = Vector::load(at) * factor;
    if (scaled_keys) scores = scores * repeat_each<rows>(scratch.key_scales + j);
    if (!seen.all) scores = seen.keep(scores, j);
    scores.store(at);
    tops = max(scores, tops);
  }
  float* maxima = scratch.maxima + state * Vector::lanes;
  const Vector before = Vector::load(maxima);
  max(tops, before).store(maxima);
  for (int64_t lane = rows; lane < Vector::lanes; lane++) {
    if (maxima[lane] > maxima[lane % rows]) maxima[lane % rows] = maxima[lane];
  }
  for (int64_t lane = rows; lane < Vector::lanes; lane++) maxima[lane] = maxima[lane % rows];
  const Vector top = Vector::load(maxima);
  // Rows that have seen no key yet: any finite maximum gives weights of 0.
  const Vector shift = select(equal(top, nothing), Vector(0.0f), top);
  const Vector smaller_by = exp2<5>(before - shift);
  float* sums = scratch.sums + state * Vector::lanes;
  Vector sum = Vector::load(sums) * smaller_by;
  for (int64_t j = 0; j < padded; j += kTokens) {
    float* at = scratch.scores + j * rows;
    Vector weights = exp2<5>(Vector::load(at) - shift);
    sum = sum + weights;
    if (scaled_values) weights = weights * repeat_each<rows>(scratch.value_scales + j);
    weights.store(at);
  }
  sum.store(sums);
  smaller_by.store(shrink);
}

// A chunk of tokens for the block of rows of a group from `row` on. Fetches the group's share of what comes
// next.
template <int rows>
void decode_block(const DecodeTask& task, const DecodeScratch& scratch, const TokenChunk& chunk,
                  int64_t group, int64_t row, int64_t block, FetchAhead& next_keys, FetchAhead& next_values,
                  float* partial) {
  const int64_t step = partial_pitch(task.pitch), padded = round_up(chunk.count, Vector::lanes / rows);
  const SeenTokens<rows> seen(task, chunk, padded, row);
  if (seen.none) return;
  const int64_t unit_row = group * task.rows() + row, element = group * task.size;
  with_cache_type(task.keys.dtype, [&]<class K>() {
    const auto multiply = [&](const auto* queries) {
      multiply_keys<K, rows>(queries + unit_row * task.pitch, task.pitch, chunk.keys,
                             element * static_cast<int64_t>(sizeof(K)), padded, task.size, next_keys,
                             scratch.scores);
    };
    if constexpr (kMultipliesBf16 && __is_same(K, bf16)) {
      if (task.multiplies_bf16()) return multiply(scratch.bf16_queries);
    }
    multiply(scratch.queries);
  });
  float shrink[Vector::lanes];
  softmax_chunk<rows>(task, scratch, padded, seen, group * kDecodeRows + block, shrink);
  with_cache_type(task.values.dtype, [&]<class V>() {
    add_values<V, rows>(scratch.scores, chunk.values, element * static_cast<int64_t>(sizeof(V)), chunk.count,
                        shrink, task.size, next_values, partial + unit_row * step + kPartialHeader, step);
  });
}

// The partial result of the tokens [begin, end) of a task whose queries are loaded. Meanwhile it fetches the
// first chunk of `following`, where there is such a task; its own first chunk at once, where nothing did so
// before.
inline void decode_piece(const DecodeTask& task, const DecodeScratch& scratch, const DecodeTask* following,
                         bool fetched, float* partial) {
  const int64_t rows = task.rows(), step = partial_pitch(task.pitch);
  std::memset(partial, 0, task.groups * rows * step * sizeof(float));
  for (int64_t group = 0; group < task.groups; group++) {
    for_each_block(rows, [&]<int>(int64_t, int64_t block) {
      const int64_t state = (group * kDecodeRows + block) * Vector::lanes;
      Vector(-__builtin_inff()).store(scratch.maxima + state);
      Vector(0.0f).store(scratch.sums + state);
    });
  }
  const int64_t key_bytes = task.groups * task.size * bytes_per_element(task.keys.dtype);
  const int64_t value_bytes = task.groups * task.size * bytes_per_element(task.values.dtype);
  TokenChunk chunks[2];
  chunks[0].find(task, task.begin);
  if (!fetched) {
    chunks[0].fetching(chunks[0].keys, key_bytes, 0, 1).step(1, 1);
    chunks[0].fetching(chunks[0].values, value_bytes, 0, 1).step(1, 1);
  }
  for (int64_t begin = task.begin, number = 0; begin < task.end; number++) {
    const TokenChunk& chunk = chunks[number % 2];
    TokenChunk& next = chunks[(number + 1) % 2];
    begin += chunk.count;
    if (begin < task.end) {
      next.find(task, begin);
    } else if (following != nullptr) {
      next.find(*following, following->begin);
    } else {
      next.count = 0;
    }
    for (int64_t group = 0; group < task.groups; group++) {
      gather_scales(task.keys, chunk, group, scratch.key_scales);
      gather_scales(task.values, chunk, group, scratch.value_scales);
      FetchAhead next_keys = next.fetching(next.keys, key_bytes, group, task.groups);
      FetchAhead next_values = next.fetching(next.values, value_bytes, group, task.groups);
      for_each_block(rows, [&]<int count>(int64_t row, int64_t block) {
        decode_block<count>(task, scratch, chunk, group, row, block, next_keys, next_values, partial);
      });
    }
  }
  for (int64_t group = 0; group < task.groups; group++) {
    for_each_block(rows, [&]<int count>(int64_t row, int64_t block) {
      const int64_t state = (group * kDecodeRows + block) * Vector::lanes;
      for (int64_t r = 0; r < count; r++) {
        float sum = 0;
        for (int64_t lane = r; lane < Vector::lanes; lane += count) sum += scratch.sums[state + lane];
        float* header = partial + (group * rows + row + r) * step;
        header[0] = scratch.maxima[state + r];
        header[1] = sum;
      }
    });
  }
}

// Row `index` of the output from the partial results of at most kMostPieces pieces, `step` floats apart, in
// order.
constexpr int64_t kMostPieces = 64;
inline void merge_pieces(const float* partial, int64_t step, int64_t pieces, int64_t size, const Rows& output,
                         int64_t index) {
  float top = -__builtin_inff();
  for (int64_t p = 0; p < pieces; p++) top = partial[p * step] > top ? partial[p * step] : top;
  Vector sum = 0.0f, weights[kMostPieces];
  for (int64_t p = 0; p < pieces; p++) {
    weights[p] = exp2<5>(Vector(partial[p * step]) - Vector(top));
    sum = fma(Vector(partial[p * step + 1]), weights[p], sum);
  }
  const Vector factor = Vector(1.0f) / sum;
  for (int64_t d = 0; d < size; d += Vector::lanes) {
    Vector total = 0.0f;
    for (int64_t p = 0; p < pieces; p++) {
      total = fma(Vector::load(partial + p * step + kPartialHeader + d), weights[p], total);
    }
    store_any(total * factor, output, index, d, smaller(Vector::lanes, size - d));
  }
}

}  // namespace
}  // namespace slipstream
