// bf16 products by AMX tiles of 16 x 16 sums and 32 steps of the reduction: two by two tiles of sums stay in
// tile registers over the whole reduction. Operands and conversions are those of bf16_engine.h.
#pragma once

#include "core/amx.h"
#include "kernels/attention/bf16_engine.h"

namespace slipstream {
namespace {

struct AmxEngine : Bf16Engine {
  static constexpr int64_t kRowMultiple = 16;
  static constexpr int64_t kReductionMultiple = 32;

  struct Session {
    Session() { tile_configure_full(); }
    ~Session() { tile_release(); }
    Session(const Session&) = delete;
    Session& operator=(const Session&) = delete;
  };

  // 16 * row_tiles rows by 16 * column_tiles columns of c.
  template <int row_tiles, int column_tiles, bool sum>
  static void multiply_tiles(int64_t reduction, const bf16* a, int64_t a_pitch, const bf16* b,
                             int64_t b_pitch, float* c, int64_t c_pitch) {
    const int64_t a_stride = a_pitch * 2, b_stride = b_pitch * 4, c_stride = c_pitch * 4;
    float* lower = c + 16 * c_pitch;
    if constexpr (sum) {
      tile_load<0>(c, c_stride);
      if constexpr (column_tiles == 2) tile_load<1>(c + 16, c_stride);
      if constexpr (row_tiles == 2) tile_load<2>(lower, c_stride);
      if constexpr (row_tiles == 2 && column_tiles == 2) tile_load<3>(lower + 16, c_stride);
    } else {
      tile_zero<0>();
      if constexpr (column_tiles == 2) tile_zero<1>();
      if constexpr (row_tiles == 2) tile_zero<2>();
      if constexpr (row_tiles == 2 && column_tiles == 2) tile_zero<3>();
    }
    for (int64_t k = 0; k < reduction; k += 32, a += 32, b += 16 * b_pitch * 2) {
      tile_load<4>(a, a_stride);
      tile_load<6>(b, b_stride);
      tile_dot_bf16<0, 4, 6>();
      if constexpr (column_tiles == 2) {
        tile_load<7>(b + 32, b_stride);
        tile_dot_bf16<1, 4, 7>();
      }
      if constexpr (row_tiles == 2) {
        tile_load<5>(a + 16 * a_pitch, a_stride);
        tile_dot_bf16<2, 5, 6>();
      }
      if constexpr (row_tiles == 2 && column_tiles == 2) tile_dot_bf16<3, 5, 7>();
    }
    tile_store<0>(c, c_stride);
    if constexpr (column_tiles == 2) tile_store<1>(c + 16, c_stride);
    if constexpr (row_tiles == 2) tile_store<2>(lower, c_stride);
    if constexpr (row_tiles == 2 && column_tiles == 2) tile_store<3>(lower + 16, c_stride);
  }

  template <int column_tiles, bool sum>
  static void multiply_columns(int64_t rows, int64_t reduction, const bf16* a, int64_t a_pitch, const bf16* b,
                               int64_t b_pitch, float* c, int64_t c_pitch) {
    int64_t row = 0;
    for (; row + 32 <= rows; row += 32) {
      multiply_tiles<2, column_tiles, sum>(reduction, a + row * a_pitch, a_pitch, b, b_pitch,
                                           c + row * c_pitch, c_pitch);
    }
    if (row < rows) {
      multiply_tiles<1, column_tiles, sum>(reduction, a + row * a_pitch, a_pitch, b, b_pitch,
                                           c + row * c_pitch, c_pitch);
    }
  }

  template <Keep keep>
  static void multiply(int64_t rows, int64_t columns, int64_t reduction, const bf16* a, int64_t a_pitch,
                       const bf16* b, int64_t b_pitch, float* c, int64_t c_pitch,
                       [[maybe_unused]] const float* factors = nullptr) {
    if constexpr (keep == Keep::scaled_sum) {
      for (int64_t column = 0; column < columns; column += Vector::lanes) {
        const Vector factor = Vector::load(factors + column);
        for (int64_t row = 0; row < rows; row++) {
          float* at = c + row * c_pitch + column;
          (Vector::load(at) * factor).store(at);
        }
      }
    }
    constexpr bool kSum = keep != Keep::nothing;
    int64_t column = 0;
    for (; column + 32 <= columns; column += 32) {
      multiply_columns<2, kSum>(rows, reduction, a, a_pitch, b + column * 2, b_pitch, c + column, c_pitch);
    }
    if (column < columns) {
      multiply_columns<1, kSum>(rows, reduction, a, a_pitch, b + column * 2, b_pitch, c + column, c_pitch);
    }
  }
};

}  // namespace
}  // namespace slipstream
