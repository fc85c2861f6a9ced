// The kernel `matmul_quantized` of docs/kernels.md: activations in bytes times packed weights (layout.h).
//
// Threads take ranges of panels, over all the weights of a call as if they were one, so that each reads one
// long stream. Few rows pass a whole panel at once: it comes from memory and is used once. For more rows than
// a tile has, a panel is cut into blocks of groups that stay in the first-level cache while all rows pass
// them; float sums of a block wait in the thread's scratch, 128 bytes a row.
#pragma once

#include "core/kernel.h"
#include "kernels/matmul/epilogue.h"
#include "kernels/quantized/tile.h"
#if defined(__AMX_TILE__) || defined(SLIPSTREAM_AMX_EMULATED)
#define SLIPSTREAM_BYTE_TILES
#include "kernels/quantized/amx_tile.h"
#endif

namespace slipstream {
namespace {

constexpr int64_t kQuantizedRowBlock = 528;  // whole tiles of 6 and of 16
// Of a panel, at a time: two blocks stay in the near caches, and long ones cost many rows less.
constexpr int64_t kBlockBytes = 17 << 10, kShortBlockBytes = 9 << 10, kFewRows = 32;
SLIPSTREAM_INLINE int64_t block_bytes(int64_t rows) {
  return rows > kFewRows ? kBlockBytes : kShortBlockBytes;
}
constexpr int kMostWeights = 8;

// One weight of a call and what becomes of its products.
struct WeightColumns {
  const uint8_t* packed;
  int64_t columns;
  int64_t first_panel;  // in the row of all panels of the call
  Format format;
  Epilogue epilogue;
};

struct QuantizedProduct {
  QuantizedRows rows;
  int64_t row_count, inner, panels;
  int count;
  WeightColumns weights[kMostWeights];
};

// Attributes: inner size, group, activation, weights n, bias, residual; then bits, minimum and columns of
// each weight. Inputs: values, scales, sums, weights.., biases.. (where bias), residual (where residual).
SLIPSTREAM_INLINE QuantizedProduct read_quantized_product(const KernelCall& call) {
  const auto attribute = [&](int index) { return static_cast<int64_t>(call.attributes[index]); };
  QuantizedProduct product;
  product.inner = attribute(0);
  const int64_t group = attribute(1);
  product.count = static_cast<int>(attribute(3));
  const bool bias = attribute(4) != 0, residual = attribute(5) != 0;
  const int64_t groups = group_count(group, product.inner);
  product.rows = {call.inputs[0].as<int8_t>(), call.inputs[1].as<float>(), call.inputs[2].as<int32_t>(),
                  padded_inner(group, product.inner), groups};
  product.row_count = groups == 0 ? call.outputs[0].rows() : call.inputs[1].elements() / groups;
  product.panels = 0;
  for (int i = 0; i < product.count; i++) {
    WeightColumns& weight = product.weights[i];
    const Tensor& output = call.outputs[i];
    weight.packed = call.inputs[3 + i].as<uint8_t>();
    weight.format = {static_cast<int>(attribute(6 + 3 * i)), group, attribute(7 + 3 * i) != 0};
    weight.columns = attribute(8 + 3 * i);
    weight.first_panel = product.panels;
    product.panels += panel_count(weight.columns);
    Epilogue& epilogue = weight.epilogue;
    epilogue.output = output.data;
    epilogue.dtype = output.dtype;
    epilogue.stride = weight.columns;
    epilogue.activation = static_cast<Activation>(attribute(2));
    if (bias) {
      epilogue.bias = call.inputs[3 + product.count + i].data;
      epilogue.bias_dtype = call.inputs[3 + product.count + i].dtype;
    }
    if (residual) {
      epilogue.residual = call.inputs[call.input_count - 1].data;
      epilogue.residual_dtype = call.inputs[call.input_count - 1].dtype;
    }
  }
  return product;
}

// Scratch of a thread: float sums of `rows` rows, and the bytes of a block of groups as tiles take them.
SLIPSTREAM_INLINE int64_t row_scratch(int64_t rows) {
  return rows * kColumns * static_cast<int64_t>(sizeof(float));
}
SLIPSTREAM_INLINE int64_t byte_scratch(const QuantizedProduct& product) {
#if defined(SLIPSTREAM_BYTE_TILES)
  // Twice a block of nibbles, and a group at the least.
  const PanelLayout layout(product.weights[0].format, product.inner);
  return layout.format.whole() ? 0 : 2 * kBlockBytes + layout.group * kColumns;
#else
  static_cast<void>(product);
  return 0;
#endif
}

// Shares out among the tiles of a block what they are to prefetch: the next block, so that it comes while
// this one is multiplied from the cache. A single tile is better off with what the processor prefetches by
// itself.
class Prefetcher {
 public:
  SLIPSTREAM_INLINE Prefetcher(PanelBlock* block, bool in_blocks, int64_t rows)
      : block_(block), rows_(rows), in_blocks_(in_blocks) {
    group_lines_ = (block->group_bytes + 63) / 64;
    next_ = block->groups + block->count * block->group_bytes;
    end_ = next_ + block->count * block->group_bytes;
  }

