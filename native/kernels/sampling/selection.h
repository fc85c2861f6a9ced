// Selection without sorting. A row's logits are taken in blocks of 128; the largest of each block are found
// first, in the only pass that every row needs. What is looked for (the k likeliest tokens, those within some
// distance of the likeliest) lies above a floor that follows from them, and only blocks that reach the floor
// are read again: their tokens above it are the candidates, lists side by side by rising id.
//
// Among candidates, the end of a beginning of the order (falling logit, then rising id) is found by counting
// digits of 8 bits of the logits' bits, from the first bit in which they differ on: a few passes over fewer
// and fewer of them.
#pragma once

#include <bit>
#include <cstdint>

#include "core/vector_math.h"

namespace slipstream {
namespace {

constexpr int64_t kSamplingBlock = 128;
constexpr float kLowestLogit = -3.40282347e38f;  // finite: minus infinity is a token that is not allowed

SLIPSTREAM_INLINE int64_t sampling_blocks(int64_t count) {
  return (count + kSamplingBlock - 1) / kSamplingBlock;
}

// The largest element of each block; returns the largest of all, NaN where any element is NaN.
float block_maxima(const float* row, int64_t count, float* maxima) {
  constexpr int64_t step = Vector::lanes;
  const float lowest = -__builtin_inff();
  Vector not_numbers(0.0f);
  float top = lowest;
  bool broken = false;
  for (int64_t start = 0; start < count; start += kSamplingBlock) {
    const int64_t size = count - start < kSamplingBlock ? count - start : kSamplingBlock;
    const float* in = row + start;
    // max gives its second argument where either is NaN.
    Vector a(lowest), b(lowest);
    int64_t i = 0;
    for (; i + 2 * step <= size; i += 2 * step) {
      const Vector first = Vector::load(in + i), second = Vector::load(in + i + step);
      a = max(first, a);
      b = max(second, b);
      not_numbers = not_numbers + select(is_nan(first + second), Vector(1.0f), Vector(0.0f));
    }
    float largest = maximum(max(a, b));
    for (; i < size; i++) {
      broken = broken || in[i] != in[i];
      largest = in[i] > largest ? in[i] : largest;
    }
    maxima[start / kSamplingBlock] = largest;
    top = largest > top ? largest : top;
  }
  // Infinities of both signs add up to NaN too, but then the row is as broken.
  return broken || sum(not_numbers) > 0 ? __builtin_nanf("") : top;
}

// The first position of `value`, which is the largest element.
int64_t first_of(const float* row, int64_t count, const float* maxima, float value) {
  for (int64_t start = 0; start < count; start += kSamplingBlock) {
    if (maxima[start / kSamplingBlock] != value) continue;
    for (int64_t i = start; i < count; i++) {
      if (row[i] == value) return i;
    }
  }
  return 0;
}

// Logits as integers of the same order; both zeros are one.
SLIPSTREAM_INLINE uint32_t order_key(float logit) {
  const uint32_t bits = std::bit_cast<uint32_t>(logit + 0.0f);
  return bits ^ (bits >> 31 != 0 ? 0xffffffffu : 0x80000000u);
}

// The last element of a beginning of the order.
struct Cut {
  uint32_t key;
  int64_t position;
};

// What find_cut has passed over, and the elements among which the end lies: all of them, or `members`.
struct CutSearch {
  const uint32_t* keys;
  const float* weights;
  int64_t most;
  double mass;
  int32_t* members;
  int64_t count;
  int64_t taken = 0;
  double sum = 0;

