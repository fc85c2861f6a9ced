// `linear_cross_entropy` and its gradient: the losses of logits = hidden weight^T [T, V] that never exist as
// a whole (after Wijmans et al., "Cut your losses in large-vocabulary language models", 2024).
//
// Logits come block by block, 512 vocabulary entries at a time, into the thread's scratch; each block leaves
// the maximum and the sum of exponentials of every row, and these merge in the order of the blocks. The
// blocks do not depend on the number of threads, so neither do the bits.
//
// The gradient goes through chunks of tokens. Where a chunk's logits fit kBufferBytes they are kept and
// turned into d_logits in place: three products in all. For larger vocabularies the logits are computed a
// second time, a range of the vocabulary after the other. d_logits are rounded to the products' dtype when
// they are packed.
//
// Scratch beside that of the products, in bytes: forward 8 ceil(V / 512) C + 12 C with C = min(T, 2048)
// tokens; gradient the same with C = min(T, 512) or less, plus at most kBufferBytes, plus 4 C K where V >
// 65536.
#pragma once

#include <cmath>
#include <limits>

#include "core/kernel.h"
#include "kernels/matmul/driver.h"

namespace slipstream {
namespace {

constexpr int64_t kForwardTokens = 2048;
constexpr int64_t kGradientTokens = 512;
constexpr int64_t kLeastTokens = 128;
constexpr int64_t kBufferBytes = int64_t{32} << 20;

// The operands, and the memory of one chunk of tokens.
struct LinearCrossEntropy {
  const Tensor& hidden;
  const Tensor& weight;
  const int32_t* targets;
  const float* d_losses;  // null in the forward kernel
  float* losses;
  int64_t tokens, depth, vocabulary, blocks;
  // Of the chunk that starts at token `begin` and has `count`:
  int64_t begin, count;
  float* maxima;         // [blocks][count]
  float* sums;           // [blocks][count]
  float* target_logits;  // [count]
  double* logsumexp;     // [count]
  float* buffer;         // [count][buffer_columns]: logits, then d_logits
  int64_t buffer_columns;

