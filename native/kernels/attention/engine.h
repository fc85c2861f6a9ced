// Engines: the arithmetic of the matrix products inside a block, behind one interface.
//
// An engine multiplies small row-major matrices that lie in caches: c [rows, columns] (float32) from
// a [rows, reduction] and b, whose elements along the reduction are grouped: b is
// [reduction / kPair][columns][kPair]. `Element` is the type of a's and b's elements.
//
//   FloatEngine   float32, kPair 1: FMA on vectors
//   Bf16Engine    bf16, kPair 2: vdpbf16ps (bf16_engine.h)
//   AmxEngine     bf16, kPair 2: tiles (amx_engine.h)
//
// `rows` must be a multiple of kRowMultiple, `columns` of kColumnMultiple, `reduction` of kReductionMultiple,
// and kPitchMultiple is what the pitch of rows along the head size must be a multiple of. Callers pad with
// zeros along the reduction; padded rows and columns may hold anything.
//
// The vector engines hold 4 rows by up to 4 vectors (AVX-512 and NEON; 3 with AVX2's 16 registers) of c in
// registers while they run over the whole reduction.
#pragma once

#include "core/vector.h"
#include "kernels/attention/lanes.h"
#include "kernels/attention/problem.h"

namespace slipstream {
namespace {

// What happens to what c holds: nothing of it stays, the product is added, or the product is added after each
// column of c was multiplied by a factor.
enum class Keep { nothing, sum, scaled_sum };

template <class Engine, int width, Keep keep>
void multiply_strip(int64_t rows, int64_t steps, const typename Engine::Element* a, int64_t a_pitch,
                    const typename Engine::Element* b, int64_t b_pitch, float* c, int64_t c_pitch,
                    const float* factors) {
  constexpr int kRows = 4;
  for (int64_t row = 0; row < rows; row += kRows, a += kRows * a_pitch, c += kRows * c_pitch) {
    Vector sums[kRows][width];
#pragma GCC unroll 4
    for (int r = 0; r < kRows; r++) {
#pragma GCC unroll 4
      for (int v = 0; v < width; v++) {
        if constexpr (keep == Keep::nothing) {
          sums[r][v] = Vector(0.0f);
        } else {
          sums[r][v] = Vector::load(c + r * c_pitch + v * Vector::lanes);
        }
        if constexpr (keep == Keep::scaled_sum) {
          sums[r][v] = sums[r][v] * Vector::load(factors + v * Vector::lanes);
        }
      }
    }
    const typename Engine::Element* left = a;
    const typename Engine::Element* right = b;
    for (int64_t step = 0; step < steps; step++) {
      typename Engine::Packed packed[width];
#pragma GCC unroll 4
      for (int v = 0; v < width; v++) packed[v] = Engine::load(right + v * Vector::lanes * Engine::kPair);
#pragma GCC unroll 4
      for (int r = 0; r < kRows; r++) {
        const typename Engine::Packed element = Engine::broadcast(left + r * a_pitch);
#pragma GCC unroll 4
        for (int v = 0; v < width; v++) sums[r][v] = Engine::multiply_add(element, packed[v], sums[r][v]);
      }
      left += Engine::kPair;
      right += b_pitch * Engine::kPair;
    }
#pragma GCC unroll 4
    for (int r = 0; r < kRows; r++) {
#pragma GCC unroll 4
      for (int v = 0; v < width; v++) sums[r][v].store(c + r * c_pitch + v * Vector::lanes);
    }
  }
}

template <class Engine, Keep keep>
void multiply_vectors(int64_t rows, int64_t columns, int64_t reduction, const typename Engine::Element* a,
                      int64_t a_pitch, const typename Engine::Element* b, int64_t b_pitch, float* c,
                      int64_t c_pitch, const float* factors) {
  constexpr int64_t kWidest = Vector::lanes == 8 ? 3 : 4;
  const int64_t steps = reduction / Engine::kPair;
  int64_t vectors = columns / Vector::lanes;
  for (int64_t strips = (vectors + kWidest - 1) / kWidest; strips > 0; strips--) {
    const int64_t width = (vectors + strips - 1) / strips;
    switch (width) {
      case 1:
        multiply_strip<Engine, 1, keep>(rows, steps, a, a_pitch, b, b_pitch, c, c_pitch, factors);
        break;
      case 2:
        multiply_strip<Engine, 2, keep>(rows, steps, a, a_pitch, b, b_pitch, c, c_pitch, factors);
        break;
      case 3:
        multiply_strip<Engine, 3, keep>(rows, steps, a, a_pitch, b, b_pitch, c, c_pitch, factors);
        break;
      default:
        multiply_strip<Engine, kWidest, keep>(rows, steps, a, a_pitch, b, b_pitch, c, c_pitch, factors);
    }
    vectors -= width;
    b += width * Vector::lanes * Engine::kPair;
    c += width * Vector::lanes;
    if (keep == Keep::scaled_sum) factors += width * Vector::lanes;
  }
}

struct FloatEngine {
  using Element = float;
  using Packed = Vector;
  static constexpr int kPair = 1;
  static constexpr int64_t kRowMultiple = 4;
  static constexpr int64_t kColumnMultiple = Vector::lanes;
  static constexpr int64_t kReductionMultiple = 1;
  static constexpr int64_t kPitchMultiple = Vector::lanes;
  static constexpr int kExponentialDegree = 5;

  // Around all products of a thread's task.
  struct Session {};

  static SLIPSTREAM_INLINE Packed load(const float* p) { return Vector::load(p); }
  static SLIPSTREAM_INLINE Packed broadcast(const float* p) { return Vector(*p); }
  static SLIPSTREAM_INLINE Vector multiply_add(Packed a, Packed b, Vector c) { return fma(a, b, c); }

  // One vector of a row of an a operand.
  static SLIPSTREAM_INLINE void store_row(float* row, Vector value) { value.store(row); }
  // kPair consecutive rows of a b operand, one vector each, from column 0 of `group` on.
  static SLIPSTREAM_INLINE void store_group(float* group, const Vector (&values)[1]) {
    values[0].store(group);
  }

  template <Keep keep>
  static void multiply(int64_t rows, int64_t columns, int64_t reduction, const float* a, int64_t a_pitch,
                       const float* b, int64_t b_pitch, float* c, int64_t c_pitch,
                       const float* factors = nullptr) {
    multiply_vectors<FloatEngine, keep>(rows, columns, reduction, a, a_pitch, b, b_pitch, c, c_pitch,
                                        factors);
  }
};

}  // namespace
}  // namespace slipstream
