// sample (docs/kernels.md), a row of logits a task. A greedy row is read once. One that is limited by top_k
// or min_p is read once more where its blocks of 128 logits reach that far (selection.h), and exponentials
// are taken of those candidates alone. top_p without them, and no limit at all, take one exponential of every
// logit: sums of blocks, of which the one with the drawn token is then computed again. Rows with masks,
// biases or penalties work on a copy. Log-probabilities take one exponential of every logit as it came.
//
// Weights are float32 relative to the likeliest token; sums of blocks, and all sums over candidates, are
// float64 in the order of ids (top_p: of digits). A row's result depends on nothing outside of the row.
#pragma once

#include "core/float_rows.h"
#include "core/random.h"
#include "kernels/sampling/selection.h"

namespace slipstream {
namespace {

enum class SamplingParameter {
  temperature,
  top_k,
  top_p,
  min_p,
  repetition_penalty,
  presence_penalty,
  frequency_penalty,
  logprobs
};
constexpr int64_t kSamplingParameters = 8;
enum class SamplingSeed { seed_low, seed_high, position, answer };
constexpr int64_t kSamplingSeeds = 4;
constexpr int kMaximumLogprobs = 20;
constexpr float kLowestTemperature = 1e-5f;
constexpr int32_t kNotFinite = -1, kNothingAllowed = -2;

struct SamplingSettings {
  float temperature, top_k, top_p, min_p, repetition_penalty, presence_penalty, frequency_penalty, logprobs;
};

SamplingSettings settings_of(const Tensor& parameters, int64_t row) {
  const float* own = parameters.as<float>() + row * kSamplingParameters;
  const auto value = [&](SamplingParameter parameter) { return own[static_cast<int>(parameter)]; };
  return {value(SamplingParameter::temperature),
          value(SamplingParameter::top_k),
          value(SamplingParameter::top_p),
          value(SamplingParameter::min_p),
          value(SamplingParameter::repetition_penalty),
          value(SamplingParameter::presence_penalty),
          value(SamplingParameter::frequency_penalty),
          value(SamplingParameter::logprobs)};
}

// The number in [0, 1) that is drawn for a row.
double uniform_of(const Tensor& seeds, int64_t row) {
  const int32_t* own = seeds.as<int32_t>() + row * kSamplingSeeds;
  const auto word = [&](SamplingSeed seed) { return static_cast<uint32_t>(own[static_cast<int>(seed)]); };
  const RandomStream random = {word(SamplingSeed::seed_low), word(SamplingSeed::seed_high), 0};
  const uint64_t block = word(SamplingSeed::position) | uint64_t{word(SamplingSeed::answer)} << 32;
  // As many blocks as the widest generator makes at once; the first is this row's.
  uint32_t words[4 * 8];
  philox_blocks<8>(random, block, words);
  return double_from_bits(words[0], words[1]);
}

// Entries [begin, end) of a row's list.
struct EntryRange {
  int64_t begin, end;
};
EntryRange entries_of(const Tensor& offsets, const Tensor& ids, int64_t row) {
  const int32_t* own = offsets.as<int32_t>() + row;
  const int64_t count = ids.elements();
  return {own[0] > 0 ? own[0] : 0, own[1] < count ? own[1] : count};
}

// Logits without those whose bit is not set.
void apply_mask(const float* row, const uint32_t* mask, int64_t count, float* out) {
  const float banned = -__builtin_inff();
  for (int64_t start = 0; start < count; start += 32) {
    const uint32_t word = mask[start / 32];
    const int64_t size = count - start < 32 ? count - start : 32;
    for (int64_t i = 0; i < size; i++) out[start + i] = word >> i & 1 ? row[start + i] : banned;
  }
}

struct SamplingOperands {
  const Tensor &logits, &parameters, &seeds, &history_offsets, &history_ids, &history_counts, &bias_offsets,
      &bias_ids, &bias_values, &masks, &mask_rows;
  int64_t vocabulary;
};

// The row's logits after its mask, biases and penalties: in place where it has none, else in `copy`; null
// where its mask is not there.
const float* adjusted_logits(const SamplingOperands& operands, int64_t row, const float* raw,
                             const SamplingSettings& settings, float* copy) {
  const int64_t vocabulary = operands.vocabulary;
  const int64_t mask = operands.mask_rows.as<int32_t>()[row];
  const EntryRange biases = entries_of(operands.bias_offsets, operands.bias_ids, row);
  const bool penalised =
      settings.repetition_penalty != 1 || settings.presence_penalty != 0 || settings.frequency_penalty != 0;
  EntryRange history = entries_of(operands.history_offsets, operands.history_ids, row);
  if (!penalised) history.end = history.begin;
  if (mask == -1 && biases.begin >= biases.end && history.begin >= history.end) return raw;
  if (mask == -1) {
    std::memcpy(copy, raw, static_cast<size_t>(vocabulary) * sizeof(float));
  } else {
    if (mask < 0 || mask >= operands.masks.size(0)) return nullptr;
    const int64_t words = operands.masks.size(1);
    apply_mask(raw, operands.masks.as<uint32_t>() + mask * words, vocabulary, copy);
  }
  for (int64_t i = biases.begin; i < biases.end; i++) {
    const int64_t id = operands.bias_ids.as<int32_t>()[i];
    if (id >= 0 && id < vocabulary) copy[id] += operands.bias_values.as<float>()[i];
  }
  const double repetition = settings.repetition_penalty;
  for (int64_t i = history.begin; i < history.end; i++) {
    const int64_t id = operands.history_ids.as<int32_t>()[i];
    if (id < 0 || id >= vocabulary) continue;
    const double count = operands.history_counts.as<int32_t>()[i], logit = copy[id];
    const double repeated = logit > 0 ? logit / repetition : logit * repetition;
    const double presence = count > 0 ? static_cast<double>(settings.presence_penalty) : 0.0;
    copy[id] = static_cast<float>(repeated - settings.frequency_penalty * count - presence);
  }
  return copy;
}

// Calls body(start, size, block) for the blocks of a row.
template <class Body>
SLIPSTREAM_INLINE void for_each_block(int64_t count, const Body& body) {
  for (int64_t start = 0; start < count; start += kSamplingBlock) {
    body(start, count - start < kSamplingBlock ? count - start : kSamplingBlock, start / kSamplingBlock);
  }
}

SLIPSTREAM_INLINE double sum_of_weights(const float* weights, int64_t count) {
  return static_cast<double>(sum_of(count, [&](int64_t i, auto lanes) { return load(weights + i, lanes); }));
}

// weights[i] = e^((row[i] - top) * scale) of one block; returns their sum.
double weigh_block(const float* row, int64_t count, float top, float scale, float* weights) {
  const Vector base(top), factor(scale);
  for_each_vector(count, [&](int64_t i, auto lanes) {
    store(weights + i, exp((load(row + i, lanes) - base) * factor), lanes);
  });
  return sum_of_weights(weights, count);
}

// The sum of all weights of a row, and of each block.
double weigh_row(const float* row, int64_t count, float top, float scale, double* sums) {
  alignas(64) float weights[kSamplingBlock];
  double total = 0;
  for_each_block(count, [&](int64_t start, int64_t size, int64_t block) {
    sums[block] = weigh_block(row + start, size, top, scale, weights);
    total += sums[block];
  });
  return total;
}

// The token in whose block and at whose place there the cumulative weight first exceeds `target`, which is
// below the sum of the blocks' sums. `weights_of(start, size)` gives the weights of a block.
template <class Weights>
SLIPSTREAM_INLINE int64_t draw_from(int64_t count, const double* sums, double target,
                                    const Weights& weights_of) {
  double sum = 0;
  int64_t block = 0;
  while (!(sum + sums[block] > target)) sum += sums[block++];
  const int64_t start = block * kSamplingBlock;
  const int64_t size = count - start < kSamplingBlock ? count - start : kSamplingBlock;
  const float* weights = weights_of(start, size);
  // The last one that has any weight where rounding lets none exceed it.
  int64_t drawn = 0;
  for (int64_t i = 0; i < size; i++) {
    if (!(weights[i] > 0)) continue;
    drawn = i;
    sum += static_cast<double>(weights[i]);
    if (sum > target) break;
  }
  return start + drawn;
}

// Draws from all tokens; the weights of the drawn one's block are computed again.
int64_t draw_from_row(const float* row, int64_t count, float top, float scale, double uniform, double* sums) {
  alignas(64) float weights[kSamplingBlock];
  const double target = uniform * weigh_row(row, count, top, scale, sums);
  return draw_from(count, sums, target, [&](int64_t start, int64_t size) {
    weigh_block(row + start, size, top, scale, weights);
    return weights;
  });
}

// The sum of the candidates' weights, and of each block of them.
double sum_blocks(const Candidates& candidates, double* sums) {
  double total = 0;
  for_each_block(candidates.count, [&](int64_t start, int64_t size, int64_t block) {
    sums[block] = sum_of_weights(candidates.weights + start, size);
    total += sums[block];
  });
  return total;
}

// A logit that tokens of relative weight e^log_weight surely reach, whatever the rounding.
float floor_of_weight(float top, float temperature, double log_weight) {
  const double floor = top - temperature * (0.01 - log_weight) - 1e-6 * __builtin_fabs(top);
  return floor > kLowestLogit ? static_cast<float>(floor) : kLowestLogit;
}

// One thread's memory.
struct SamplingScratch {
  float *copy, *maxima, *raw_maxima;
  double* sums;
  Candidates candidates;
};

constexpr int64_t kSamplingLists = 6;
int64_t sampling_scratch_floats(int64_t vocabulary) {
  return kSamplingLists * padded(vocabulary) + 4 * padded(sampling_blocks(vocabulary));
}
SamplingScratch sampling_scratch(float* own, int64_t vocabulary) {
  const int64_t list = padded(vocabulary), blocks = padded(sampling_blocks(vocabulary));
  float* lists = own + 4 * blocks;
  return {lists,
          own,
          own + blocks,
          reinterpret_cast<double*>(own + 2 * blocks),
          {reinterpret_cast<int32_t*>(lists + list), lists + 2 * list, lists + 3 * list,
           reinterpret_cast<uint32_t*>(lists + 4 * list), reinterpret_cast<int32_t*>(lists + 5 * list), 0}};
}

// Levels of relative weight e^-1, e^-2, ...: how much of the mass lies above each.
constexpr int kLevels = 12;

// For top_p alone: returns the sum of all weights, and a floor above which the share surely lies.
double floor_of_share(const float* row, int64_t count, float top, const SamplingSettings& settings,
                      double share, float scale, float* floor) {
  // A level's sums run in float32 over this many blocks.
  constexpr int64_t kRun = 8 * kSamplingBlock;
  const Vector base(top), factor(scale), nothing(0.0f);
  double total = 0, above[kLevels] = {};
  for (int64_t start = 0; start < count; start += kRun) {
    const int64_t size = count - start < kRun ? count - start : kRun;
    const float* in = row + start;
    Vector sums[kLevels + 1];
    for (int level = 0; level <= kLevels; level++) sums[level] = nothing;
    const int64_t whole = size / Vector::lanes * Vector::lanes;
    const auto add = [&](Vector distance, Vector weight) {
      for (int level = 0; level < kLevels; level++) {
        const Mask is_above = less_equal(Vector(-1.0f - static_cast<float>(level)), distance);
        sums[level] = sums[level] + select(is_above, weight, nothing);
      }
      sums[kLevels] = sums[kLevels] + weight;
    };
    for (int64_t i = 0; i < whole; i += Vector::lanes) {
      const Vector distance = (Vector::load(in + i) - base) * factor;
      add(distance, exp(distance));
    }
    for (int level = 0; level < kLevels; level++) above[level] += static_cast<double>(sum(sums[level]));
    total += static_cast<double>(sum(sums[kLevels]));
    for (int64_t i = whole; i < size; i++) {
      const float distance = (in[i] - top) * scale;
      const double weight = static_cast<double>(__builtin_expf(distance));
      for (int level = 0; level < kLevels; level++)
        above[level] += distance >= -1.0f - static_cast<float>(level) ? weight : 0;
      total += weight;
    }
  }
  for (int level = 0; level < kLevels; level++) {
    if (above[level] < 1.0001 * share * total) continue;
    *floor = floor_of_weight(top, settings.temperature, -1.0 - level);
    return total;
  }
  // Tokens of less than this weight have less than 1 - p of the mass together: p is reached before them.
  const double weight = 0.5 * (1 - share) * total / static_cast<double>(count);
  *floor = floor_of_weight(top, settings.temperature, __builtin_log(weight));
  return total;
}

// Draws from the tokens that the limits leave. The largest logit is `top`, finite.
int64_t draw_token(const float* row, int64_t vocabulary, float top, const SamplingSettings& settings,
                   double uniform, const SamplingScratch& scratch) {
  const float scale = settings.temperature < 1e30f ? 1.0f / settings.temperature : 1e-30f;
  const bool counted = settings.top_k >= 1 && settings.top_k < static_cast<float>(vocabulary);
  const bool shared = settings.top_p<1, compared = settings.min_p> 0;
  if (!counted && !shared && !compared) {
    return draw_from_row(row, vocabulary, top, scale, uniform, scratch.sums);
  }
  const int64_t most = counted ? static_cast<int64_t>(settings.top_k) : vocabulary;
  const double share = settings.top_p > 0 ? static_cast<double>(settings.top_p) : 0.0;
  const float least = settings.min_p < 1 ? settings.min_p : 1.0f;
  Candidates candidates = scratch.candidates;
  float floor = kLowestLogit;
  double mass = 0;
  if (counted) floor = floor_of_largest(scratch.maxima, sampling_blocks(vocabulary), most, candidates);
  if (compared) {
    const float reached =
        floor_of_weight(top, settings.temperature, __builtin_log(static_cast<double>(least)));
    floor = reached > floor ? reached : floor;
  }
  if (!counted && !compared) mass = floor_of_share(row, vocabulary, top, settings, share, scale, &floor);
  candidates.collect(row, vocabulary, scratch.maxima, floor);
  candidates.weigh(top, scale);
  if (compared) candidates.drop_below(least);
  if (candidates.count > most) candidates.cut(most, __builtin_inf());
  if (counted || compared) mass = sum_blocks(candidates, scratch.sums);
  if (shared) {
    candidates.cut(vocabulary, share * mass);
    mass = sum_blocks(candidates, scratch.sums);
  }
  const auto weights_of = [&](int64_t start, int64_t) { return candidates.weights + start; };
  return candidates.ids[draw_from(candidates.count, scratch.sums, uniform * mass, weights_of)];
}

// The log-probability of `token` and of the likeliest tokens, as many as wanted.
void write_logprobs(const float* raw, int64_t vocabulary, float top, int64_t token, int64_t wanted,
                    const SamplingScratch& scratch, float* logprob, int32_t* top_tokens,
                    float* top_logprobs) {
  const double logsumexp = top + __builtin_log(weigh_row(raw, vocabulary, top, 1.0f, scratch.sums));
  *logprob = static_cast<float>(raw[token] - logsumexp);
  if (wanted == 0) return;
  Candidates candidates = scratch.candidates;
  candidates.collect(raw, vocabulary, scratch.raw_maxima,
                     floor_of_largest(scratch.raw_maxima, sampling_blocks(vocabulary), wanted, candidates));
  if (candidates.count == 0) return;
  const Cut end =
      find_cut(candidates.keys, nullptr, candidates.count, wanted, __builtin_inf(), candidates.members);
  // At most 20, by rising id: each inserted after those that are as likely.
  int64_t found = 0;
  for (int64_t i = 0; i < candidates.count; i++) {
    const uint32_t key = candidates.keys[i];
    if (key < end.key || (key == end.key && i > end.position)) continue;
    int64_t place = found++;
    for (; place > 0 && candidates.logits[i] > raw[top_tokens[place - 1]]; place--) {
      top_tokens[place] = top_tokens[place - 1];
    }
    top_tokens[place] = candidates.ids[i];
  }
  for (int64_t i = 0; i < found; i++) {
    top_logprobs[i] = static_cast<float>(raw[top_tokens[i]] - logsumexp);
  }
}

// The chosen token of a row, or why there is none.
int32_t choose_token(const SamplingOperands& operands, int64_t row, const float* raw, float raw_top,
                     const SamplingSettings& settings, SamplingScratch& scratch) {
  const int64_t vocabulary = operands.vocabulary;
  const float* adjusted = adjusted_logits(operands, row, raw, settings, scratch.copy);
  if (adjusted == nullptr) return kNothingAllowed;
  float top = raw_top;
  if (adjusted == raw) {
    scratch.maxima = scratch.raw_maxima;
  } else {
    top = block_maxima(adjusted, vocabulary, scratch.maxima);
    if (!(top < __builtin_inff())) return kNotFinite;
  }
  if (top == -__builtin_inff()) return kNothingAllowed;
  if (!(settings.temperature >= kLowestTemperature)) {
    return static_cast<int32_t>(first_of(adjusted, vocabulary, scratch.maxima, top));
  }
  const double uniform = uniform_of(operands.seeds, row);
  return static_cast<int32_t>(draw_token(adjusted, vocabulary, top, settings, uniform, scratch));
}

void sample(const KernelCall& call) {
  const Tensor* in = call.inputs;
  const SamplingOperands operands = {in[0], in[1], in[2], in[3], in[4],  in[5],
                                     in[6], in[7], in[8], in[9], in[10], in[0].size(-1)};
  int32_t *tokens = call.outputs[0].as<int32_t>(), *top_tokens = call.outputs[2].as<int32_t>();
  float *logprobs = call.outputs[1].as<float>(), *top_logprobs = call.outputs[3].as<float>();
  const int64_t vocabulary = operands.vocabulary;
  const RowScratch memory(call.threads, 0, sampling_scratch_floats(vocabulary));
  call.threads.parallel_tasks(operands.logits.rows(), [&](int64_t row, int thread) {
    const float* raw = operands.logits.as<float>() + row * vocabulary;
    const SamplingSettings settings = settings_of(operands.parameters, row);
    SamplingScratch scratch = sampling_scratch(memory.own(thread), vocabulary);
    logprobs[row] = 0;
    for (int64_t i = row * kMaximumLogprobs; i < (row + 1) * kMaximumLogprobs; i++) {
      top_tokens[i] = -1;
      top_logprobs[i] = 0;
    }
    const float top = block_maxima(raw, vocabulary, scratch.raw_maxima);
    if (!(top < __builtin_inff())) {
      tokens[row] = kNotFinite;
      return;
    }
    const int32_t token = choose_token(operands, row, raw, top, settings, scratch);
    tokens[row] = token;
    if (token < 0 || !(settings.logprobs >= 0)) return;
    const bool all = settings.logprobs >= kMaximumLogprobs;
    const int64_t wanted = all ? kMaximumLogprobs : static_cast<int64_t>(settings.logprobs);
    write_logprobs(raw, vocabulary, top, token, wanted, scratch, logprobs + row,
                   top_tokens + row * kMaximumLogprobs, top_logprobs + row * kMaximumLogprobs);
  });
}

SLIPSTREAM_KERNEL("sample", kVectorIsa, sample);

}  // namespace
}  // namespace slipstream
