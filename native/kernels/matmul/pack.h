// Packing: rewrites a block of an operand as panels of 32-bit lanes, lane-major: panel[lane][column], where a
// lane is one float32, or two bf16 that are adjacent along the depth K. A panel holds `width` columns of the
// right operand or rows of the left one (both are "columns" here); those that the operand lacks are zeros.
#pragma once

#include "kernels/matmul/gemm.h"
#include "kernels/matmul/simd.h"

namespace slipstream {
namespace {

// What a lane holds: a float32, a float32 that was rounded to bf16, or a pair of bf16.
enum class Lane { float32, rounded, pair };

template <Lane kLane>
SLIPSTREAM_INLINE Lanes lanes_of(Vector value) {
  if constexpr (kLane == Lane::rounded) return join_halves(no_lanes(), to_bf16_bits(value));
  return bits_of(value);
}

// One group of kWidth rows by kWidth lanes, from memory in which the depth is contiguous.
template <Lane kLane, class S>
SLIPSTREAM_INLINE void load_group(const S* source, int64_t stride, int count, int64_t depth,
                                  Lanes group[kWidth]) {
  constexpr int kElements = kLane == Lane::pair ? 2 * kWidth : kWidth;
  const int length = static_cast<int>(depth < kElements ? depth : kElements);
#pragma GCC unroll 16
  for (int i = 0; i < kWidth; i++) {
    if (i >= count) {
      group[i] = no_lanes();
    } else if constexpr (kLane == Lane::pair) {
      group[i] = load_pairs(source + i * stride, length);
    } else {
      group[i] = lanes_of<kLane>(load(source + i * stride, length));
    }
  }
}

// What to pack: columns [begin, end) and depths [depth_begin, depth_begin + depth) into panels that take
// `step` columns each and start `panel_bytes` after one another.
struct Packing {
  int64_t begin, end, step;
  int64_t depth_begin, depth;
  int64_t lanes;  // of a panel; those beyond the depth are zeros
  int64_t panel_bytes;
  char* destination;
  // A whole contiguous matrix that is larger than the near caches, into panels on cache lines: asks for the
  // source ahead of time and writes past the caches.
  bool through_memory = false;