  // One round: keeps the members whose digit is that of the end. False where all are equal.
  template <class Member>
  SLIPSTREAM_INLINE bool narrow(const Member& member) {
    constexpr int kDigits = 256;
    uint32_t low = ~0u, high = 0;
    for (int64_t i = 0; i < count; i++) {
      const uint32_t key = keys[member(i)];
      low = key < low ? key : low;
      high = key > high ? key : high;
    }
    if (low >= high) return false;
    const int length = 32 - std::countl_zero(low ^ high), shift = length > 8 ? length - 8 : 0;
    const uint32_t first = low >> shift;
    int32_t counts[kDigits] = {};
    double sums[kDigits] = {};
    for (int64_t i = 0; i < count; i++) {
      const uint32_t digit = (keys[member(i)] >> shift) - first;
      counts[digit]++;
      if (weights != nullptr) sums[digit] += static_cast<double>(weights[member(i)]);
    }
    uint32_t digit = (high >> shift) - first;
    for (; digit > 0; digit--) {
      if (counts[digit] == 0) continue;
      if (taken + counts[digit] >= most || sum + sums[digit] >= mass) break;
      taken += counts[digit];
      sum += sums[digit];
    }
    int64_t kept = 0;
    for (int64_t i = 0; i < count; i++) {
      const int32_t candidate = static_cast<int32_t>(member(i));
      members[kept] = candidate;
      kept += (keys[candidate] >> shift) - first == digit;
    }
    count = kept;
    return true;
  }
};

// The end of the shortest beginning that has `most` elements or weighs `mass`; of all where none does.
// `members` has room for `count` integers. Weights may be null where `mass` is infinite.
Cut find_cut(const uint32_t* keys, const float* weights, int64_t count, int64_t most, double mass,
             int32_t* members) {
  CutSearch search = {keys, weights, most, mass, members, count};
  if (search.narrow([](int64_t i) { return i; })) {
    while (search.narrow([&](int64_t i) { return members[i]; })) {
    }
  } else {
    for (int64_t i = 0; i < count; i++) members[i] = static_cast<int32_t>(i);
  }
  int64_t last = 0;
  for (; last + 1 < search.count; last++) {
    search.taken++;
    if (weights != nullptr) search.sum += static_cast<double>(weights[members[last]]);
    if (search.taken >= most || search.sum >= mass) break;
  }
  return {keys[members[last]], members[last]};
}

// Tokens above a floor, by rising id. Each list has room for the vocabulary.
struct Candidates {
  int32_t* ids;
  float* logits;
  float* weights;
  uint32_t* keys;
  int32_t* members;
  int64_t count;

  // Takes the tokens of a row that are not below `floor`.
  void collect(const float* row, int64_t vocabulary, const float* maxima, float floor) {
    count = 0;
    for (int64_t start = 0; start < vocabulary; start += kSamplingBlock) {
      if (!(maxima[start / kSamplingBlock] >= floor)) continue;
      const int64_t end = start + kSamplingBlock < vocabulary ? start + kSamplingBlock : vocabulary;
      for (int64_t i = start; i < end; i++) {
        ids[count] = static_cast<int32_t>(i);
        logits[count] = row[i];
        count += row[i] >= floor;
      }
    }
    for (int64_t i = 0; i < count; i++) keys[i] = order_key(logits[i]);
  }

  // weights[i] = e^((logits[i] - top) * scale).
  void weigh(float top, float scale) {
    const Vector base(top), factor(scale);
    for_each_vector(count, [&](int64_t i, auto lanes) {
      store(weights + i, exp((load(logits + i, lanes) - base) * factor), lanes);
    });
  }

  // Takes the weights of all but the shortest beginning of the order that has `most` tokens or weighs `mass`.
  void cut(int64_t most, double mass) {
    const Cut end = find_cut(keys, weights, count, most, mass, members);
    for (int64_t i = 0; i <= end.position; i++) weights[i] = keys[i] >= end.key ? weights[i] : 0.0f;
    for (int64_t i = end.position + 1; i < count; i++) weights[i] = keys[i] > end.key ? weights[i] : 0.0f;
  }

  // Takes the weights below `least`.
  void drop_below(float least) {
    for (int64_t i = 0; i < count; i++) weights[i] = weights[i] >= least ? weights[i] : 0.0f;
  }
};

// A floor that the k largest elements of a row reach: that many blocks have an element there.
float floor_of_largest(const float* maxima, int64_t blocks, int64_t k, const Candidates& scratch) {
  if (k > blocks) return kLowestLogit;
  for (int64_t i = 0; i < blocks; i++) scratch.keys[i] = order_key(maxima[i]);
  const float floor =
      maxima[find_cut(scratch.keys, nullptr, blocks, k, __builtin_inf(), scratch.members).position];
  return floor > kLowestLogit ? floor : kLowestLogit;
}

}  // namespace
}  // namespace slipstream