  // Before a tile of `rows` rows.
  SLIPSTREAM_INLINE void next(int64_t rows) {
    if (!in_blocks_) {
      block_->ahead_lines = 0;
      return;
    }
    block_->ahead = next_;
    block_->ahead_lines = next_ < end_ ? (group_lines_ * rows + rows_ - 1) / rows_ : 0;
    next_ += block_->ahead_lines * 64 * block_->count;
  }

 private:
  PanelBlock* block_;
  int64_t rows_, group_lines_;
  bool in_blocks_;
  const uint8_t *next_, *end_;
};

template <int kBits, bool kMinimum>
void multiply_grouped_panel(const QuantizedProduct& product, const WeightColumns& weight, int64_t panel,
                            int64_t row_begin, int64_t row_end, float* sums) {
  const PanelLayout layout(weight.format, product.inner);
  const uint8_t* groups = weight.packed + panel * layout.panel_bytes;
  const int columns = static_cast<int>(
      weight.columns - panel * kColumns < kColumns ? weight.columns - panel * kColumns : kColumns);
  const int64_t rows = row_end - row_begin;
  const bool in_blocks = rows > kMostRows;
  const int64_t fits = block_bytes(rows) / layout.group_bytes, fitting = fits > 0 ? fits : 1;
  const int64_t step = in_blocks ? fitting : (layout.groups > 0 ? layout.groups : 1);
  int64_t group = 0;
  do {
    const int64_t count = layout.groups - group < step ? layout.groups - group : step;
    PanelBlock block{groups + group * layout.group_bytes,
                     count,
                     layout.group,
                     layout.header_bytes,
                     layout.group_bytes,
                     group == 0,
                     group + count >= layout.groups};
    Prefetcher prefetcher(&block, in_blocks, rows);
    int tile_rows = 0;
    int64_t row = 0;
#if defined(SLIPSTREAM_BYTE_TILES)
    if (rows >= kTileRows) {
      uint8_t* bytes = reinterpret_cast<uint8_t*>(sums + row_scratch(rows) / 4);
      widen_block<kBits, kMinimum>(block, bytes);
      for (; row + kTileRows <= rows; row += kTileRows) {
        float* out = sums + row * kColumns;
        prefetcher.next(kTileRows);
        amx_grouped_tile<kMinimum>(product.rows.from(row_begin + row, group, layout.group), block, bytes,
                                   out);
        if (block.last) {
          finish_tile(weight.epilogue, out, kColumns, row_begin + row, kTileRows, panel * kColumns, columns);
        }
      }
    }
#endif
    for (; row < rows; row += tile_rows) {
      tile_rows = next_tile_rows(rows - row);
      const GroupedTile tile = choose_tile<kBits, kMinimum>(tile_rows, layout.group);
      float* out = sums + row * kColumns;
      prefetcher.next(tile_rows);
      tile(product.rows.from(row_begin + row, group, layout.group), block, out);
      if (block.last) {
        finish_tile(weight.epilogue, out, kColumns, row_begin + row, tile_rows, panel * kColumns, columns);
      }
    }
    group += count;
  } while (group < layout.groups);
}

inline void multiply_whole_panel(const QuantizedProduct& product, const WeightColumns& weight, int64_t panel,
                                 int64_t row_begin, int64_t row_end, float* sums) {
  const PanelLayout layout(weight.format, product.inner);
  const uint8_t* start = weight.packed + panel * layout.panel_bytes;
  const float* scales = reinterpret_cast<const float*>(start);
  const uint8_t* weights = start + layout.header_bytes;
  const int columns = static_cast<int>(
      weight.columns - panel * kColumns < kColumns ? weight.columns - panel * kColumns : kColumns);
  const int64_t rows = row_end - row_begin;
  const int64_t step =
      rows > kMostRows ? block_bytes(rows) / kColumns / 64 * 64 : (layout.group > 0 ? layout.group : 1);
  int64_t k = 0;
  do {
    const int64_t length = layout.group - k < step ? layout.group - k : step;
    constexpr int64_t kPiece = 4 * kPieceSteps;
    PanelBlock block{weights + k * kColumns,    length / kPiece, kPiece, 0, kPiece * kColumns, k == 0,
                     k + length >= layout.group};
    Prefetcher prefetcher(&block, rows > kMostRows, rows);
    int tile_rows = 0;
    int64_t row = 0;
#if defined(SLIPSTREAM_BYTE_TILES)
    for (; row + kTileRows <= rows; row += kTileRows) {
      float* out = sums + row * kColumns;
      QuantizedRows from = product.rows.from(row_begin + row, 0, 0);
      from.values += k;
      prefetcher.next(kTileRows);
      amx_whole_tile(from, block, scales, out);
      if (block.last) {
        finish_tile(weight.epilogue, out, kColumns, row_begin + row, kTileRows, panel * kColumns, columns);
      }
    }
#endif
    for (; row < rows; row += tile_rows) {
      tile_rows = next_tile_rows(rows - row);
      const WholeTile tile = choose_whole_tile(tile_rows);
      float* out = sums + row * kColumns;
      QuantizedRows from = product.rows.from(row_begin + row, 0, 0);
      from.values += k;
      prefetcher.next(tile_rows);
      tile(from, block, scales, out);
      if (block.last) {
        finish_tile(weight.epilogue, out, kColumns, row_begin + row, tile_rows, panel * kColumns, columns);
      }
    }
    k += length;
  } while (k < layout.group);
}

SLIPSTREAM_INLINE void multiply_panel(const QuantizedProduct& product, int64_t panel, int64_t row_begin,
                                      int64_t row_end, float* sums) {
  int index = product.count - 1;
  while (product.weights[index].first_panel > panel) index--;
  const WeightColumns& weight = product.weights[index];
  const int64_t own = panel - weight.first_panel;
  if (weight.format.whole()) {
    multiply_whole_panel(product, weight, own, row_begin, row_end, sums);
  } else if (weight.format.bits == 8) {
    if (weight.format.minimum) {
      multiply_grouped_panel<8, true>(product, weight, own, row_begin, row_end, sums);
    } else {
      multiply_grouped_panel<8, false>(product, weight, own, row_begin, row_end, sums);
    }
  } else if (weight.format.minimum) {
    multiply_grouped_panel<4, true>(product, weight, own, row_begin, row_end, sums);
  } else {
    multiply_grouped_panel<4, false>(product, weight, own, row_begin, row_end, sums);
  }
}

// Multiply-adds from which waking other threads pays.
constexpr int64_t kWorthQuantizedThreads = 1 << 17;

void matmul_quantized(const KernelCall& call) {
  const QuantizedProduct product = read_quantized_product(call);
  if (product.row_count == 0 || product.panels == 0) return;
  ThreadPool& threads = call.threads;
  int64_t row_blocks = (product.row_count + kQuantizedRowBlock - 1) / kQuantizedRowBlock;
  // Few panels for many threads: rows are shared out, too.
  while (product.panels * row_blocks < 2 * threads.size() && product.row_count / row_blocks >= 48)
    row_blocks *= 2;
  const int64_t row_step = (product.row_count + row_blocks - 1) / row_blocks;
  const size_t scratch_bytes = static_cast<size_t>(row_scratch(row_step) + byte_scratch(product));
  const auto multiply = [&](int64_t row_begin, int64_t panel_begin, int64_t panel_end, int thread) {
    float* sums = static_cast<float*>(threads.scratch(thread, scratch_bytes));
    const int64_t row_end =
        row_begin + row_step < product.row_count ? row_begin + row_step : product.row_count;
#if defined(SLIPSTREAM_BYTE_TILES)
    const int64_t group = product.weights[0].format.group;
    if (row_end - row_begin >= kTileRows) configure_byte_tiles(tile_step(group));
#endif
    for (int64_t panel = panel_begin; panel < panel_end; panel++) {
      multiply_panel(product, panel, row_begin, row_end, sums);
    }
#if defined(SLIPSTREAM_BYTE_TILES)
    if (row_end - row_begin >= kTileRows) tile_release();
#endif
  };
  const int64_t work = product.row_count * product.panels * kColumns * product.inner;
  if (work < kWorthQuantizedThreads) {
    for (int64_t row = 0; row < product.row_count; row += row_step) multiply(row, 0, product.panels, 0);
  } else if (row_blocks == 1) {
    threads.parallel_for(product.panels, 1,
                         [&](int64_t begin, int64_t end, int thread) { multiply(0, begin, end, thread); });
  } else {
    threads.parallel_tasks(row_blocks * product.panels, [&](int64_t task, int thread) {
      const int64_t row = task / product.panels * row_step, panel = task % product.panels;
      if (row < product.row_count) multiply(row, panel, panel + 1, thread);
    });
  }
}

}  // namespace
}  // namespace slipstream