  SLIPSTREAM_INLINE uint32_t* panel(int64_t column) const {
    return reinterpret_cast<uint32_t*>(destination + (column - begin) / step * panel_bytes);
  }
  SLIPSTREAM_INLINE int count(int64_t column) const {
    return static_cast<int>(end - column < step ? end - column : step);
  }
};

// Whether a vector of lanes is a cache line, so that it can be written past the caches.
#if defined(__AVX512F__)
constexpr bool kLineStores = true;
SLIPSTREAM_INLINE void stream_lanes(uint32_t* line, Lanes a) {
  _mm512_stream_si512(reinterpret_cast<__m512i*>(line), a);
}
// Makes what this thread streamed visible to the others before it says that it is done.
SLIPSTREAM_INLINE void finish_streams() { _mm_sfence(); }
#else
constexpr bool kLineStores = false;
SLIPSTREAM_INLINE void stream_lanes(uint32_t*, Lanes) {}
SLIPSTREAM_INLINE void finish_streams() {}
#endif

// Stores the first `count` lanes; a whole line past the caches where `stream`.
SLIPSTREAM_INLINE void put_lanes(uint32_t* p, Lanes a, int count, bool stream) {
  if (kLineStores && stream && count == kWidth) {
    stream_lanes(p, a);
  } else {
    store_lanes(p, a, count);
  }
}

// Asks for kElements consecutive elements, to be in the second-level cache when their turn comes.
template <int64_t kElements, class S>
SLIPSTREAM_INLINE void prefetch(const S* source) {
#pragma GCC unroll 32
  for (int64_t i = 0; i < kElements; i += static_cast<int64_t>(64 / sizeof(S))) {
    __builtin_prefetch(source + i, 0, 2);
  }
}

// From memory in which the depth is contiguous: transposes groups of kWidth x kWidth lanes.
template <Lane kLane, int kColumns, class S>
void pack_transposing(const S* source, int64_t stride, const Packing& packing) {
  constexpr int kDepthPerLane = kLane == Lane::pair ? 2 : 1;
  constexpr int64_t kGroupElements = kWidth * kWidth * kDepthPerLane;
  const S* end = source + packing.end * stride;
  for (int64_t begin = packing.begin; begin < packing.end; begin += packing.step) {
    uint32_t* panel = packing.panel(begin);
    const int count = packing.count(begin);
    for (int column = 0; column < kColumns; column += kWidth) {
      const int stored = kColumns - column < kWidth ? kColumns - column : kWidth;
      const int loaded = count - column < 0 ? 0 : count - column;
      const S* rows = source + (begin + column) * stride + packing.depth_begin;
      for (int64_t lane = 0; lane < packing.lanes; lane += kWidth) {
        Lanes group[kWidth];
        if (packing.through_memory) {
          // The next kWidth columns, in the order of memory: in that of their groups, each column would be a
          // stream too short for the processor to notice.
          const S* next = rows + kWidth * stride + lane / kWidth * kGroupElements;
          if (end - next >= kGroupElements) prefetch<kGroupElements>(next);
        }
        const int64_t rest = packing.depth - lane * kDepthPerLane;
        load_group<kLane>(rows + lane * kDepthPerLane, stride, rest > 0 ? loaded : 0, rest, group);
        transpose(group);
        const int limit = static_cast<int>(packing.lanes - lane < kWidth ? packing.lanes - lane : kWidth);
#pragma GCC unroll 16
        for (int i = 0; i < kWidth; i++) {
          uint32_t* place = panel + (lane + i) * kColumns + column;
          if (i < limit) put_lanes(place, group[i], stored, packing.through_memory);
        }
      }
    }
  }
}

// One lane of a panel from memory in which the columns are contiguous.
template <Lane kLane, int kColumns, class S>
SLIPSTREAM_INLINE void pack_lane(const S* row, int64_t stride, int count, int64_t depth, uint32_t* lane,
                                 bool stream) {
#pragma GCC unroll 4
  for (int column = 0; column < kColumns; column += kWidth) {
    const int loaded = depth <= 0 || count < column ? 0 : count - column;
    Lanes value = no_lanes();
    if constexpr (kLane == Lane::pair) {
      if (loaded > 0) value = load_bf16_bits(row + column, loaded);
      if (loaded > 0 && depth > 1) value = join_halves(value, load_bf16_bits(row + stride + column, loaded));
    } else {
      if (loaded > 0) value = lanes_of<kLane>(load(row + column, loaded));
    }
    put_lanes(lane + column, value, kColumns - column < kWidth ? kColumns - column : kWidth, stream);
  }
}

// From memory in which the columns are contiguous: a few depths at a time over all panels, so that whole
// lines and pages of the source are used while they are near.
template <Lane kLane, int kColumns, class S>
void pack_copying(const S* source, int64_t stride, const Packing& packing) {
  constexpr int kDepthPerLane = kLane == Lane::pair ? 2 : 1;
  constexpr int64_t kChunk = 8;
  for (int64_t chunk = 0; chunk < packing.lanes; chunk += kChunk) {
    const int64_t chunk_end = chunk + kChunk < packing.lanes ? chunk + kChunk : packing.lanes;
    for (int64_t begin = packing.begin; begin < packing.end; begin += packing.step) {
      uint32_t* panel = packing.panel(begin);
      const int count = packing.count(begin);
      for (int64_t lane = chunk; lane < chunk_end; lane++) {
        const int64_t k = lane * kDepthPerLane;
        const S* row = source + (packing.depth_begin + k) * stride + begin;
        if (packing.through_memory && packing.depth - k > kChunk * kDepthPerLane) {
          const S* next = row + kChunk * kDepthPerLane * stride;
          prefetch<kColumns>(next);
          if (kDepthPerLane == 2) prefetch<kColumns>(next + stride);
        }
        pack_lane<kLane, kColumns>(row, stride, count, packing.depth - k, panel + lane * kColumns,
                                   packing.through_memory);
      }
    }
  }
}

template <Lane kLane, int kColumns>
void pack_operand(const MatrixView& view, const Packing& packing) {
  with_type(view.dtype, view.data, [&](const auto* source) {
    if (view.depth_contiguous) {
      pack_transposing<kLane, kColumns>(source, view.stride, packing);
    } else {
      pack_copying<kLane, kColumns>(source, view.stride, packing);
    }
  });
}

// Packs columns of the right operand as panels of 32.
inline void pack_right(const MatrixView& view, DType packed, const Packing& packing) {
  if (packed == DType::bf16) {
    pack_operand<Lane::pair, kPanel>(view, packing);
  } else {
    pack_operand<Lane::float32, kPanel>(view, packing);
  }
}

}  // namespace
}  // namespace slipstream
