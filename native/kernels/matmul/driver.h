// The blocking around the micro-kernels: see gemm.h.
#pragma once

#include "core/thread_pool.h"
#include "kernels/matmul/epilogue.h"
#include "kernels/matmul/micro.h"

namespace slipstream {
namespace {

constexpr int64_t kRowBlock = 512;
constexpr int64_t kColumnBlock = 512;
constexpr int64_t kSumStride = kColumnBlock + 16;  // not a power of two: rows lie in different cache sets
constexpr int64_t kMostRows = kRowBlock + 32;      // a row block is rounded up to whole strips

SLIPSTREAM_INLINE int64_t smaller(int64_t a, int64_t b) { return a < b ? a : b; }
SLIPSTREAM_INLINE int64_t larger(int64_t a, int64_t b) { return a > b ? a : b; }
SLIPSTREAM_INLINE int64_t ceil_divide(int64_t a, int64_t b) { return (a + b - 1) / b; }
SLIPSTREAM_INLINE int64_t round_up(int64_t a, int64_t b) { return ceil_divide(a, b) * b; }

// A thread's scratch: strips of a, panels of b, sums.
struct BlockScratch {
  char* strips;
  char* panels;
  float* sums;  // [kMostRows][kSumStride]
};
constexpr int64_t kStripBytes = kMostRows * 512 * 2 + kRowBlock * 64;
constexpr int64_t kPanelBytes = kColumnBlock * 512 * 2;
constexpr int64_t kSumBytes = kMostRows * kSumStride * 4;
// Blocks are a little apart from a power of two, so that they do not compete for the same cache sets.
constexpr int64_t kScratchGap = 1088;
constexpr int64_t kBlockScratchBytes = kStripBytes + kPanelBytes + kSumBytes + 2 * kScratchGap;

SLIPSTREAM_INLINE BlockScratch block_scratch(void* memory) {
  char* bytes = static_cast<char*>(memory);
  char* panels = bytes + kStripBytes + kScratchGap;
  return {bytes, panels, reinterpret_cast<float*>(panels + kPanelBytes + kScratchGap)};
}

// One line more than a strip needs: strips at a power of two would share their cache sets.
template <class Micro>
SLIPSTREAM_INLINE int64_t strip_bytes_of(int64_t depth) {
  return Micro::left_lanes(depth) * Micro::kRows * 4 + 64;
}

// Computes the block rows [m0, m1) x columns [n0, n1) of a product (at most kRowBlock x kColumnBlock, n0 a
// multiple of 32) and calls finish(sums, stride, row, rows, column, columns) for its tiles. `keep`: the whole
// block stays in scratch.sums, with rows of kSumStride.
template <class Micro, class Finish>
void multiply_block(const Product& product, int64_t m0, int64_t m1, int64_t n0, int64_t n1,
                    const BlockScratch& scratch, bool keep, const Finish& finish) {
  const int64_t rows = m1 - m0, depth = product.depth;
  const int64_t strips = ceil_divide(rows, Micro::kRows);
  const int64_t strip_rows = Micro::kEvenStrips ? ceil_divide(rows, strips) : Micro::kRows;
  const int64_t depth_blocks = larger(1, ceil_divide(depth, Micro::kDepthBlock));
  // Few rows read packed panels from memory once, best in one stream: the whole depth is one block then.
  const bool whole = product.packed != nullptr && strips == 1 && strip_bytes_of<Micro>(depth) <= kStripBytes;
  const int64_t block_depth = whole ? larger(depth, 1) : round_up(ceil_divide(depth, depth_blocks), 32);
  const bool in_block = keep || depth > block_depth;
  const int64_t whole_panel_bytes = packed_panel_bytes(Micro::kPacked, depth);
  const int64_t element_bytes = bytes_per_element(Micro::kPacked);
  int64_t k = 0;
  Micro::begin();
  do {
    const int64_t length = smaller(block_depth, depth - k);
    const int64_t left_lanes = Micro::left_lanes(length);
    const int64_t strip_bytes = strip_bytes_of<Micro>(length);
    Micro::pack_left(product.a, product.bf16_products,
                     {m0, m1, strip_rows, k, length, left_lanes, strip_bytes, scratch.strips});
    const char* panels = static_cast<const char*>(product.packed);
    int64_t panel_bytes = whole_panel_bytes;
    if (panels != nullptr) {
      panels += n0 / kPanel * panel_bytes + k * kPanel * element_bytes;
    } else {
      panel_bytes = packed_panel_bytes(Micro::kPacked, length);
      pack_right(product.b, Micro::kPacked,
                 {n0, n1, kPanel, k, length, panel_bytes / (4 * kPanel), panel_bytes, scratch.panels});
      panels = scratch.panels;
    }
    const bool last = k + length >= depth;
    for (int64_t column = n0; column < n1; column += kPanel, panels += panel_bytes) {
      const int columns = static_cast<int>(smaller(kPanel, n1 - column));
      for (int64_t row = 0, strip = 0; row < rows; row += strip_rows, strip++) {
        const int count = static_cast<int>(smaller(strip_rows, rows - row));
        float* sums = in_block ? scratch.sums + row * kSumStride + column - n0 : scratch.sums;
        const int64_t stride = in_block ? kSumStride : kPanel;
        Micro::tile(count, scratch.strips + strip * strip_bytes, panels, length, sums, stride, k == 0);
        if (last) finish(sums, stride, m0 + row, count, column, columns);
      }
    }
    k += length;
  } while (k < depth);
  Micro::end();
}

// Multiply-adds from which waking other threads pays: about as many as a thread does in two microseconds.
constexpr int64_t kWorthThreads = 1 << 16;

// How a product is cut into tasks.
struct Grid {
  int64_t row_step, row_blocks, column_step, column_blocks;
};

// The cut that finishes first on `threads` threads, where a task costs its multiply-adds plus the packing of
// its operands (about eight multiply-adds an element and depth).
SLIPSTREAM_INLINE Grid plan_grid(int64_t batch, int64_t rows, int64_t columns, int64_t strip_rows,
                                 int64_t panel_weight, int threads) {
  const int64_t row_limit = round_up(kRowBlock, strip_rows);
  const int64_t least_rows = ceil_divide(rows, row_limit), least_columns = ceil_divide(columns, kColumnBlock);
  Grid best{};
  int64_t best_cost = -1;
  const int64_t least_rounds = ceil_divide(batch * least_rows * least_columns, threads);
  for (int64_t rounds = least_rounds; rounds < least_rounds + 3; rounds++) {
    for (int64_t i = 0; i < 2 * threads; i++) {
      const int64_t row_blocks = least_rows + i;
      const int64_t column_blocks = larger(least_columns, rounds * threads / (batch * row_blocks));
      if (row_blocks * strip_rows >= rows + strip_rows) break;
      const int64_t row_step = round_up(ceil_divide(rows, row_blocks), strip_rows);
      const int64_t column_step = round_up(ceil_divide(columns, column_blocks), kPanel);
      const Grid grid{row_step, ceil_divide(rows, row_step), column_step, ceil_divide(columns, column_step)};
      const int64_t tasks = batch * grid.row_blocks * grid.column_blocks;
      const int64_t cost =
          ceil_divide(tasks, threads) * (row_step * column_step + 8 * row_step + panel_weight * column_step);
      if (best_cost < 0 || cost < best_cost) {
        best_cost = cost;
        best = grid;
      }
    }
  }
  return best;
}

// Computes `batch` products of one size: product_at(i) is the i-th.
template <class Micro, class At>
void multiply_batch(ThreadPool& threads, int64_t batch, const At& product_at) {
  if (batch == 0) return;
  const Product first = product_at(0);
  if (first.rows == 0 || first.columns == 0) return;
  const bool tiny = batch * first.rows * first.columns * (first.depth + 8) < kWorthThreads;
  const Grid grid = plan_grid(batch, first.rows, first.columns, Micro::kRows, first.packed != nullptr ? 0 : 8,
                              tiny ? 1 : threads.size());
  const int64_t tasks_each = grid.row_blocks * grid.column_blocks;
  const auto run_task = [&](int64_t task, int thread) {
    const Product product = product_at(task / tasks_each);
    const int64_t m0 = task % tasks_each % grid.row_blocks * grid.row_step;
    const int64_t n0 = task % tasks_each / grid.row_blocks * grid.column_step;
    multiply_block<Micro>(
        product, m0, smaller(m0 + grid.row_step, product.rows), n0,
        smaller(n0 + grid.column_step, product.columns),
        block_scratch(threads.scratch(thread, kBlockScratchBytes)), false,
        [&](const float* sums, int64_t stride, int64_t row, int rows, int64_t column, int columns) {
          finish_tile(product.epilogue, sums, stride, row, rows, column, columns);
        });
  };
  if (tiny) {
    for (int64_t task = 0; task < batch * tasks_each; task++) run_task(task, 0);
  } else {
    threads.parallel_tasks(batch * tasks_each, run_task);
  }
}

// Calls body(Micro) with the micro-kernel that a product's dtypes call for.
template <class Body>
SLIPSTREAM_INLINE void with_micro(const Product& product, const Body& body) {
  if (product.packed_dtype == DType::f32) return body(FloatMicro());
  if (product.bf16_products) return body(Bf16Micro());
  body(MixedMicro());
}

template <class At>
SLIPSTREAM_INLINE void multiply_all(ThreadPool& threads, int64_t batch, const At& product_at) {
  if (batch == 0) return;
  with_micro(product_at(0), [&](auto micro) { multiply_batch<decltype(micro)>(threads, batch, product_at); });
}

SLIPSTREAM_INLINE void multiply_one(ThreadPool& threads, const Product& product) {
  multiply_all(threads, 1, [&](int64_t) { return product; });
}

}  // namespace
}  // namespace slipstream
