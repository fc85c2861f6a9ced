// reduce (docs/kernels.md): sums, maxima and minima over any axes. Axes are merged first, so that kept and
// reduced ones alternate. If the innermost is reduced, every output is the fold of contiguous segments; if it
// is kept, outputs are folded together in tiles of 512 columns.
//
// Sums run in float32 over at most 16 terms (64 steps of a column) and are then added in float64. Where
// there are few tiles of outputs, the reduced elements are cut into chunks, by the shape alone, whose results
// are combined in order: the same bits on any number of threads. NaN anywhere in a fold gives NaN.
#pragma once

#include "core/float_rows.h"

namespace slipstream {
namespace {

struct SumFold {
  static constexpr double identity = 0;
  static SLIPSTREAM_INLINE Vector apply(Vector a, Vector b) { return a + b; }
  static SLIPSTREAM_INLINE double apply(double a, double b) { return a + b; }
};
struct MaximumFold {
  static constexpr double identity = -__builtin_inf();
  static SLIPSTREAM_INLINE Vector apply(Vector a, Vector b) { return maximum_or_nan(a, b); }
  static SLIPSTREAM_INLINE double apply(double a, double b) { return a != a || a > b ? a : b; }
};
struct MinimumFold {
  static constexpr double identity = __builtin_inf();
  static SLIPSTREAM_INLINE Vector apply(Vector a, Vector b) { return minimum_or_nan(a, b); }
  static SLIPSTREAM_INLINE double apply(double a, double b) { return a != a || a < b ? a : b; }
};

constexpr int64_t kFoldBlock = 64 * Vector::lanes;  // four accumulators of 16 terms a lane
constexpr int64_t kTileColumns = 512;
constexpr int64_t kTileRows = 64;

// Axes by kind, outermost first, with strides in elements; the innermost axis stands apart.
struct ReduceLayout {
  int kept_rank = 0, reduced_rank = 0;
  int64_t kept_sizes[kMaximumRank], kept_strides[kMaximumRank];
  int64_t reduced_sizes[kMaximumRank], reduced_strides[kMaximumRank];
  int64_t kept = 1, reduced = 1;  // products of the sizes above
  int64_t inner = 1;
  bool inner_reduced = false;
};

SLIPSTREAM_INLINE int64_t offset_of(int64_t index, int rank, const int64_t* sizes, const int64_t* strides) {
  int64_t offset = 0;
  for (int axis = rank - 1; axis > 0; axis--) {
    offset += index % sizes[axis] * strides[axis];
    index /= sizes[axis];
  }
  return rank > 0 ? offset + index * strides[0] : 0;
}

ReduceLayout reduce_layout(const Tensor& x, const double* axes, int axis_count) {
  bool is_reduced[kMaximumRank] = {};
  for (int i = 0; i < axis_count; i++) is_reduced[static_cast<int>(axes[i])] = true;
  int rank = 0;
  int64_t sizes[kMaximumRank];
  bool flags[kMaximumRank];
  for (int axis = 0; axis < x.rank; axis++) {
    if (x.sizes[axis] == 1) continue;
    if (rank > 0 && flags[rank - 1] == is_reduced[axis]) {
      sizes[rank - 1] *= x.sizes[axis];
    } else {
      sizes[rank] = x.sizes[axis];
      flags[rank++] = is_reduced[axis];
    }
  }
  ReduceLayout layout;
  if (rank == 0) return layout;
  layout.inner = sizes[rank - 1];
  layout.inner_reduced = flags[rank - 1];
  int64_t strides[kMaximumRank];
  int64_t stride = 1;
  for (int axis = rank - 1; axis >= 0; axis--) {
    strides[axis] = stride;
    stride *= sizes[axis];
  }
  for (int axis = 0; axis < rank - 1; axis++) {
    if (flags[axis]) {
      layout.reduced_sizes[layout.reduced_rank] = sizes[axis];
      layout.reduced_strides[layout.reduced_rank++] = strides[axis];
      layout.reduced *= sizes[axis];
    } else {
      layout.kept_sizes[layout.kept_rank] = sizes[axis];
      layout.kept_strides[layout.kept_rank++] = strides[axis];
      layout.kept *= sizes[axis];
    }
  }
  return layout;
}

template <class Fold>
double fold_block(const float* values, int64_t count) {
  constexpr int64_t step = Vector::lanes;
  const float identity = static_cast<float>(Fold::identity);
  Vector a(identity), b(identity), c(identity), d(identity);
  int64_t i = 0;
  for (; i + 4 * step <= count; i += 4 * step) {
    a = Fold::apply(a, Vector::load(values + i));
    b = Fold::apply(b, Vector::load(values + i + step));
    c = Fold::apply(c, Vector::load(values + i + 2 * step));
    d = Fold::apply(d, Vector::load(values + i + 3 * step));
  }
  for (; i + step <= count; i += step) a = Fold::apply(a, Vector::load(values + i));
  float lanes[step];
  Fold::apply(Fold::apply(a, b), Fold::apply(c, d)).store(lanes);
  double result = Fold::identity;
  for (int64_t lane = 0; lane < step; lane++) result = Fold::apply(result, static_cast<double>(lanes[lane]));
  for (; i < count; i++) result = Fold::apply(result, static_cast<double>(values[i]));
  return result;
}

// One output: positions [begin, end) of its reduced elements, the innermost axis fastest.
template <class Fold>
double fold_segments(const Tensor& x, const ReduceLayout& layout, int64_t base, int64_t begin, int64_t end,
                     float* scratch) {
  double result = Fold::identity;
  for (int64_t position = begin; position < end;) {
    const int64_t within = position % layout.inner;
    int64_t count = layout.inner - within;
    if (count > end - position) count = end - position;
    if (count > kFoldBlock) count = kFoldBlock;
    const int64_t offset =
        base + within +
        offset_of(position / layout.inner, layout.reduced_rank, layout.reduced_sizes, layout.reduced_strides);
    result = Fold::apply(result, fold_block<Fold>(read_floats(x, offset, count, scratch), count));
    position += count;
  }
  return result;
}

// Columns [base, base + columns) of one kept index over the steps [begin, end).
template <class Fold>
void fold_columns(const Tensor& x, const ReduceLayout& layout, int64_t base, int64_t columns, int64_t begin,
                  int64_t end, double* totals) {
  alignas(64) float partial[kTileColumns];
  for (int64_t i = 0; i < columns; i++) totals[i] = Fold::identity;
  for (int64_t start = begin; start < end; start += kTileRows) {
    const int64_t stop = start + kTileRows < end ? start + kTileRows : end;
    for (int64_t i = 0; i < columns; i++) partial[i] = static_cast<float>(Fold::identity);
    for (int64_t step = start; step < stop; step++) {
      const int64_t offset =
          base + offset_of(step, layout.reduced_rank, layout.reduced_sizes, layout.reduced_strides);
      with_typed(x, offset, [&](const auto* row) {
        for_each_vector(columns, [&](int64_t i, auto lanes) {
          store(partial + i, Fold::apply(load(partial + i, lanes), load(row + i, lanes)), lanes);
        });
      });
    }
    for (int64_t i = 0; i < columns; i++) {
      totals[i] = Fold::apply(totals[i], static_cast<double>(partial[i]));
    }
  }
}

template <class Fold>
void reduce_with(const KernelCall& call) {
  const Tensor &x = call.inputs[0], &y = call.outputs[0];
  const ReduceLayout layout = reduce_layout(x, call.attributes + 1, call.attribute_count - 1);
  const int64_t outputs = y.elements();
  if (outputs == 0) return;
  // Reduced positions of an output, in units of elements (rows) or of steps (columns).
  const int64_t length = layout.inner_reduced ? layout.reduced * layout.inner : layout.reduced;
  const int64_t elements = x.elements();
  const int64_t tile = layout.inner_reduced ? kTileRows : kTileColumns;
  const int64_t row_outputs = layout.inner_reduced ? outputs : layout.inner;
  const int64_t tiles = (row_outputs + tile - 1) / tile;
  const int64_t units = layout.inner_reduced ? tiles : tiles * layout.kept;
  // About 64 units of work where there are enough elements for them.
  int64_t chunks = 64 / units < elements / 65536 ? 64 / units : elements / 65536;
  if (chunks > length) chunks = length;
  if (chunks < 1) chunks = 1;
  const int64_t partial_doubles = chunks == 1 ? 0 : chunks * outputs;
  const RowScratch scratch(call.threads, 2 * partial_doubles, kFoldBlock);
  double* partials = reinterpret_cast<double*>(scratch.shared());
  const auto unit_of_work = [&](int64_t task, int thread) {
    double totals[kTileColumns];
    const int64_t chunk = task % chunks, unit = task / chunks;
    const int64_t begin = length * chunk / chunks, end = length * (chunk + 1) / chunks;
    const int64_t first = unit % tiles * tile;
    const int64_t count = row_outputs - first < tile ? row_outputs - first : tile;
    int64_t output = first;
    if (layout.inner_reduced) {
      for (int64_t i = 0; i < count; i++) {
        const int64_t base = offset_of(first + i, layout.kept_rank, layout.kept_sizes, layout.kept_strides);
        totals[i] = fold_segments<Fold>(x, layout, base, begin, end, scratch.own(thread));
      }
    } else {
      const int64_t kept = unit / tiles;
      output += kept * layout.inner;
      const int64_t base = first + offset_of(kept, layout.kept_rank, layout.kept_sizes, layout.kept_strides);
      fold_columns<Fold>(x, layout, base, count, begin, end, totals);
    }
    if (chunks > 1) {
      std::memcpy(partials + chunk * outputs + output, totals, static_cast<size_t>(count) * sizeof(double));
      return;
    }
    float rounded[kTileColumns];
    for (int64_t i = 0; i < count; i++) rounded[i] = static_cast<float>(totals[i]);
    write_floats(y, output, count, rounded);
  };
  if (elements < 16384) {
    for (int64_t task = 0; task < units * chunks; task++) unit_of_work(task, 0);
  } else {
    call.threads.parallel_tasks(units * chunks, unit_of_work);
  }
  if (chunks == 1) return;
  for (int64_t start = 0; start < outputs; start += kTileColumns) {
    const int64_t count = outputs - start < kTileColumns ? outputs - start : kTileColumns;
    float rounded[kTileColumns];
    for (int64_t i = 0; i < count; i++) {
      double total = Fold::identity;
      for (int64_t chunk = 0; chunk < chunks; chunk++) {
        total = Fold::apply(total, partials[chunk * outputs + start + i]);
      }
      rounded[i] = static_cast<float>(total);
    }
    write_floats(y, start, count, rounded);
  }
}

void reduce(const KernelCall& call) {
  switch (static_cast<int>(call.attributes[0])) {
    case 1:
      return reduce_with<MaximumFold>(call);
    case 2:
      return reduce_with<MinimumFold>(call);
    default:
      return reduce_with<SumFold>(call);
  }
}

SLIPSTREAM_KERNEL("reduce", kVectorIsa, reduce);

}  // namespace
}  // namespace slipstream