  Product logits_product() const {
    Product product;
    product.rows = tokens;
    product.columns = vocabulary;
    product.depth = depth;
    product.bf16_products = hidden.dtype == DType::bf16;
    product.packed_dtype = product.bf16_products ? DType::bf16 : DType::f32;
    product.a = {hidden.data, hidden.dtype, depth, true};
    product.b = {weight.data, weight.dtype, depth, true};
    return product;
  }
};

// Calls consume(block of logits with rows of kSumStride, first row, rows, first column, columns) for the
// blocks of the chunk's logits in the vocabulary range [v0, v1), v0 a multiple of kColumnBlock.
template <class Micro, class Consume>
void for_logit_blocks(ThreadPool& threads, const LinearCrossEntropy& work, int64_t v0, int64_t v1,
                      const Consume& consume) {
  if (work.count == 0 || v0 == v1) return;
  const Product product = work.logits_product();
  const int64_t column_blocks = ceil_divide(v1 - v0, kColumnBlock);
  const int64_t least_blocks = ceil_divide(work.count, kRowBlock);
  const int64_t row_blocks = larger(least_blocks, ceil_divide(2 * threads.size(), column_blocks));
  const int64_t row_step = round_up(ceil_divide(work.count, row_blocks), Micro::kRows);
  const int64_t tasks = ceil_divide(work.count, row_step) * column_blocks;
  threads.parallel_tasks(tasks, [&](int64_t task, int thread) {
    const BlockScratch scratch = block_scratch(threads.scratch(thread, kBlockScratchBytes));
    const int64_t row = task / column_blocks * row_step, rows = smaller(row_step, work.count - row);
    const int64_t column = v0 + task % column_blocks * kColumnBlock;
    const int64_t columns = smaller(kColumnBlock, v1 - column);
    multiply_block<Micro>(product, work.begin + row, work.begin + row + rows, column, column + columns,
                          scratch, true, [](const float*, int64_t, int64_t, int, int64_t, int) {});
    consume(scratch.sums, row, rows, column, columns);
  });
}

// The maximum of a row of logits and the sum of the exponentials beside it. Overwrites what lies between the
// last logit and the next multiple of kWidth.
SLIPSTREAM_INLINE void reduce_row(float* row, int64_t columns, float* row_maximum, float* row_sum) {
  for (int64_t j = columns; j % kWidth != 0; j++) row[j] = -std::numeric_limits<float>::infinity();
  Vector greatest = load(row);
  for (int64_t j = kWidth; j < columns; j += kWidth) greatest = maximum(greatest, load(row + j));
  const float top = maximum_of(greatest);
  Vector sum = splat(0);
  for (int64_t j = 0; j < columns; j += kWidth) {
    sum = add(sum, exponential(subtract(load(row + j), splat(top))));
  }
  *row_maximum = top;
  *row_sum = sum_of(sum);
}

// Finds logsumexp and the losses of the chunk. `keep`: leaves the logits in the buffer.
template <class Micro>
void compute_losses(ThreadPool& threads, const LinearCrossEntropy& work, bool keep) {
  for (int64_t t = 0; t < work.count; t++) work.target_logits[t] = std::numeric_limits<float>::quiet_NaN();
  for_logit_blocks<Micro>(threads, work, 0, work.vocabulary,
                          [&](float* block, int64_t row, int64_t rows, int64_t column, int64_t columns) {
                            for (int64_t i = 0; i < rows; i++, block += kSumStride) {
                              const int64_t t = row + i;
                              const int64_t target = work.targets[work.begin + t];
                              if (target >= column && target < column + columns)
                                work.target_logits[t] = block[target - column];
                              if (keep)
                                std::memcpy(work.buffer + t * work.buffer_columns + column, block,
                                            columns * sizeof(float));
                              const int64_t index = column / kColumnBlock * work.count + t;
                              reduce_row(block, columns, &work.maxima[index], &work.sums[index]);
                            }
                          });
  threads.parallel_for(work.count, 64, [&](int64_t begin, int64_t end, int) {
    for (int64_t t = begin; t < end; t++) {
      float top = -std::numeric_limits<float>::infinity();
      for (int64_t block = 0; block < work.blocks; block++) {
        const float value = work.maxima[block * work.count + t];
        top = value > top ? value : top;
      }
      double sum = 0;
      for (int64_t block = 0; block < work.blocks; block++) {
        const int64_t index = block * work.count + t;
        sum += work.sums[index] * std::exp(static_cast<double>(work.maxima[index]) - top);
      }
      work.logsumexp[t] = top + std::log(sum);
      const bool ignored = work.targets[work.begin + t] < 0;
      work.losses[work.begin + t] =
          ignored ? 0 : static_cast<float>(work.logsumexp[t] - static_cast<double>(work.target_logits[t]));
    }
  });
}

// d_logits = (softmax - one at the target) d_loss of columns [column, column + columns) of token `t` of the
// chunk; zeros where the target is ignored.
SLIPSTREAM_INLINE void differentiate_row(const LinearCrossEntropy& work, int64_t t, const float* logits,
                                         int64_t column, int64_t columns, float* d_logits) {
  const int64_t target = work.targets[work.begin + t];
  if (target < 0) {
    std::memset(d_logits, 0, columns * sizeof(float));
    return;
  }
  const float d_loss = work.d_losses[work.begin + t];
  const Vector shift = splat(static_cast<float>(work.logsumexp[t])), scale = splat(d_loss);
  for (int64_t j = 0; j < columns; j += kWidth) {
    const int count = static_cast<int>(smaller(kWidth, columns - j));
    store(d_logits + j, multiply(exponential(subtract(load(logits + j, count), shift)), scale), count);
  }
  if (target >= column && target < column + columns) d_logits[target - column] -= d_loss;
}

// d_logits of the chunk in the vocabulary range [v0, v1) into the buffer.
template <class Micro>
void compute_d_logits(ThreadPool& threads, const LinearCrossEntropy& work, int64_t v0, int64_t v1,
                      bool kept) {
  if (!kept) {
    for_logit_blocks<Micro>(threads, work, v0, v1,
                            [&](float* block, int64_t row, int64_t rows, int64_t column, int64_t columns) {
                              for (int64_t t = row; t < row + rows; t++, block += kSumStride) {
                                float* d_logits = work.buffer + t * work.buffer_columns + column - v0;
                                differentiate_row(work, t, block, column, columns, d_logits);
                              }
                            });
    return;
  }
  threads.parallel_for(work.count, 8, [&](int64_t begin, int64_t end, int) {
    for (int64_t t = begin; t < end; t++) {
      float* row = work.buffer + t * work.buffer_columns;
      differentiate_row(work, t, row, v0, v1 - v0, row);
    }
  });
}

// Hands out aligned pieces of the calling thread's scratch; without memory, only adds up.
struct Pieces {
  char* memory;
  int64_t used = kBlockScratchBytes;
  template <class T>
  SLIPSTREAM_INLINE T* take(int64_t elements) {
    used = round_up(used, 64);
    T* piece = memory == nullptr ? nullptr : reinterpret_cast<T*>(memory + used);
    used += elements * static_cast<int64_t>(sizeof(T));
    return piece;
  }
};

// Takes the memory of a chunk of up to `count` tokens; returns the float32 sums of d_hidden where they need
// memory of their own.
SLIPSTREAM_INLINE float* take_memory(Pieces& pieces, LinearCrossEntropy& work, int64_t count,
                                     bool sums_of_hidden) {
  work.maxima = pieces.take<float>(work.blocks * count);
  work.sums = pieces.take<float>(work.blocks * count);
  work.target_logits = pieces.take<float>(count);
  work.logsumexp = pieces.take<double>(count);
  work.buffer = pieces.take<float>(count * work.buffer_columns);
  return sums_of_hidden ? pieces.take<float>(count * work.depth) : nullptr;
}

SLIPSTREAM_INLINE float* prepare_memory(ThreadPool& threads, LinearCrossEntropy& work, int64_t count,
                                        bool sums_of_hidden) {
  Pieces plan{nullptr};
  take_memory(plan, work, count, sums_of_hidden);
  Pieces pieces{static_cast<char*>(threads.scratch(0, plan.used))};
  return take_memory(pieces, work, count, sums_of_hidden);
}

SLIPSTREAM_INLINE LinearCrossEntropy read_operands(const Tensor* inputs, const float* d_losses,
                                                   float* losses) {
  const Tensor &hidden = inputs[0], &weight = inputs[1];
  const int64_t depth = weight.size(-1), vocabulary = weight.size(0);
  return {hidden,   weight,     inputs[2].as<int32_t>(),
          d_losses, losses,     inputs[2].elements(),
          depth,    vocabulary, ceil_divide(vocabulary, kColumnBlock),
          0,        0,          nullptr,
          nullptr,  nullptr,    nullptr,
          nullptr,  0};
}

void linear_cross_entropy(const KernelCall& call) {
  LinearCrossEntropy work = read_operands(call.inputs, nullptr, call.outputs[0].as<float>());
  const int64_t step = smaller(work.tokens, kForwardTokens);
  prepare_memory(call.threads, work, step, false);
  with_micro(work.logits_product(), [&](auto micro) {
    for (; work.begin < work.tokens; work.begin += step) {
      work.count = smaller(step, work.tokens - work.begin);
      compute_losses<decltype(micro)>(call.threads, work, false);
    }
  });
}

// Adds the chunk's part of the gradients, for vocabulary entries [v0, v1).
SLIPSTREAM_INLINE void add_gradients(ThreadPool& threads, const LinearCrossEntropy& work, int64_t v0,
                                     int64_t v1, const Tensor& d_hidden, float* hidden_sums, Tensor d_weight,
                                     bool accumulate) {
  const int64_t width = work.depth;
  const MatrixView d_logits{work.buffer, DType::f32, work.buffer_columns, true};
  Product product = work.logits_product();
  product.columns = width;

  // d_hidden = d_logits weight; where it takes several ranges, the sums so far are the last one's residual.
  product.a = d_logits;
  product.b = {work.weight.as<char>() + v0 * width * bytes_per_element(work.weight.dtype), work.weight.dtype,
               width, false};
  product.rows = work.count;
  product.depth = v1 - v0;
  product.epilogue.stride = width;
  if (v1 < work.vocabulary) {
    product.epilogue.output = hidden_sums;
    product.epilogue.accumulate = v0 > 0;
  } else {
    product.epilogue.output = d_hidden.as<char>() + work.begin * width * bytes_per_element(d_hidden.dtype);
    product.epilogue.dtype = d_hidden.dtype;
    if (v0 > 0) product.epilogue.residual = hidden_sums;
  }
  multiply_one(threads, product);

  // d_weight (+)= d_logits^T hidden
  product.a.depth_contiguous = false;
  product.b = {work.hidden.as<char>() + work.begin * width * bytes_per_element(work.hidden.dtype),
               work.hidden.dtype, width, false};
  product.rows = v1 - v0;
  product.depth = work.count;
  product.epilogue = {};
  product.epilogue.output = d_weight.as<float>() + v0 * width;
  product.epilogue.stride = width;
  product.epilogue.accumulate = accumulate || work.begin > 0;
  multiply_one(threads, product);
}

void linear_cross_entropy_gradient(const KernelCall& call) {
  LinearCrossEntropy work =
      read_operands(call.inputs + 1, call.inputs[0].as<float>(), call.outputs[0].as<float>());
  const bool keep = work.vocabulary * kLeastTokens * 4 <= kBufferBytes;
  int64_t step = smaller(work.tokens, kGradientTokens);
  if (keep && step * work.vocabulary * 4 > kBufferBytes) step = kBufferBytes / (4 * work.vocabulary);
  if (step > 0) step = ceil_divide(work.tokens, ceil_divide(work.tokens, step));
  const int64_t fitting = kBufferBytes / 4 / larger(step, 1) / kColumnBlock * kColumnBlock;
  work.buffer_columns = keep ? work.vocabulary : smaller(fitting, work.vocabulary);
  float* hidden_sums = prepare_memory(call.threads, work, step, !keep);
  with_micro(work.logits_product(), [&](auto micro) {
    do {
      work.count = smaller(step, work.tokens - work.begin);
      compute_losses<decltype(micro)>(call.threads, work, keep);
      int64_t v0 = 0;
      do {
        const int64_t v1 = smaller(v0 + work.buffer_columns, work.vocabulary);
        compute_d_logits<decltype(micro)>(call.threads, work, v0, v1, keep);
        add_gradients(call.threads, work, v0, v1, call.outputs[1], hidden_sums, call.outputs[2],
                      call.attributes[0] != 0);
        v0 = v1;
      } while (v0 < work.vocabulary);
      work.begin += step;
    } while (work.begin < work.tokens);
  });
}

}  // namespace
}  // namespace slipstream
